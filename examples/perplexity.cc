// perplexity [MODEL]: how well a model predicts two texts, from the logits of every position.
#include <bitnet/bitnet.h>

#include <cmath>
#include <cstdio>
#include <string>

namespace {

// -log of the probability that the logits give to a token.
double surprise(std::span<const float> logits, int32_t id) {
  double largest = logits[0], sum = 0;
  for (const float logit : logits) largest = std::fmax(largest, logit);
  for (const float logit : logits) sum += std::exp(logit - largest);
  return std::log(sum) + largest - logits[size_t(id)];
}

bitnet::Result<double> perplexity(const bitnet::Model& model, const std::string& text) {
  auto ids = model.tokenizer()->encode(text);
  if (!ids) return ids.error();
  auto session = model.new_session();
  if (!session) return session.error();
  double sum = 0;
  const auto n = int64_t(ids->size());
  // The logits of a position predict the next token.
  const auto add = [&](int64_t position, std::span<const float> logits) {
    if (position + 1 < n) sum += surprise(logits, (*ids)[size_t(position + 1)]);
    return true;
  };
  if (auto status = session->append(*ids, add); !status) return status.error();
  return std::exp(sum / double(n - 1));
}

}  // namespace

int main(int argc, char** argv) {
  const auto model = bitnet::Model::load(argc > 1 ? argv[1] : "models/storyteller-29m.gguf");
  if (!model) return std::fprintf(stderr, "perplexity: %s\n", model.error().message.c_str()), int(model.error().code);
  for (const char* text : {"The little girl went into the forest, and there she met an old woman.",
                           "Woman the old an met went forest she there and, into girl the little."}) {
    const auto value = perplexity(*model, text);
    if (!value) return std::fprintf(stderr, "perplexity: %s\n", value.error().message.c_str()), int(value.error().code);
    std::printf("%8.1f  %s\n", *value, text);
  }
}
