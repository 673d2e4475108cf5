#pragma once

#include "tokenizer/added_tokens.h"
#include "tokenizer/bpe_model.h"
#include "tokenizer/chat_template.h"
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/token_index.h"
#include "tokenizer/vocabulary.h"

#include "bitnet/tokenizer.h"

#include <optional>
#include <span>
#include <string>

namespace bitnet {

struct TokenizerImpl {
  // Bytes [begin, end) of a text.
  struct Span {
    size_t begin, end;
  };

  std::string name;
  Vocabulary vocabulary;
  BpeModel model;
  PreTokenizer pre_tokenizer;
  AddedTokens added_tokens;
  TokenStrings texts;  // vocabulary.tokens, for text_index
  TokenIndex text_index;
  TokenStrings bytes;  // what each token decodes to
  std::vector<uint8_t> is_stop;
  std::optional<ChatTemplate> chat_template;
  std::optional<Error> chat_error;

  bool is_known(int32_t id) const { return id >= 0 && size_t(id) < vocabulary.tokens.size(); }
  bool is_special(int32_t id) const { return bitnet::is_special(vocabulary.types[size_t(id)]); }

  // Appends the ids of `text`; special tokens are looked for inside `special` only (sorted, apart from each other).
  Status encode(std::string_view text, std::span<const Span> special, std::vector<int32_t>& ids) const;
  Status encode_plain(std::string_view text, BpeModel::Scratch& scratch, std::string& words,
                      std::vector<int32_t>& ids) const;
};

// A stretch of a conversation: what the model is given, or what it is to write.
struct ChatTurn {
  std::vector<int32_t> ids;
  bool is_reply;
};
// A conversation as the model meets it when it replies as the assistant, each reply with the end of its turn; what
// follows the last reply is left out. The ids joined are those that `bitnet chat` would have had in front of it: a
// reply's tokens never reach into its prompt. Refuses templates that rewrite what came before.
Result<std::vector<ChatTurn>> encode_turns(const Tokenizer& tokenizer, std::span<const ChatMessage> messages);

}  // namespace bitnet
