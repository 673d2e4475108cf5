#include "format/text.h"
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/token_index.h"
#include "tokenizer/vocabulary.h"

#include <cmath>
#include <limits>

namespace bitnet {

std::optional<uint8_t> byte_token_value(std::string_view token) {
  if (token.size() != 6 || token.substr(0, 3) != "<0x" || token[5] != '>') return std::nullopt;
  int value = 0;
  for (const char c : token.substr(3, 2)) {
    const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
    if (digit < 0) return std::nullopt;
    value = value * 16 + digit;
  }
  return uint8_t(value);
}

namespace {

Status check_byte_tokens(const Vocabulary& vocabulary, const std::string& name) {
  std::vector<bool> have(256);
  size_t n_have = 0;
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    if (vocabulary.types[id] != TokenType::kByte) continue;
    const auto byte = byte_token_value(vocabulary.tokens[id]);
    if (!byte) {
      return invalid_input("{}: token {} is marked as a byte but spelled {}, expected <0x00> to <0xFF>", name, id,
                           quote_name(vocabulary.tokens[id]));
    }
    have[*byte] = true;
    ++n_have;
  }
  for (size_t byte = 0; n_have != 0 && byte < 256; ++byte) {
    if (!have[byte]) return invalid_input("{}: the byte tokens lack <0x{:02X}>", name, byte);
  }
  return ok();
}

Status check_tokens(const Vocabulary& vocabulary, const std::string& name) {
  TokenStrings texts;
  texts.reserve(vocabulary.tokens.size());
  TokenIndex index(vocabulary.tokens.size());
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const std::string& token = vocabulary.tokens[id];
    if (token.empty()) return invalid_input("{}: token {} is empty", name, id);
    if (!is_utf8(token)) return invalid_input("{}: token {} ({}) is not UTF-8", name, id, quote_name(token));
    texts.push_back(token);
    const int32_t first = index.insert(texts, int32_t(id));
    if (size_t(first) != id) {
      return invalid_input("{}: tokens {} and {} are both spelled {}", name, first, id, quote_name(token));
    }
    const int32_t type = int32_t(vocabulary.types[id]);
    if (type < int32_t(TokenType::kNormal) || type > int32_t(TokenType::kByte)) {
      return invalid_input("{}: token {} ({}) has type {}, expected 1 to 6", name, id, quote_name(token), type);
    }
  }
  return ok();
}

Status check_ids(const Vocabulary& vocabulary, const std::string& name) {
  const auto check = [&](const char* what, int32_t id) -> Status {
    if (id >= 0 && size_t(id) < vocabulary.tokens.size()) return ok();
    return invalid_input("{}: the {} token id {} lies outside the vocabulary of {} tokens", name, what, id,
                         vocabulary.tokens.size());
  };
  const std::pair<const char*, std::optional<int32_t>> ids[] = {{"begin-of-text", vocabulary.bos_id},
                                                                {"end-of-text", vocabulary.eos_id},
                                                                {"unknown", vocabulary.unk_id},
                                                                {"padding", vocabulary.pad_id},
                                                                {"end-of-turn", vocabulary.eot_id}};
  for (const auto& [what, id] : ids) {
    if (id) BN_RETURN_IF_ERROR(check(what, *id));
  }
  for (const auto* list : {&vocabulary.stop_ids, &vocabulary.lstrip_ids, &vocabulary.rstrip_ids}) {
    for (const int32_t id : *list) BN_RETURN_IF_ERROR(check(list == &vocabulary.stop_ids ? "stop" : "added", id));
  }
  return ok();
}

}  // namespace

Status check_vocabulary(const Vocabulary& vocabulary, const std::string& name) {
  const size_t n_tokens = vocabulary.tokens.size();
  const bool byte_level = vocabulary.kind == VocabularyKind::kByteLevelBpe;
  if (n_tokens == 0) return invalid_input("{}: the vocabulary has no tokens", name);
  if (n_tokens > size_t(std::numeric_limits<int32_t>::max()) / 2) {
    return unsupported("{}: {} tokens are more than can be numbered", name, n_tokens);
  }
  if (vocabulary.types.size() != n_tokens) {
    return invalid_input("{}: {} token types for {} tokens", name, vocabulary.types.size(), n_tokens);
  }
  if (byte_level ? !vocabulary.scores.empty() : vocabulary.scores.size() != n_tokens) {
    return invalid_input("{}: {} token scores for {} tokens", name, vocabulary.scores.size(), n_tokens);
  }
  for (size_t id = 0; id < vocabulary.scores.size(); ++id) {
    if (std::isnan(vocabulary.scores[id])) return invalid_input("{}: the score of token {} is not a number", name, id);
  }
  BN_RETURN_IF_ERROR(check_tokens(vocabulary, name));
  if (!byte_level) BN_RETURN_IF_ERROR(check_byte_tokens(vocabulary, name));
  BN_RETURN_IF_ERROR(check_ids(vocabulary, name));
  if (byte_level && !PreTokenizer::find(vocabulary.pre)) {
    return unsupported("{}: unknown pre-tokenizer {}; known are {}", name, quote_name(vocabulary.pre),
                       PreTokenizer::known_names());
  }
  return ok();
}

}  // namespace bitnet
