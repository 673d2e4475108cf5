#pragma once

#include "tokenizer/merge_table.h"
#include "tokenizer/token_index.h"
#include "tokenizer/vocabulary.h"

#include <array>
#include <atomic>
#include <memory>
#include <string_view>
#include <vector>

namespace bitnet {

// Byte-pair encoding of one piece of text, whatever the vocabulary's kind. Immutable but for a memo; thread-safe.
//
// Symbols start as bytes (byte-level) or characters (SentencePiece). A merge table says which neighbours join; it
// comes from the merges list, or from every way to cut a token into two symbols (scores, tiktoken ranks).
class BpeModel {
 public:
  // Memory for a piece's symbols is bounded by this; such a run without any boundary is no text.
  static constexpr size_t kMaxPieceBytes = size_t{16} << 20;

  // Refuses merges that name unknown tokens, make none or are given twice. `name` is for error messages.
  static Result<BpeModel> build(const Vocabulary& vocabulary, const std::string& name);

  struct Scratch {
    MergeTable::Scratch symbols;
    std::vector<uint32_t> starts;  // SentencePiece: where each symbol starts in the piece
  };
  // Appends the ids of `piece` (SentencePiece: spaces already written as U+2581), which is not longer than
  // kMaxPieceBytes.
  void encode(std::string_view piece, Scratch& scratch, std::vector<int32_t>& ids) const;

  // Byte-level: the bytes of UTF-8 text that no token stands for. encode() leaves them out, as the libraries that such
  // vocabularies were made with do.
  std::vector<uint8_t> missing_bytes() const;

  // No token holds U+2581 behind another character, so SentencePiece text may be cut in front of every run of them.
  bool words_are_separate() const { return words_are_separate_; }

 private:
  Status add_tokens(const Vocabulary& vocabulary, const std::string& name);
  Status add_listed_merges(const Vocabulary& vocabulary, const std::string& name);
  void add_merges_by_cutting(const Vocabulary& vocabulary);
  void number_inner_characters();
  void start_symbols(std::string_view piece, Scratch& scratch) const;
  void append_unmerged(std::string_view symbol, std::vector<int32_t>& ids) const;

  bool byte_level_ = true;
  bool ignore_merges_ = false;
  bool words_are_separate_ = false;
  // What a normal token stands for, by id; empty for all others. Behind them SentencePiece characters that are no
  // token of their own but occur in one: they have a number so that they can merge.
  TokenStrings symbols_;
  TokenIndex index_;
  int32_t n_tokens_ = 0;
  MergeTable merges_;
  std::array<int32_t, 256> byte_ids_;  // the token of each byte, or -1
  // What stands for a byte that UTF-8 never uses and that has no token: the bytes of U+FFFD (byte-level); for a
  // character without a token: the unknown token, once for a run of them (SentencePiece).
  std::vector<int32_t> unknown_;
  // Whether merging a token's own text gives that token: 0 not tried, 1 yes, 2 no.
  std::unique_ptr<std::atomic<uint8_t>[]> merges_to_itself_;
};

}  // namespace bitnet
