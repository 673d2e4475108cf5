// Helpers of this room's tests.
#include "tokenizer/test_vocabulary.h"

#include "tokenizer/unicode.h"

#include <fmt/format.h>

namespace bitnet::testing_support {

Vocabulary byte_level_vocabulary(const std::string& pre, const std::vector<std::pair<std::string, std::string>>& merges,
                                 const std::vector<std::string>& special,
                                 const std::vector<std::string>& user_defined) {
  Vocabulary v;
  v.pre = pre;
  for (int byte = 0; byte < 256; ++byte) v.tokens.push_back(alphabet_from_bytes(std::string(1, char(byte))));
  for (const auto& [left, right] : merges) {
    v.merges.emplace_back(alphabet_from_bytes(left), alphabet_from_bytes(right));
    v.tokens.push_back(v.merges.back().first + v.merges.back().second);
  }
  v.types.assign(v.tokens.size(), TokenType::kNormal);
  for (const std::string& text : special) {
    v.tokens.push_back(text);
    v.types.push_back(TokenType::kControl);
  }
  for (const std::string& text : user_defined) {
    v.tokens.push_back(text);
    v.types.push_back(TokenType::kUserDefined);
  }
  return v;
}

Vocabulary sentencepiece_vocabulary(const std::vector<std::pair<std::string, float>>& pieces, bool bytes) {
  Vocabulary v;
  v.kind = VocabularyKind::kSentencePieceBpe;
  v.tokens = {"<unk>", "<s>", "</s>"};
  v.types = {TokenType::kUnknown, TokenType::kControl, TokenType::kControl};
  for (int byte = 0; bytes && byte < 256; ++byte) {
    v.tokens.push_back(fmt::format("<0x{:02X}>", byte));
    v.types.push_back(TokenType::kByte);
  }
  v.scores.assign(v.tokens.size(), 0);
  for (const auto& [piece, score] : pieces) {
    v.tokens.push_back(piece);
    v.types.push_back(TokenType::kNormal);
    v.scores.push_back(score);
  }
  v.unk_id = 0;
  v.bos_id = 1;
  v.eos_id = 2;
  v.add_space_prefix = true;
  v.add_bos = true;
  return v;
}

Tokenizer must_make(Vocabulary vocabulary) {
  auto made = make_tokenizer(std::move(vocabulary), "test");
  if (made) return *made;
  ADD_FAILURE() << made.error().message;
  return *make_tokenizer(byte_level_vocabulary("gpt-2", {}), "empty");
}

std::vector<int32_t> must_encode(const Tokenizer& tokenizer, std::string_view text, bool parse_special, bool add_bos) {
  const auto ids = tokenizer.encode(text, {add_bos, parse_special});
  if (ids) return *ids;
  ADD_FAILURE() << ids.error().message;
  return {};
}

std::string must_decode(const Tokenizer& tokenizer, const std::vector<int32_t>& ids, bool show_special) {
  const auto text = tokenizer.decode(ids, show_special);
  if (text) return *text;
  ADD_FAILURE() << text.error().message;
  return {};
}

std::string shared_file(const std::string& name) {
  const std::string path = BITNET_SOURCE_DIR "/../shared/" + name;
  return std::filesystem::exists(path) ? path : std::string();
}

}  // namespace bitnet::testing_support
