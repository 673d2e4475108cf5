#include "tokenizer/tokenizer_impl.h"

#include <algorithm>

namespace bitnet {
namespace {

std::string_view without_leading_space(std::string_view bytes) {
  return !bytes.empty() && bytes.front() == ' ' ? bytes.substr(1) : bytes;
}

}  // namespace

int32_t Tokenizer::vocab_size() const { return int32_t(impl_->vocabulary.tokens.size()); }

Result<std::vector<int32_t>> Tokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  std::vector<int32_t> ids;
  ids.reserve(std::min<size_t>(text.size(), size_t{1} << 24) / 3 + 2);
  if (options.add_bos && adds_bos()) ids.push_back(*bos_id());
  const TokenizerImpl::Span whole{0, text.size()};
  BN_RETURN_IF_ERROR(impl_->encode(text, {&whole, options.parse_special ? size_t{1} : size_t{0}}, ids));
  return ids;
}

Result<std::string> Tokenizer::decode(std::span<const int32_t> ids, bool show_special) const {
  std::string text;
  // SentencePiece puts a space in front of every text; it is not part of what was written.
  bool at_start = impl_->vocabulary.add_space_prefix;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (!impl_->is_known(ids[i])) {
      return invalid_argument("{}: token id {} at position {} lies outside the vocabulary of {} tokens", impl_->name,
                              ids[i], i, vocab_size());
    }
    const bool special = impl_->is_special(ids[i]);
    if (special && !show_special) continue;
    text += at_start && !special ? without_leading_space(token_bytes(ids[i])) : token_bytes(ids[i]);
    at_start = at_start && special;
  }
  return text;
}

std::string_view Tokenizer::token_bytes(int32_t id) const {
  return impl_->is_known(id) ? impl_->bytes[size_t(id)] : std::string_view();
}

std::string_view Tokenizer::token_text(int32_t id) const {
  return impl_->is_known(id) ? std::string_view(impl_->vocabulary.tokens[size_t(id)]) : std::string_view();
}

bool Tokenizer::is_special(int32_t id) const { return impl_->is_known(id) && impl_->is_special(id); }
std::optional<int32_t> Tokenizer::bos_id() const { return impl_->vocabulary.bos_id; }
std::optional<int32_t> Tokenizer::eos_id() const { return impl_->vocabulary.eos_id; }
bool Tokenizer::adds_bos() const { return impl_->vocabulary.add_bos && impl_->vocabulary.bos_id; }
bool Tokenizer::is_stop(int32_t id) const { return impl_->is_known(id) && impl_->is_stop[size_t(id)] != 0; }

std::optional<int32_t> Tokenizer::find(std::string_view token_text) const {
  const int32_t id = impl_->text_index.find(impl_->texts, token_text);
  return id < 0 ? std::nullopt : std::optional(id);
}

std::string Tokenizer::description() const {
  const Vocabulary& v = impl_->vocabulary;
  if (v.kind == VocabularyKind::kSentencePieceBpe) return fmt::format("SentencePiece BPE, {} tokens", v.tokens.size());
  return fmt::format("byte-level BPE, {}, {} tokens", v.pre, v.tokens.size());
}

bool Tokenizer::has_chat_template() const { return !impl_->vocabulary.chat_template.empty(); }

const Vocabulary& vocabulary_of(const Tokenizer& tokenizer) { return tokenizer.impl().vocabulary; }

}  // namespace bitnet
