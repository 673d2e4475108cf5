#include "tokenizer/tokenizer_impl.h"
#include "tokenizer/unicode.h"

namespace bitnet {
namespace {

constexpr std::string_view kReplacement = "\ufffd";

// Moves what is settled from the front of `pending` to `out`: whole characters as they are, each longest start of one
// that cannot be completed as U+FFFD. An unfinished character at the end stays.
void settle(std::string& pending, std::string& out) {
  size_t pos = 0;
  while (pos < pending.size()) {
    const Utf8Char c = utf8_at(pending.data(), pos, pending.size());
    if (c.code_point != Utf8Char::kInvalid) {
      out.append(pending, pos, c.size_bytes);
      pos += c.size_bytes;
      continue;
    }
    const size_t prefix = utf8_prefix_size(std::string_view(pending).substr(pos));
    if (prefix != 0 && pos + prefix == pending.size()) break;
    out += kReplacement;
    pos += prefix == 0 ? 1 : prefix;
  }
  pending.erase(0, pos);
}

}  // namespace

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, bool show_special, bool continues_text)
    : tokenizer_(tokenizer),
      show_special_(show_special),
      at_start_(!continues_text && tokenizer.impl().vocabulary.add_space_prefix) {}

std::string_view StreamDecoder::push(int32_t id) {
  out_.clear();
  const bool special = tokenizer_.is_special(id);
  if (special && !show_special_) return out_;
  std::string_view bytes = tokenizer_.token_bytes(id);
  if (at_start_ && !special) {
    if (!bytes.empty() && bytes.front() == ' ') bytes.remove_prefix(1);
    at_start_ = false;
  }
  pending_ += bytes;
  settle(pending_, out_);
  return out_;
}

std::string_view StreamDecoder::finish() {
  out_.clear();
  if (!pending_.empty()) out_ = kReplacement;
  pending_.clear();
  return out_;
}

}  // namespace bitnet
