#include "tokenizer/tokenizer_impl.h"

#include "format/text.h"
#include "tokenizer/unicode.h"

#include <algorithm>

namespace bitnet {
namespace {

std::string spaces_from_marks(std::string_view token) {
  std::string text;
  for (size_t pos = 0; pos < token.size();) {
    const bool mark = token.substr(pos, kSpaceMark.size()) == kSpaceMark;
    text += mark ? ' ' : token[pos];
    pos += mark ? kSpaceMark.size() : 1;
  }
  return text;
}

// What a token decodes to, which for added tokens is also what is looked for in text.
std::string decoded(const Vocabulary& vocabulary, size_t id) {
  const std::string& token = vocabulary.tokens[id];
  const TokenType type = vocabulary.types[id];
  if (is_special(type)) return token;
  if (vocabulary.kind == VocabularyKind::kSentencePieceBpe) {
    if (type == TokenType::kByte) return std::string(1, char(*byte_token_value(token)));
    return spaces_from_marks(token);
  }
  std::string bytes;
  return type != TokenType::kUserDefined && bytes_from_alphabet(token, bytes) ? bytes : token;
}

Result<AddedTokens> added_tokens_of(const Vocabulary& vocabulary, const TokenStrings& bytes, const std::string& name) {
  std::vector<AddedTokens::Token> added;
  std::vector<bool> strips_left(vocabulary.tokens.size()), strips_right(vocabulary.tokens.size());
  for (const int32_t id : vocabulary.lstrip_ids) strips_left[size_t(id)] = true;
  for (const int32_t id : vocabulary.rstrip_ids) strips_right[size_t(id)] = true;
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const TokenType type = vocabulary.types[id];
    const bool special = is_special(type);
    if (!special && type != TokenType::kUserDefined) continue;
    if (bytes[id].size() > AddedTokens::kMaxTextBytes) {
      return unsupported("{}: the added token {} has {} bytes; at most {} are supported", name, quote_name(bytes[id]),
                         bytes[id].size(), AddedTokens::kMaxTextBytes);
    }
    added.push_back({std::string(bytes[id]), int32_t(id), special, strips_left[id], strips_right[id]});
  }
  return AddedTokens(std::move(added));
}

// For people: what this vocabulary cannot hold of a text.
std::string missing_bytes_notice(const std::vector<uint8_t>& bytes) {
  std::string list;
  for (const uint8_t byte : bytes) list += fmt::format("{}0x{:02x}", list.empty() ? "" : " ", byte);
  return fmt::format("the vocabulary has no token for {} of the bytes of text ({}); they are left out when encoding",
                     bytes.size(), list);
}

}  // namespace

Result<Tokenizer> make_tokenizer(Vocabulary vocabulary, const std::string& name) {
  BN_RETURN_IF_ERROR(check_vocabulary(vocabulary, name));
  const size_t n_tokens = vocabulary.tokens.size();
  auto impl = std::make_shared<TokenizerImpl>();
  impl->name = name;
  BN_ASSIGN_OR_RETURN(impl->model, BpeModel::build(vocabulary, name));
  if (vocabulary.kind == VocabularyKind::kByteLevelBpe) {
    impl->pre_tokenizer = PreTokenizer(PreTokenizer::find(vocabulary.pre)->rules);
  }
  if (const auto missing = impl->model.missing_bytes(); !missing.empty()) {
    vocabulary.notices.push_back(missing_bytes_notice(missing));
  }
  impl->texts.reserve(n_tokens);
  impl->bytes.reserve(n_tokens);
  impl->text_index = TokenIndex(n_tokens);
  for (size_t id = 0; id < n_tokens; ++id) {
    impl->texts.push_back(vocabulary.tokens[id]);
    impl->text_index.insert(impl->texts, int32_t(id));
    impl->bytes.push_back(decoded(vocabulary, id));
  }
  BN_ASSIGN_OR_RETURN(impl->added_tokens, added_tokens_of(vocabulary, impl->bytes, name));
  impl->is_stop.resize(n_tokens);
  for (const int32_t id : vocabulary.stop_ids) impl->is_stop[size_t(id)] = 1;
  if (vocabulary.eos_id) impl->is_stop[size_t(*vocabulary.eos_id)] = 1;
  if (!vocabulary.chat_template.empty()) {
    auto parsed = ChatTemplate::parse(vocabulary.chat_template, name);
    if (parsed) {
      impl->chat_template = *std::move(parsed);
    } else {
      vocabulary.notices.push_back("the chat template cannot be used: " + parsed.error().message);
      impl->chat_error = std::move(parsed.error());
    }
  }
  impl->vocabulary = std::move(vocabulary);
  return Tokenizer(std::move(impl));
}

}  // namespace bitnet
