// generate_stream [MODEL]: text as it comes, ended by a stop string or by us, and what a seed is good for.
#include <bitnet/bitnet.h>

#include <cstdio>
#include <string>

namespace {

int fail(const bitnet::Error& error) {
  std::fprintf(stderr, "generate_stream: %s\n", error.message.c_str());
  return int(error.code);
}

}  // namespace

int main(int argc, char** argv) {
  const auto model = bitnet::Model::load(argc > 1 ? argv[1] : "models/storyteller-29m.gguf");
  if (!model) return fail(model.error());
  auto session = model->new_session();
  if (!session) return fail(session.error());

  bitnet::GenerateOptions options;
  options.max_new_tokens = 60;
  options.stop = {",", "!"};  // generation ends before any of these
  const std::string prompt = "Once upon a time there was a king who";

  // The same seed gives the same text, another seed another one. A session keeps what it has read and written: reset()
  // makes it forget, so that each story begins anew.
  for (const uint64_t seed : {1, 2, 1}) {
    options.sampling.seed = seed;
    session->reset();
    std::printf("seed %d: %s", int(seed), prompt.c_str());
    // Called for each token with the text that became certain: whole characters, and nothing of a stop string.
    const auto output = bitnet::generate(*session, prompt, options, [](int32_t, std::string_view text) {
      std::fwrite(text.data(), 1, text.size(), stdout);
      return std::fflush(stdout) == 0;
    });
    if (!output) return fail(output.error());
    std::printf("\n[%zu tokens, ended by: %s]\n\n", output->ids.size(), bitnet::stop_reason_name(output->stop));
  }

  // A callback that returns false ends it, too: here after ten tokens.
  session->reset();
  options.stop.clear();
  int n_tokens = 0;
  const auto output =
      bitnet::generate(*session, prompt, options, [&](int32_t, std::string_view) { return ++n_tokens < 10; });
  if (!output) return fail(output.error());
  std::printf("after ten: %s%s\n[ended by: %s]\n", prompt.c_str(), output->text.c_str(),
              bitnet::stop_reason_name(output->stop));
}
