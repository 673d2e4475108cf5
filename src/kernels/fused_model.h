#pragma once

#include "kernels/backend.h"
#include "kernels/sampling.h"

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace bitnet {

// A model's graph as model/forward.cc runs it, for back ends that can run it as a whole: matrices of theirs, norms
// [n_cols] in their memory, null where there are none.
struct LayerGraph {
  const float *attn_norm = nullptr, *attn_sub_norm = nullptr, *ffn_norm = nullptr, *ffn_sub_norm = nullptr;
  const Matrix *q = nullptr, *k = nullptr, *v = nullptr, *o = nullptr;
  const Matrix *gate = nullptr, *up = nullptr, *down = nullptr;
};
struct ModelGraph {
  int64_t d_model = 0, d_ff = 0, n_heads = 0, n_kv_heads = 0, head_dim = 0, vocab_size = 0;
  float rms_eps = 0;
  GateActivation gate_activation = GateActivation::kRelu2;
  const Matrix* embedding = nullptr;
  const Matrix* head = nullptr;  // may be the embedding
  const float* output_norm = nullptr;
  std::vector<LayerGraph> layers;
};

// Positions of a page of a cache that several sequences share.
constexpr int64_t kPagePositions = 64;

// One sequence's tokens of a step, at first_position... of its cache (one KvLayer a layer).
// Without pages the cache is the sequence's own. With pages it is shared: [n_ctx / kPagePositions, n_kv_heads,
// kPagePositions] rows, and positions 64 i to 64 i + 63 stand in page pages[i]. Pages of different parts differ.
struct SequencePart {
  std::span<const KvLayer> kv;
  std::span<const int32_t> ids;
  int64_t first_position = 0;
  std::span<const int32_t> pages = {};
};

struct BestToken {
  int32_t id = 0;
  float logit = 0;  // not finite where any logit is not
};

// What the kernels of one kind take in a step, run alone, a layer after the other.
struct StepPhase {
  std::string name;  // "q, k, v"
  double seconds = 0;
  uint64_t bytes = 0;  // of weights and caches that they read
  uint64_t ops = 0;    // int8 multiplications and additions
};

// A whole step as one operation. What it computes is defined by the operations of Backend in the order of
// model/forward.cc; docs/numerics.md says where a back end departs from their bits. What a part gives does not depend
// on the parts beside it.
class FusedModel {
 public:
  virtual ~FusedModel() = default;
  // Whether step() runs these tokens; otherwise the operations do. Several parts share one cache by pages.
  virtual bool takes(std::span<const SequencePart> parts) const = 0;
  // Appends each part to its sequence. logits [n, vocab_size] are host memory: of the last n tokens of the only part
  // (0, some or all), or with several parts of the last token of each. With n_best > 0 as Backend::best_logits().
  virtual Status step(Stream&, std::span<const SequencePart> parts, const RopeTable&, int64_t n_best,
                      MatrixView logits) const = 0;
  // The same with nothing but the best token after each part: of equal logits the least id.
  virtual Status step_best(Stream&, std::span<const SequencePart> parts, const RopeTable&,
                           std::span<BestToken> best) const = 0;
  // Whether step_sampled() runs this step.
  virtual bool samples(const SequencePart&, const RopeTable&, const TokenSampling&) const { return false; }
  // The same with a token drawn instead: the one that runtime/sampler.h draws from the step's logits as its number
  // `draw`, and its logit, not finite where a logit is not.
  virtual Result<BestToken> step_sampled(Stream&, const SequencePart&, const RopeTable&, const TokenSampling&,
                                         uint64_t draw) const;
  // Measures the phases of step_best(). What the sequences hold afterwards is undefined.
  virtual Result<std::vector<StepPhase>> measure(Stream&, std::span<const SequencePart> parts,
                                                 const RopeTable&) const = 0;
};

inline Result<BestToken> FusedModel::step_sampled(Stream&, const SequencePart&, const RopeTable&, const TokenSampling&,
                                                  uint64_t) const {
  return make_error(ErrorCode::kInternal, "this device draws no tokens");
}

}  // namespace bitnet
