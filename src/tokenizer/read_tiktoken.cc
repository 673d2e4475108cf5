// tiktoken ranks: a line a token, "<base64 bytes> <rank>", as Llama 3 publishes its vocabulary.
#include "base/file.h"
#include "format/text.h"
#include "tokenizer/parse_vocabulary.h"
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/stop_tokens.h"
#include "tokenizer/unicode.h"
#include "tokenizer/vocabulary.h"

#include <algorithm>
#include <charconv>

namespace bitnet {
namespace {

constexpr int kLlama3Specials = 256;

// Padded base64 of at least one byte.
bool decode_base64(std::string_view text, std::string& bytes) {
  bytes.clear();
  if (text.empty() || text.size() % 4 != 0) return false;
  const size_t padding = text.back() != '=' ? 0 : text[text.size() - 2] != '=' ? 1 : 2;
  uint32_t bits = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    uint32_t value = 0;
    if (c >= 'A' && c <= 'Z') {
      value = uint32_t(c - 'A');
    } else if (c >= 'a' && c <= 'z') {
      value = uint32_t(c - 'a' + 26);
    } else if (c >= '0' && c <= '9') {
      value = uint32_t(c - '0' + 52);
    } else if (c == '+' || c == '/') {
      value = c == '+' ? 62 : 63;
    } else if (i < text.size() - padding) {
      return false;
    }
    bits = bits << 6 | value;
    if (i % 4 == 3) {
      bytes += {char(bits >> 16), char(bits >> 8), char(bits)};
      bits = 0;
    }
  }
  bytes.resize(bytes.size() - padding);
  return true;
}

// The 256 names behind Llama 3's ranks (its reference tokenizer; BitNet b1.58 2B4T uses the same).
std::string llama3_special(int i) {
  static constexpr const char* kNames[] = {"begin_of_text", "end_of_text",     nullptr,         nullptr, nullptr,
                                           nullptr,         "start_header_id", "end_header_id", nullptr, "eot_id"};
  if (i < 10 && kNames[i]) return fmt::format("<|{}|>", kNames[i]);
  return fmt::format("<|reserved_special_token_{}|>", i < 6 ? i - 2 : i < 9 ? i - 4 : i - 5);
}

Status read_ranks(std::string_view text, const std::string& name, Vocabulary& vocabulary) {
  std::string bytes;
  for (size_t line = 1, pos = 0; pos < text.size(); ++line) {
    const size_t end = std::min(text.find('\n', pos), text.size());
    std::string_view entry = text.substr(pos, end - pos);
    pos = end + 1;
    if (!entry.empty() && entry.back() == '\r') entry.remove_suffix(1);
    if (entry.empty() && pos >= text.size()) break;
    const size_t space = std::min(entry.find(' '), entry.size());
    const std::string_view number = entry.substr(std::min(space + 1, entry.size()));
    uint64_t rank = 0;
    const auto [rest, error] = std::from_chars(number.data(), number.data() + number.size(), rank);
    if (error != std::errc() || rest != number.data() + number.size() ||
        !decode_base64(entry.substr(0, space), bytes)) {
      return invalid_input("{}: line {} is {}, expected base64, a space and a rank", name, line, quote_name(entry));
    }
    if (rank != vocabulary.tokens.size()) {
      return invalid_input("{}: line {} has the rank {}, expected {}", name, line, rank, vocabulary.tokens.size());
    }
    vocabulary.tokens.push_back(alphabet_from_bytes(bytes));
  }
  return ok();
}

}  // namespace

bool looks_like_tiktoken(std::string_view start) {
  const std::string_view line = start.substr(0, start.find('\n'));
  const size_t space = line.find(' ');
  if (space == 0 || space == std::string_view::npos) return false;
  const auto is_digit = [](char c) { return (c >= '0' && c <= '9') || c == '\r'; };
  const auto is_base64 = [&](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '+' || c == '/' ||
           c == '=';
  };
  return std::all_of(line.begin(), line.begin() + ptrdiff_t(space), is_base64) &&
         std::all_of(line.begin() + ptrdiff_t(space) + 1, line.end(), is_digit);
}

Result<Vocabulary> parse_tiktoken(std::string_view text, const std::string& name, const std::string& pre_override) {
  const auto* known = PreTokenizer::find(pre_override.empty() ? "llama-bpe" : pre_override);
  if (!known) {
    return invalid_argument("unknown pre-tokenizer {}; known are {}", quote_name(pre_override),
                            PreTokenizer::known_names());
  }
  Vocabulary vocabulary;
  BN_RETURN_IF_ERROR(read_ranks(text, name, vocabulary));
  vocabulary.pre = known->canonical;
  vocabulary.ignore_merges = known->ignore_merges;
  vocabulary.merge_by_rank = true;
  vocabulary.types.assign(vocabulary.tokens.size(), TokenType::kNormal);
  if (vocabulary.pre == "llama-bpe") {
    for (int i = 0; i < kLlama3Specials; ++i) {
      vocabulary.tokens.push_back(llama3_special(i));
      vocabulary.types.push_back(TokenType::kControl);
    }
    vocabulary.add_bos = true;
  }
  guess_bos_and_eos(vocabulary);
  add_stop_ids(vocabulary);
  BN_RETURN_IF_ERROR(check_vocabulary(vocabulary, name));
  return vocabulary;
}

Result<Vocabulary> vocabulary_from_tiktoken(const std::string& path, const std::string& pre_override) {
  BN_ASSIGN_OR_RETURN(const std::string text, read_file(path, uint64_t{256} << 20));
  return parse_tiktoken(text, path, pre_override);
}

}  // namespace bitnet
