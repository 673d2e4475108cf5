// hello MODEL [PROMPT]: prints text as the model generates it.
#include <bitnet/bitnet.h>

#include <cstdio>

int fail(const bitnet::Error& error) {
  std::fprintf(stderr, "hello: %s\n", error.message.c_str());
  return int(error.code);
}

int main(int argc, char** argv) {
  const auto model = bitnet::Model::load(argc > 1 ? argv[1] : "models/storyteller-29m.gguf");
  if (!model) return fail(model.error());
  auto session = model->new_session();
  if (!session) return fail(session.error());

  const char* const prompt = argc > 2 ? argv[2] : "Once upon a time there was";
  std::printf("%s", prompt);
  const auto print = [](int32_t, std::string_view text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
    return std::fflush(stdout) == 0;
  };
  const auto output = bitnet::generate(*session, prompt, {}, print);
  std::printf("\n");
  return output ? 0 : fail(output.error());
}
