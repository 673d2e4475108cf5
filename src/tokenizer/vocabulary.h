#pragma once

#include "base/result.h"
#include "format/gguf.h"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace bitnet {

enum class VocabularyKind : uint8_t { kByteLevelBpe, kSentencePieceBpe };

// Values of GGUF's tokenizer.ggml.token_type.
enum class TokenType : int32_t { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };
// Text that spells a special token is that token only where the caller says so.
constexpr bool is_special(TokenType type) { return type == TokenType::kControl || type == TokenType::kUnknown; }

inline constexpr std::string_view kSpaceMark = "\u2581";  // how SentencePiece writes a space

// A vocabulary as plain data: what every reader produces, and what the tokenizer and the writers take.
struct Vocabulary {
  VocabularyKind kind = VocabularyKind::kByteLevelBpe;
  std::string pre;                  // canonical pre-tokenizer name ("llama-bpe"); empty for SentencePiece
  std::vector<std::string> tokens;  // as in the file: byte-level alphabet ("Ġthe") or SentencePiece ("▁the")
  std::vector<TokenType> types;     // one a token
  std::vector<float> scores;        // SentencePiece only, else empty
  // Best first. Byte-level BPE, except tiktoken ranks; SentencePiece where the file lists them (tokenizer.json), which
  // then count and not the scores.
  std::vector<std::pair<std::string, std::string>> merges;
  bool merge_by_rank = false;     // tiktoken: merge the pair whose joined token has the lowest id
  bool ignore_merges = false;     // a whole piece in the vocabulary is taken before any merge (Llama 3)
  bool add_space_prefix = false;  // SentencePiece
  bool add_bos = false;
  bool add_eos = false;
  std::optional<int32_t> bos_id, eos_id, unk_id, pad_id, eot_id;
  std::vector<int32_t> lstrip_ids, rstrip_ids;  // added tokens that take the white space before or after them along
  std::vector<int32_t> stop_ids;                // eos, end of turn, whatever generation_config.json lists
  std::string chat_template;                    // Jinja; empty: none
  std::vector<std::string> notices;             // for people: "pre-tokenizer assumed", "chat template replaced"
};

// Each checks what it reads (RELIABILITY: typed errors naming file and field) and refuses what it cannot reproduce,
// for example an unknown pre-tokenizer expression or a normaliser.
Result<Vocabulary> vocabulary_from_gguf(const GgufFile& file, const std::string& pre_override = {});
Result<Vocabulary> vocabulary_from_tokenizer_json(const std::string& path, const std::string& pre_override = {});
Result<Vocabulary> vocabulary_from_tiktoken(const std::string& path, const std::string& pre_override = {});
Result<Vocabulary> vocabulary_from_sentencepiece(const std::string& path);
// tokenizer.json + tokenizer_config.json + generation_config.json + chat_template.jinja of a Hugging Face folder, or
// tokenizer.model where there is no tokenizer.json. Nothing when the folder holds neither.
Result<std::optional<Vocabulary>> vocabulary_from_folder(const std::string& folder,
                                                         const std::string& pre_override = {});

// What every reader ends with: types and scores beside the tokens, no token empty, twice or not UTF-8, byte tokens
// whole, ids inside the vocabulary, a pre-tokenizer that we have. `name` is for error messages.
Status check_vocabulary(const Vocabulary& vocabulary, const std::string& name);

// "<0x0A>" to 10; nothing for any other text.
std::optional<uint8_t> byte_token_value(std::string_view token);

bool gguf_has_vocabulary(const GgufFile& file);
Status vocabulary_to_gguf(const Vocabulary& vocabulary,
                          GgufWriter& writer);  // tokenizer.ggml.*, tokenizer.chat_template
Status vocabulary_to_folder(const Vocabulary& vocabulary,
                            const std::string& folder);  // tokenizer.json, tokenizer_config.json

class Tokenizer;
Result<Tokenizer> make_tokenizer(Vocabulary vocabulary, const std::string& name);
const Vocabulary& vocabulary_of(const Tokenizer& tokenizer);

}  // namespace bitnet
