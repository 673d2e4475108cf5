#pragma once

#include "bitnet/result.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace bitnet {

struct TokenizerImpl;

struct ChatMessage {
  std::string role;  // "system", "user", "assistant"
  std::string content;
};

struct TokenizerOptions {
  // Overrides the pre-tokenizer that the file names: gpt-2, llama-bpe (llama3), falcon, falcon3, falcon_e, starcoder,
  // deepseek-coder, deepseek-llm, qwen2, default. Empty: what the file says; a tiktoken file means llama-bpe.
  std::string pre;
};

struct EncodeOptions {
  // The begin-of-text token in front, if the model asks for one. False: never.
  bool add_bos = true;
  // True: text that spells a special token becomes that token. False: it stays text, so that what a user typed can
  // never end a turn or start another.
  bool parse_special = false;
};

// Text to token ids and back. Immutable; all methods are thread-safe; copies share one vocabulary.
class Tokenizer {
 public:
  // tokenizer.json, tiktoken ranks, a SentencePiece model, a GGUF file with a vocabulary, or a folder that holds one.
  static Result<Tokenizer> load(const std::string& path, const TokenizerOptions& options = {});

  int32_t vocab_size() const;
  // Linear in the text's length. Any bytes are accepted. Texts above 1 GiB are refused.
  Result<std::vector<int32_t>> encode(std::string_view text, const EncodeOptions& options = {}) const;
  // The bytes that the ids stand for; special tokens print as their text when `show_special`. Refuses ids outside the
  // vocabulary. With a byte-level vocabulary of all 256 bytes decode(encode(x)) == x for any x.
  Result<std::string> decode(std::span<const int32_t> ids, bool show_special = true) const;
  // One token's bytes, possibly an incomplete UTF-8 sequence. Empty for ids outside the vocabulary.
  std::string_view token_bytes(int32_t id) const;
  // As it stands in the vocabulary file ("Ġhello", "▁the", "<0x0A>").
  std::string_view token_text(int32_t id) const;
  bool is_special(int32_t id) const;

  std::optional<int32_t> bos_id() const;
  std::optional<int32_t> eos_id() const;
  bool adds_bos() const;
  bool is_stop(int32_t id) const;  // ends generation: end of text, end of turn
  std::optional<int32_t> find(std::string_view token_text) const;

  std::string description() const;  // "byte-level BPE, llama-bpe, 128256 tokens"

  bool has_chat_template() const;
  // The conversation as token ids, special tokens of the template as such and all message text as plain text. A role
  // that the template cannot express, or a template that fails, is an error.
  Result<std::vector<int32_t>> encode_chat(std::span<const ChatMessage> messages,
                                           bool add_generation_prompt = true) const;
  // The same as text, for people to read.
  Result<std::string> render_chat(std::span<const ChatMessage> messages, bool add_generation_prompt = true) const;

  explicit Tokenizer(std::shared_ptr<const TokenizerImpl> impl) : impl_(std::move(impl)) {}
  const TokenizerImpl& impl() const { return *impl_; }

 private:
  std::shared_ptr<const TokenizerImpl> impl_;
};

// Turns a stream of ids into text that is always whole UTF-8: bytes of an unfinished character are held back; bytes
// that can never become one turn into U+FFFD. Not thread-safe. Allocates nothing per token after the first few.
class StreamDecoder {
 public:
  // `continues_text`: the ids go on from a text that was already shown, so the first keeps its leading space, which
  // SentencePiece vocabularies otherwise add to every text. Without it the pieces joined are Tokenizer::decode's text.
  explicit StreamDecoder(const Tokenizer& tokenizer, bool show_special = false, bool continues_text = false);
  // New text after this token; valid until the next call.
  std::string_view push(int32_t id);
  // What is still held back, as U+FFFD.
  std::string_view finish();

 private:
  Tokenizer tokenizer_;
  bool show_special_;
  bool at_start_ = true;
  std::string pending_;
  std::string out_;
};

}  // namespace bitnet
