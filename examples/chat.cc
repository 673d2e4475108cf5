// chat MODEL: a conversation in the model's own chat template, a line of the standard input a message.
#include <bitnet/bitnet.h>

#include <algorithm>
#include <cstdio>
#include <iostream>
#include <string>
#include <vector>

namespace {

int fail(const bitnet::Error& error) {
  std::fprintf(stderr, "chat: %s\n", error.message.c_str());
  return int(error.code);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return fail({bitnet::ErrorCode::kInvalidArgument, "usage: chat MODEL"});
  const auto model = bitnet::Model::load(argv[1]);
  if (!model) return fail(model.error());
  const bitnet::Tokenizer* const tokenizer = model->tokenizer();
  if (tokenizer == nullptr || !tokenizer->has_chat_template()) {
    return fail(
        {bitnet::ErrorCode::kUnsupported, "The model has no chat template: it continues texts (see hello.cc)."});
  }
  auto session = model->new_session();
  if (!session) return fail(session.error());

  bitnet::GenerateOptions options;
  options.max_new_tokens = 40;
  options.stop = {"\n"};
  std::vector<bitnet::ChatMessage> messages = {{"system", "You answer briefly."}};
  for (std::string line; std::getline(std::cin, line);) {
    messages.push_back({"user", line});
    // The whole conversation as ids. What a user typed can never end a turn: only the template makes special tokens.
    const auto ids = tokenizer->encode_chat(messages);
    if (!ids) return fail(ids.error());
    // The session has read most of it in the turns before: keep what is the same, feed the rest.
    const auto there = session->ids();
    const auto differ = std::mismatch(there.begin(), there.end(), ids->begin(), ids->end() - 1).first;
    const auto n_same = differ - there.begin();
    if (const auto cut = session->truncate(n_same); !cut) return fail(cut.error());
    const auto answer = bitnet::generate(*session, std::span(*ids).subspan(size_t(n_same)), options);
    if (!answer) return fail(answer.error());
    std::printf("you: %s\nmodel:%s\n[%zu of %zu tokens were new]\n", line.c_str(), answer->text.c_str(),
                ids->size() - size_t(n_same), ids->size());
    messages.push_back({"assistant", answer->text});
  }
}
