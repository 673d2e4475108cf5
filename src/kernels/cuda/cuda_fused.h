#pragma once

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/cuda_stream.h"
#include "kernels/cuda/decode_ops.h"
#include "kernels/cuda/group_rank.h"
#include "kernels/cuda/prompt_ops.h"
#include "kernels/fused_model.h"

#include <initializer_list>
#include <memory>
#include <optional>

namespace bitnet {

// A whole model's steps on the GPU. Single tokens, of one sequence or of several, run as CUDA graphs; while
// generation of one sequence goes on, greedy or sampled, the graph of the token after it is started before the host has
// seen the token.
class CudaFused final : public FusedModel {
 public:
  static constexpr int64_t kMaxParts = 256;
  // Null where the model has a shape, scales or a head that the kernels do not take. For one of several GPUs the graph
  // has its parts of the matrices, and its numbers of heads, ids and d_ff.
  static std::unique_ptr<CudaFused> create(const CudaBackend& backend, const ModelGraph& graph,
                                           std::optional<GroupRank> group = {});
  Result<std::unique_ptr<FusedState>> new_state(const StreamOptions& options) const;

  bool takes(std::span<const SequencePart> parts) const override;
  Status step(Stream& stream, std::span<const SequencePart> parts, const RopeTable& rope, int64_t n_best,
              MatrixView logits) const override;
  Status step_best(Stream& stream, std::span<const SequencePart> parts, const RopeTable& rope,
                   std::span<BestToken> best) const override;
  bool samples(const SequencePart& part, const RopeTable& rope, const TokenSampling& sampling) const override;
  Result<BestToken> step_sampled(Stream& stream, const SequencePart& part, const RopeTable& rope,
                                 const TokenSampling& sampling, uint64_t draw) const override;
  Result<std::vector<StepPhase>> measure(Stream& stream, std::span<const SequencePart> parts,
                                         const RopeTable& rope) const override;

 private:
  struct State;
  struct Run;
  struct Step;
  enum Kind : unsigned {
    kEmbed = 1,
    kCodes = 2,
    kQkv = 4,
    kAttention = 8,
    kO = 16,
    kGate = 32,
    kDown = 64,
    kLayers = 128
  };
  CudaFused(const CudaBackend& backend, const ModelGraph& graph, std::optional<GroupRank> group)
      : backend_(backend), graph_(graph), group_(std::move(group)) {}

  // cuda_fused.cc: one token of a sequence with a cache of its own.
  bool is_token(std::span<const SequencePart> parts, const RopeTable& rope) const;
  // What a token's step ends with: its last activations, the best token, or one that is drawn.
  enum Ending : uint8_t { kActivations, kBest, kDrawn };
  struct Draw {
    Ending ending = kActivations;
    TokenSampling sampling;
    uint64_t number = 0;
  };
  Status token_step(CudaStream& stream, State& state, const SequencePart& part, const RopeTable& rope,
                    const Draw& draw) const;
  static bool follows(const State& state, const SequencePart& part, const Draw& draw);
  // Which of a token's graphs serves a position: all layers in one kernel, or kernels for few or for many positions.
  enum Reach : uint8_t { kOneKernel, kFew, kMany };
  cuda::TokenLayers layers_shape() const;
  cuda::TokenLayers layers_of(const State& state, std::span<const KvLayer> kv, const RopeTable& rope) const;
  static Reach reach(const State& state, int64_t position);
  Status launch_token(CudaStream& stream, State& state, std::span<const KvLayer> kv, const RopeTable& rope,
                      Reach reach) const;
  Status launch_kernels(CudaStream& stream, State& state, std::span<const KvLayer> kv, const RopeTable& rope,
                        bool few_positions) const;
  Result<cudaGraphExec_t> token_graph(CudaStream& stream, State& state, std::span<const KvLayer> kv,
                                      const RopeTable& rope, int64_t position, Ending ending) const;
  Status launch_ending(CudaStream& stream, State& state, Ending ending) const;
  template <class Launch>
  Status capture(CudaStream& stream, cudaGraphExec_t& graph, const Launch& launch) const;

  // cuda_fused_rows.cc: everything else. Leaves the tokens' last activations in state.xs.
  Step plan_rows(State& state, std::span<const SequencePart> parts, const RopeTable& rope) const;
  Status rows_step(CudaStream& stream, State& state, std::span<const SequencePart> parts, const RopeTable& rope) const;
  Status send(CudaStream& stream, State& state, std::span<const SequencePart> parts, int64_t n_padded) const;
  Status launch_rows(CudaStream& stream, State& state, const Step& step) const;
  // What a product takes: rows, and the weights with which they are normed before they are quantised.
  struct Input {
    const float* rows = nullptr;
    const float* norm = nullptr;
  };
  // How a product is computed: as one of few tokens, of some by wgmma, or of a prompt.
  enum class Form : uint8_t { kFew, kSome, kMany };
  static constexpr int kFewTokens = 16;
  static Form form_of(const cuda::Launcher& launcher, const cuda::PromptProduct& call);
  cuda::Epilogue gate_epilogue() const;
  Status launch_product(const cuda::Launcher& launcher, State& state, const Input& x, cuda::Epilogue epilogue,
                        std::initializer_list<cuda::Segment> segments, const Matrix* weight, int n_tokens,
                        Kind kind) const;
  Status launch_attention(CudaStream& stream, State& state, const KvLayer& kv, const Step& step, const Run& run) const;

  // cuda_fused_split.cc: the same on one of several GPUs.
  Status launch_split_rows(CudaStream& stream, State& state, const Step& step) const;
  Status embed_split(CudaStream& stream, State& state, int n_rows) const;
  // Every rank's columns [n_rows, its share] as whole rows, stored or added to `out`.
  Status gather(CudaStream& stream, State& state, const float* part, const std::vector<RowShare>& shares, int n_rows,
                bool adds, float* out) const;

  // cuda_fused_head.cc: logits of the rows of x.
  cuda::TokenHead head_of(const State& state, const float* x) const;
  bool has_sketch() const;
  Status launch_best(const cuda::Launcher& launcher, const cuda::TokenHead& head) const;
  Status best_tokens(CudaStream& stream, State& state, const float* x, std::span<BestToken> best) const;
  Status some_logits(CudaStream& stream, State& state, const float* x, int64_t n_best, MatrixView logits) const;
  Status all_logits(CudaStream& stream, State& state, const float* x, MatrixView logits) const;
  // The last rows of each part, one after the other.
  Result<const float*> last_rows(CudaStream& stream, State& state, std::span<const SequencePart> parts) const;

  cuda::Launcher launcher(const CudaStream& stream) const {
    return {stream.get(), backend_.hopper(), backend_.n_multiprocessors()};
  }
  int64_t d_q() const { return graph_.n_heads * graph_.head_dim; }
  int64_t d_kv() const { return graph_.n_kv_heads * graph_.head_dim; }

  const CudaBackend& backend_;
  const ModelGraph graph_;
  const std::optional<GroupRank> group_;  // none: alone
};

// What the kernels know of a layer's cache: of one sequence, or with pages of several.
cuda::Cache cuda_cache(const KvLayer& kv);
cuda::Cache paged_cuda_cache(const KvLayer& kv, int64_t n_positions, const int32_t* pages);

}  // namespace bitnet
