// convert [SOURCE OUTPUT [TYPE]]: a model in another format or type. Without arguments it writes the shipped model with
// 1.69 bits a weight, loads both files and compares what they compute.
#include "model/convert.h"

#include "tensor/dtype.h"

#include <bitnet/bitnet.h>

#include <algorithm>
#include <cstdio>
#include <string>

namespace {

int fail(const bitnet::Error& error) {
  std::fprintf(stderr, "convert: %s\n", error.message.c_str());
  return int(error.code);
}

// The logits after a text are equal bit for bit.
bitnet::Result<bool> same_logits(const std::string& a, const std::string& b) {
  std::vector<float> logits[2];
  for (const std::string& path : {a, b}) {
    const auto model = bitnet::Model::load(path);
    if (!model) return model.error();
    auto session = model->new_session();
    if (!session) return session.error();
    const auto ids = model->tokenizer()->encode("Once upon a time");
    if (!ids) return ids.error();
    if (auto fed = session->append(*ids); !fed) return fed.error();
    logits[path == b].assign(session->logits().begin(), session->logits().end());
  }
  return logits[0] == logits[1];
}

}  // namespace

int main(int argc, char** argv) {
  const std::string source = argc > 2 ? argv[1] : "models/storyteller-29m.gguf";
  const std::string output = argc > 2 ? argv[2] : "small.gguf";
  bitnet::ConvertOptions options;
  options.linear_type = bitnet::DType::kTQ1_0;               // five ternary weights a byte; kI2_S: four
  options.to_hf = argc > 3 && std::string(argv[3]) == "hf";  // a Hugging Face folder instead of a GGUF file
  const auto report = bitnet::convert(source, output, options);
  if (!report) return fail(report.error());
  for (const std::string& notice : report->notices) std::printf("note: %s\n", notice.c_str());
  std::printf("%lld tensors, %llu bytes, now %llu\n", static_cast<long long>(report->n_tensors),
              static_cast<unsigned long long>(report->source_bytes),
              static_cast<unsigned long long>(report->output_bytes));

  const auto same = same_logits(source, output);
  if (!same) return fail(same.error());
  std::printf("the same logits: %s\n", *same ? "yes" : "no");
}
