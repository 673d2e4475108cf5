#pragma once

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/cuda_stream.h"
#include "kernels/cuda/decode_ops.h"
#include "kernels/fused_model.h"

#include <memory>

namespace bitnet {

// A whole model's steps on the GPU. A single token runs as a CUDA graph; while greedy generation goes on, the graph of
// the token after it is started before the host has seen the token.
class CudaFused final : public FusedModel {
 public:
  // Null where the model has a shape, scales or a head that the kernels do not take.
  static std::unique_ptr<CudaFused> create(const CudaBackend& backend, const ModelGraph& graph);
  Result<std::unique_ptr<FusedState>> new_state(const StreamOptions& options) const;

  bool takes(std::span<const SequencePart> parts) const override;
  Status step(Stream& stream, std::span<const SequencePart> parts, const RopeTable& rope, int64_t n_best,
              MatrixView logits) const override;

 private:
  struct State;
  CudaFused(const CudaBackend& backend, const ModelGraph& graph) : backend_(backend), graph_(graph) {}
  Status token_step(CudaStream& stream, State& state, const SequencePart& part, const RopeTable& rope, int64_t n_best,
                    MatrixView logits) const;
  Status prompt_step(CudaStream& stream, State& state, const SequencePart& part, const RopeTable& rope, int64_t n_best,
                     MatrixView logits) const;
  Status launch_layer(CudaStream& stream, State& state, const LayerGraph& layer, const KvLayer& kv,
                      const SequencePart& part, const RopeTable& rope) const;
  Status launch_head(const cuda::Launcher& launcher, State& state, const float* x, bool best_only) const;
  // Puts a token's kernels on the stream.
  Status launch_token(CudaStream& stream, State& state, std::span<const KvLayer> kv, const RopeTable& rope,
                      bool best_only) const;
  Status capture(CudaStream& stream, State& state, std::span<const KvLayer> kv, const RopeTable& rope) const;
  int64_t d_q() const { return graph_.n_heads * graph_.head_dim; }
  int64_t d_kv() const { return graph_.n_kv_heads * graph_.head_dim; }

  const CudaBackend& backend_;
  const ModelGraph graph_;
};

// What the kernels know of a layer's cache.
cuda::Cache cuda_cache(const KvLayer& kv);

}  // namespace bitnet
