#pragma once

#include "kernels/cuda/cuda_fused.h"
#include "kernels/cuda/cuda_matrix.h"
#include "kernels/cuda/fragment_layout.h"
#include "kernels/cuda/prompt_ops.h"

#include <algorithm>
#include <limits>

namespace bitnet {

inline const cuda::TernaryWeights& weights_of(const Matrix* matrix) {
  return static_cast<const CudaTernaryMatrix*>(matrix)->weights();
}
inline const cuda::FloatTable& table_of(const Matrix* matrix) {
  return static_cast<const CudaFloatMatrix*>(matrix)->table();
}

inline cuda::Segment segment(const Matrix* matrix, float* out) {
  const cuda::TernaryWeights& w = weights_of(matrix);
  return {reinterpret_cast<const uint4*>(w.words), w.alpha, out, int(w.n_rows), int(w.n_row_tiles)};
}

// The logits of a step that looked for the best only.
inline void put_best(const cuda::StepResult& result, float* logits, int64_t n) {
  std::fill_n(logits, n, -std::numeric_limits<float>::infinity());
  logits[result.id] = result.logit;
}

struct CudaFused::State final : FusedState {
  ~State() override {
    for (cudaGraphExec_t graph : graphs) {
      if (graph != nullptr) (void)cudaGraphExecDestroy(graph);
    }
    for (cudaEvent_t event : done) {
      if (event != nullptr) (void)cudaEventDestroy(event);
    }
  }
  Buffer memory, results;
  int64_t max_tokens = 1;
  float *x = nullptr, *q = nullptr, *k = nullptr, *v = nullptr, *attn = nullptr, *act = nullptr, *logits = nullptr;
  float* normed = nullptr;
  // Of several tokens together, [max_tokens, width].
  float *xs = nullptr, *qs = nullptr, *ks = nullptr, *vs = nullptr, *attns = nullptr, *acts = nullptr;
  float* q_halves = nullptr;  // f16
  float* codes = nullptr;     // int8, cuda::TiledCodes
  float *inv_scales = nullptr, *sums = nullptr;
  cuda::StepControl* control = nullptr;                   // on the device
  cuda::StepResult* result = nullptr;                     // [2], the host's, by parity of the position
  cuda::StepControl* start = nullptr;                     // the host's, on its way to `control`
  cudaEvent_t done[2] = {};                               // the step of a position of that parity
  cudaGraphExec_t graphs[2] = {};                         // a token's: with all logits, with the best only
  const void *graph_kv = nullptr, *graph_rope = nullptr;  // what the graphs were captured with
  int64_t last_position = -1;                             // of the last token, and the best token after it
  int32_t last_best = -1;
  bool ahead = false;  // the step of last_best is on the stream already
};

}  // namespace bitnet
