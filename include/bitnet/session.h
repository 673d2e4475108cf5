#pragma once

#include "bitnet/model.h"
#include "bitnet/result.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>

namespace bitnet {

// How keys and values are kept; docs/numerics.md states the error of each. All but the first two want a model whose
// head_dim is a multiple of 32.
enum class KvType : uint8_t {
  kF16,
  kF32,
  kQ8_0,  // blocks of 32 int8 with a scale, widened to float: little more than half of f16's memory and reads
  kInt8,  // rotated int8 with a scale a head and position, and integer attention: the same memory, less arithmetic
  kInt4,  // the same with 4 bits: a quarter of f16's memory and reads, for long contexts
};

struct SessionOptions {
  int64_t n_ctx = 0;    // positions; 0: the model's training context, at most 4096
  int n_threads = 0;    // 0: all processors of this process
  int64_t chunk = 256;  // prompt tokens in flight; changes memory and speed, never a result
  KvType kv_type = KvType::kF16;
  // Where memory for n_ctx positions is not to be had, half of them will do, and half of those, down to so many;
  // Session::n_ctx() tells. 0: no fewer, an error that says how many would have fitted.
  int64_t min_n_ctx = 0;
};

struct SamplingOptions;  // bitnet/generate.h

// Called for each position in order with its logits [vocab_size], valid during the call. False stops.
using LogitsSink = std::function<bool(int64_t position, std::span<const float> logits)>;

// One sequence: the key/value cache and scratch memory, taken when it is made. Movable. One thread at a time.
class Session {
 public:
  Session(Session&&) noexcept;
  Session& operator=(Session&&) noexcept;
  ~Session();

  const Model& model() const;
  int64_t n_ctx() const;
  int64_t n_past() const;                // tokens in the cache
  std::span<const int32_t> ids() const;  // these tokens

  // Feeds tokens; logits() then are those after the last one. Refuses ids outside the vocabulary and more tokens than
  // the context holds, changing nothing. When it fails later or is stopped, no new token stays and logits() are empty.
  // No tokens: brings back the logits that truncate() dropped.
  Status append(std::span<const int32_t> ids);
  // The same, handing out the logits of every new position; kInterrupted when the sink says stop.
  Status append(std::span<const int32_t> ids, const LogitsSink& sink);
  // Feeds one token and draws the next one on the device, the one that generate() would draw from the logits as its
  // number `draw` (from 0 on). logits() are empty afterwards. None, and nothing has changed, where the device does not
  // draw by these options: cuda draws with a temperature above 0, a top_k of 1 to 1024 below the vocabulary's size, and
  // no penalties.
  Result<std::optional<int32_t>> append_sampled(int32_t id, const SamplingOptions& options, uint64_t draw);
  // [vocab_size]; empty before the first append.
  std::span<const float> logits() const;
  // From the next append() on logits, those handed to a sink too, are the n_best largest (and those equal to the least
  // of them); others may be minus infinity. That spares most of a large output head. 0: all logits, as at first.
  // generate() asks for what its sampling needs and leaves it so; perplexity() asks for all.
  void want_logits(int64_t n_best);

  // Forgets all tokens from n_past on; logits() become empty.
  Status truncate(int64_t n_past);
  void reset();

  // Stops append() between prompt chunks and layers from another thread or a signal handler (kInterrupted).
  // A request that comes between two calls stops the next one.
  void request_stop();
  // Drops a request that has stopped nothing yet.
  void clear_stop();

  uint64_t memory_bytes() const;
  // Bytes of weights that append() has read from memory so far: a figure for measurements. 0 on a device that does not
  // count them.
  uint64_t weight_bytes_read() const;

 private:
  friend class Model;
  struct Impl;
  explicit Session(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace bitnet
