// logits_top [MODEL]: the most likely next tokens after a text, with their probabilities.
#include <bitnet/bitnet.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <vector>

namespace {

constexpr size_t kTop = 5;

int fail(const bitnet::Error& error) {
  std::fprintf(stderr, "logits_top: %s\n", error.message.c_str());
  return int(error.code);
}

}  // namespace

int main(int argc, char** argv) {
  const auto model = bitnet::Model::load(argc > 1 ? argv[1] : "models/storyteller-29m.gguf");
  if (!model) return fail(model.error());
  auto session = model->new_session();
  if (!session) return fail(session.error());
  const bitnet::Tokenizer& tokenizer = *model->tokenizer();

  for (const char* text : {"Once upon a", "She opened the", "The king and the"}) {
    const auto ids = tokenizer.encode(text);
    if (!ids) return fail(ids.error());
    session->reset();
    if (const auto fed = session->append(*ids); !fed) return fail(fed.error());

    const std::span<const float> logits = session->logits();  // [vocab_size]
    std::vector<int32_t> order(logits.size());
    std::iota(order.begin(), order.end(), 0);
    std::partial_sort(order.begin(), order.begin() + kTop, order.end(),
                      [&](int32_t a, int32_t b) { return logits[size_t(a)] > logits[size_t(b)]; });
    const double largest = logits[size_t(order[0])];
    double sum = 0;  // of the softmax
    for (const float logit : logits) sum += std::exp(logit - largest);

    std::printf("%s\n", text);
    for (size_t i = 0; i < kTop; ++i) {
      const std::string_view piece = tokenizer.token_bytes(order[i]);
      std::printf("  %5.1f%%  \"%.*s\"\n", 100 * std::exp(logits[size_t(order[i])] - largest) / sum, int(piece.size()),
                  piece.data());
    }
  }
}
