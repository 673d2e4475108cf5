// Vocabulary files of three kinds, and texts. Traps when a vocabulary that was accepted does not hold together: when
// its tokenizer gives an id outside the vocabulary, makes a special token of plain text, depends on what it encoded
// before, or (byte-level, all bytes there, no token that takes white space along) does not give back the text.
#include "tokenizer/parse_vocabulary.h"
#include "tokenizer/tokenizer_impl.h"
#include "tokenizer/unicode.h"

#include <cstdint>
#include <cstdlib>
#include <string>

namespace {

using namespace bitnet;

void require(bool condition) {
  if (!condition) std::abort();
}

bool gives_text_back(const Vocabulary& v) {
  if (v.kind != VocabularyKind::kByteLevelBpe || !v.lstrip_ids.empty() || !v.rstrip_ids.empty()) return false;
  size_t n_bytes = 0;
  std::string bytes;
  for (size_t id = 0; id < v.tokens.size(); ++id) {
    n_bytes += v.types[id] == TokenType::kNormal && bytes_from_alphabet(v.tokens[id], bytes) && bytes.size() == 1;
  }
  return n_bytes == 256;
}

void check_text(const Tokenizer& tokenizer, std::string_view text) {
  for (const bool parse_special : {false, true}) {
    const auto ids = tokenizer.encode(text, {false, parse_special});
    require(ids.has_value());
    for (const int32_t id : *ids) {
      require(id >= 0 && id < tokenizer.vocab_size());
      require(parse_special || !tokenizer.is_special(id) || id == vocabulary_of(tokenizer).unk_id);
    }
    require(*ids == *tokenizer.encode(text, {false, parse_special}));
    const auto decoded = tokenizer.decode(*ids);
    require(decoded.has_value());
    if (gives_text_back(vocabulary_of(tokenizer))) require(*decoded == text);
    StreamDecoder stream(tokenizer, true);
    std::string streamed;
    for (const int32_t id : *ids) streamed += stream.push(id);
    streamed += stream.finish();
    for (size_t pos = 0; pos < streamed.size();) {
      const Utf8Char c = utf8_at(streamed.data(), pos, streamed.size());
      require(c.code_point != Utf8Char::kInvalid);
      pos += c.size_bytes;
    }
  }
}

// All bytes and a few merges, so that texts meet every part of the encoder.
Tokenizer fixed_tokenizer(const char* pre) {
  Vocabulary v;
  v.pre = pre;
  for (int byte = 0; byte < 256; ++byte) v.tokens.push_back(alphabet_from_bytes(std::string(1, char(byte))));
  for (const auto& [left, right] :
       {std::pair("a", "a"), {"aa", "a"}, {" ", " "}, {"'", "s"}, {"1", "1"}, {"\xc3", "\xa9"}}) {
    v.merges.emplace_back(alphabet_from_bytes(left), alphabet_from_bytes(right));
    v.tokens.push_back(v.merges.back().first + v.merges.back().second);
  }
  v.types.assign(v.tokens.size(), TokenType::kNormal);
  for (const char* special : {"<s>", "<s><s>", "aab"}) {
    v.tokens.push_back(special);
    v.types.push_back(*special == '<' ? TokenType::kControl : TokenType::kUserDefined);
  }
  auto made = make_tokenizer(std::move(v), "fixed");
  require(made.has_value());
  return *made;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const uint8_t kind = data[0];
  std::string_view input(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (kind >= 'T') {
    static const Tokenizer tokenizers[] = {fixed_tokenizer("gpt-2"),        fixed_tokenizer("llama-bpe"),
                                           fixed_tokenizer("falcon"),       fixed_tokenizer("starcoder"),
                                           fixed_tokenizer("deepseek-llm"), fixed_tokenizer("deepseek-coder"),
                                           fixed_tokenizer("qwen2"),        fixed_tokenizer("default")};
    check_text(tokenizers[kind % 8], input);
    return 0;
  }
  // The text to encode stands behind the last NUL byte; without one the file's own bytes are the text.
  const size_t nul = input.rfind('\0');
  const std::string_view text = nul == std::string_view::npos || kind % 3 == 2 ? input : input.substr(nul + 1);
  if (nul != std::string_view::npos && kind % 3 != 2) input = input.substr(0, nul);
  auto vocabulary = kind % 3 == 0   ? parse_tokenizer_json(input, "fuzz", kind % 2 ? "llama-bpe" : "")
                    : kind % 3 == 1 ? parse_tiktoken(input, "fuzz", kind % 2 ? "gpt-2" : "")
                                    : parse_sentencepiece(input, "fuzz");
  if (!vocabulary) {
    require(!vocabulary.error().message.empty());
    return 0;
  }
  const auto tokenizer = make_tokenizer(*std::move(vocabulary), "fuzz");
  if (!tokenizer) return 0;
  check_text(*tokenizer, text);
  return 0;
}
