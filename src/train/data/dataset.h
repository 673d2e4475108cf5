#pragma once

#include "base/result.h"
#include "tokenizer/vocabulary.h"
#include "train/data/shard.h"

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace bitnet {

// An element of a shard whose tokens are marked: those that count as targets are odd.
constexpr int32_t mark_token(int32_t id, bool counted) { return 2 * id + int32_t(counted); }
constexpr int32_t id_of_marked(int32_t element) { return element / 2; }
constexpr bool is_counted(int32_t element) { return element % 2 != 0; }

// What dataset.json says, which `bitnet train prepare` writes last (docs/formats/dataset.md).
struct DatasetInfo {
  struct ShardEntry {
    std::string file;  // in the folder
    ShardHeader header;
  };
  int64_t vocab_size = 0;
  bool marked = false;                            // shards hold mark_token(id, counted)
  std::string tokenizer;                          // for people: "byte-level BPE, llama-bpe, 4096 tokens"
  std::array<std::vector<ShardEntry>, 2> shards;  // by Split
  int64_t n_tokens(Split split) const;
  int64_t n_documents(Split split) const;
  int64_t n_elements() const { return marked ? 2 * vocab_size : vocab_size; }  // a shard's different ones
};
Status write_dataset_info(const std::string& folder, const DatasetInfo& info);
Result<DatasetInfo> read_dataset_info(const std::string& folder);

// A folder of tokens that `bitnet train prepare` made. Each split is one long ring of tokens, cut into sequences that
// overlap by one token, so that each token is a target once an epoch. Nothing is held in memory. Immutable;
// thread-safe.
class Dataset {
 public:
  // Checks every shard's header against dataset.json; the tokens are checked when they are read.
  static Result<Dataset> open(const std::string& folder);

  const std::string& folder() const { return folder_; }
  const DatasetInfo& info() const { return info_; }
  int64_t vocab_size() const { return info_.vocab_size; }
  int64_t n_tokens(Split split) const { return info_.n_tokens(split); }
  // Sequences of `length` tokens in one epoch: (n_tokens - 1) / (length - 1).
  int64_t n_sequences(Split split, int64_t length) const;

  // Fills `out` with sequence `index` of an endless order, a pure function of (split, seed, index, out.size()): the
  // position in the data is one integer. kTrain: epoch index / n_sequences has an order and a starting place of its
  // own. kValid: the order of the text, from its beginning, whatever the seed. Refuses a split that is shorter than
  // `out`, and damaged, shrunken or vanished shards. out.size() >= 2. `counted`, empty or as long, tells which tokens
  // count as targets: all of them where none are marked.
  Status sequence(Split split, uint64_t seed, uint64_t index, std::span<int32_t> out,
                  std::span<uint8_t> counted = {}) const;

  // Reads everything once: the error of the first damaged place.
  Status verify() const;

  // The vocabulary that made the tokens, which lies in the folder.
  Result<Vocabulary> vocabulary() const;

 private:
  Status read_ring(Split split, uint64_t first, std::span<int32_t> out, std::span<uint8_t> counted) const;

  std::string folder_;
  DatasetInfo info_;
  std::array<std::vector<Shard>, 2> shards_;
  std::array<std::vector<uint64_t>, 2> ends_;  // where in its split each shard ends
};

// 256 tokens, one a byte, with the byte's value as its id, and nothing else.
Vocabulary byte_vocabulary();

}  // namespace bitnet
