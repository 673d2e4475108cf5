// consumer MODEL: prints "text: ..." for a model with a vocabulary, "ids: ..." for one without, or "error: ...".
#include <bitnet/bitnet.h>

#include <cstdio>
#include <vector>

namespace {

int fail(const bitnet::Error& error) {
  std::printf("error: %s: %s\n", bitnet::error_kind(error.code), error.message.c_str());
  return int(error.code);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return fail({bitnet::ErrorCode::kInvalidArgument, "usage: consumer MODEL"});
  const bitnet::Result<bitnet::Model> model = bitnet::Model::load(argv[1]);
  if (!model) return fail(model.error());
  bitnet::Result<bitnet::Session> session = model->new_session();
  if (!session) return fail(session.error());

  bitnet::GenerateOptions options;
  options.max_new_tokens = 8;
  options.sampling.temperature = 0;
  options.ignore_eos = true;
  const std::vector<int32_t> ids = {1, 2, 3};
  const bool has_text = model->tokenizer() != nullptr;
  const bitnet::Result<bitnet::Output> output =
      has_text ? bitnet::generate(*session, "Once upon a time", options) : bitnet::generate(*session, ids, options);
  if (!output) return fail(output.error());
  if (has_text) {
    std::printf("text: %s\n", output->text.c_str());
  } else {
    std::printf("ids:");
    for (const int32_t id : output->ids) std::printf(" %d", id);
    std::printf("\n");
  }
  return 0;
}
