#pragma once

#include "kernels/sampling.h"
#include "memory/buffer.h"
#include "model/model.h"

#include <atomic>
#include <cstdint>
#include <optional>
#include <span>

namespace bitnet {

// Linears that share an input.
constexpr int64_t kMaxProjections = 3;

// Memory for forward(): activations of up to max_tokens tokens. Taken once, reused for ever.
class Workspace {
 public:
  static Result<Workspace> create(const ModelImpl& model, int64_t max_tokens);
  int64_t max_tokens() const { return max_tokens_; }
  size_t size_bytes() const { return buffer_.size_bytes(); }

 private:
  friend class ForwardPass;
  Buffer buffer_;
  int64_t max_tokens_ = 0;
  // Those that are never wanted together share memory (memory/arena.h).
  // [max_tokens, width]: the residual stream, its normalised copy or a layer's output, q, k, v, attention's output,
  // gate and up, and a linear's own normalised or rounded input.
  float *x_ = nullptr, *h_ = nullptr, *q_ = nullptr, *k_ = nullptr, *v_ = nullptr, *attn_ = nullptr;
  float *gate_ = nullptr, *up_ = nullptr, *input_ = nullptr;
  float* lora_ = nullptr;  // [kMaxProjections, max_tokens, rank of the adapter]
  QuantizedView quantized_;
  // [logit_rows_, vocab_size], where logits cannot be computed in the host's memory
  float* logits_ = nullptr;
  int64_t logit_rows_ = 0;
};

// cos and sin of position * theta^(-2i / rope_dim), computed in double: [n_positions, rope_dim / 2] each, in the back
// end's memory. Movable; `view` points into it.
struct RopeTables {
  Buffer memory;
  RopeTable view;
};
Result<RopeTables> make_rope_tables(const Backend& backend, const ModelConfig& config, int64_t n_positions);

// The logits that forward() is to compute, in the host's memory: of the last out.n_rows tokens (0, some or all), [n,
// vocab_size]. With n_best > 0 they hold only those that Backend::best_logits() promises.
struct WantedLogits {
  MatrixView out;
  int64_t n_best = 0;
};

// Runs `ids` (at most workspace.max_tokens()) at positions first_position...: writes their keys and values to `kv` (one
// a layer). Allocates nothing once the head's rows are where they are wanted. Looks at `stop` between layers
// (kInterrupted); other errors are numeric ones and, with a certified head, files that can no longer be read.
Status forward(const ModelImpl& model, Stream& stream, Workspace& workspace, std::span<const KvLayer> kv,
               const RopeTable& rope, std::span<const int32_t> ids, int64_t first_position, const WantedLogits& logits,
               const std::atomic<bool>& stop);

// The same for one token, and the one after it drawn where the logits are, as runtime/sampler.h draws it; none, and
// nothing has happened, where the back end does not draw such tokens.
Result<std::optional<int32_t>> forward_sampled(const ModelImpl& model, Stream& stream, std::span<const KvLayer> kv,
                                               const RopeTable& rope, int32_t id, int64_t position,
                                               const TokenSampling& sampling, uint64_t draw);

}  // namespace bitnet
