#pragma once

#include "bitnet/model.h"
#include "bitnet/session.h"
#include "kernels/fused_model.h"
#include "model/forward.h"
#include "runtime/kv_cache.h"

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace bitnet {

struct BatchOptions {
  int64_t max_sequences = 1;
  int64_t n_ctx = 0;         // positions a sequence, at most as many as the model was trained for
  int64_t max_tokens = 512;  // of all sequences in a step
  int64_t n_pages = 0;       // that the sequences share; 0: as many as all of them may want
  KvType kv_type = KvType::kF16;
};

// Several sequences of one model whose steps are computed together: what a scheduler of requests stands on. Their keys
// and values share one cache by pages of kPagePositions, which a sequence takes as it grows. A sequence's logits do not
// depend on the others. Everything is taken when it is made. One caller at a time.
class Batch {
 public:
  // kUnsupported where the device has no steps of several sequences.
  static Result<Batch> create(const Model& model, const BatchOptions& options);

  // A new, empty sequence; kResource when there are max_sequences.
  Result<int32_t> open();
  void close(int32_t sequence);  // its pages are free again
  int64_t n_past(int32_t sequence) const { return sequences_[size_t(sequence)].n_past; }
  int64_t n_free_pages() const { return int64_t(free_pages_.size()); }
  static int64_t pages_of(int64_t n_positions) { return (n_positions + kPagePositions - 1) / kPagePositions; }

  // Tokens that a step appends to a sequence: one, or a part of its prompt. A sequence has one part at most.
  struct Part {
    int32_t sequence = 0;
    std::span<const int32_t> ids;
  };
  // The best token after each part. kResource where a sequence does not fit into its context or the free pages: then
  // nothing has changed.
  Status step(std::span<const Part> parts, std::span<BestToken> best);
  // The logits after each part, [parts, vocab_size] in the host's memory; n_best as in Session::want_logits().
  Status step(std::span<const Part> parts, int64_t n_best, MatrixView logits);

 private:
  struct Sequence {
    bool open = false;
    int64_t n_past = 0;
    std::vector<int32_t> pages;
  };
  explicit Batch(const Model& model) : model_(model) {}
  Status check(std::span<const Part> parts) const;
  template <class Run>
  Status run(std::span<const Part> parts, const Run& run);

  Model model_;
  BatchOptions options_;
  std::unique_ptr<Stream> stream_;
  KvCache kv_;
  RopeTables rope_;
  std::vector<Sequence> sequences_;
  std::vector<int32_t> free_pages_;
  std::vector<SequencePart> parts_;  // of the step that runs
};

}  // namespace bitnet
