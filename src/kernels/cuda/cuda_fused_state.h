#pragma once

#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/cuda_fused.h"
#include "kernels/cuda/cuda_matrix.h"
#include "kernels/cuda/fragment_layout.h"

#include <array>
#include <vector>

namespace bitnet {

constexpr const char* kStartingKernel = "starting a kernel";

inline const cuda::TernaryWeights& weights_of(const Matrix* matrix) {
  return static_cast<const CudaTernaryMatrix*>(matrix)->weights();
}
inline const CudaFloatMatrix& float_matrix(const Matrix* matrix) {
  return static_cast<const CudaFloatMatrix&>(*matrix);
}
inline cuda::Segment segment(const Matrix* matrix, float* out) {
  const cuda::TernaryWeights& w = weights_of(matrix);
  return {reinterpret_cast<const uint4*>(w.words), w.alpha, out, int(w.n_rows), int(w.n_row_tiles)};
}
inline cuda::Rope angles(const RopeTable& rope) { return {rope.cos, rope.sin, rope.n_pairs}; }

// Rows of a step whose attention is one launch: single tokens of several parts, or all tokens of one part.
struct CudaFused::Run {
  int first_row = 0, n_rows = 0;
  int first_part = 0;
  bool single_tokens = true;
  int first_position = 0;  // of one part's tokens
};

// A step's rows as its kernels see them.
struct CudaFused::Step {
  std::span<const KvLayer> kv;
  bool paged = false;
  RopeTable rope;
  int n_rows = 0;
  std::span<const Run> runs;
};

struct CudaFused::State final : FusedState {
  static constexpr int kBuckets = 9;  // graphs for 1, 2, 4 to kMaxParts sequences
  ~State() override {
    drop_graphs(token_graphs);
    drop_graphs(batch_graphs);
    for (cudaEvent_t event : done) {
      if (event != nullptr) (void)cudaEventDestroy(event);
    }
    if (sent != nullptr) (void)cudaEventDestroy(sent);
  }
  static void drop_graphs(std::span<cudaGraphExec_t> graphs) {
    for (cudaGraphExec_t& graph : graphs) {
      if (graph != nullptr) (void)cudaGraphExecDestroy(graph);
      graph = nullptr;
    }
  }

  Buffer memory, host_memory;
  int64_t max_tokens = 1, max_parts = 1, n_ctx = 1;
  int64_t head_rows = 1;  // whose logits there is room for
  int64_t table_stride = 0;
  // Activations, [max_tokens, width]; a single token's are the first row's.
  float *x = nullptr, *q = nullptr, *k = nullptr, *v = nullptr, *attn = nullptr, *act = nullptr;
  // Of one of several GPUs: every rank's columns, whole rows of them, and this one's of a product that is to be added.
  float *gathered = nullptr, *whole = nullptr, *part = nullptr;
  float* q_halves = nullptr;  // f16
  float* codes = nullptr;     // int8, cuda::TiledCodes
  float *inv_scales = nullptr, *sums = nullptr;
  // Of the head, [head_rows, width], and parts' last rows.
  float *logits = nullptr, *normed = nullptr, *last = nullptr;
  float* head_codes = nullptr;
  float* panel = nullptr;  // of a head in the host's memory
  int64_t panel_rows = 0;
  cuda::HeadRow* head_state = nullptr;  // [max(max_parts, head_rows)]
  float* floors = nullptr;              // TokenHead
  unsigned long long* candidates = nullptr;
  cuda::StepControl* control = nullptr;  // of a single token
  uint64_t* exchange = nullptr;          // of its layers in one kernel
  uint32_t* epoch = nullptr;
  // What a step takes from the host, on the device and on its way: positions [max_parts, rounded up to a power of two],
  // ids [max_tokens], page tables [max_parts, table_stride].
  int32_t *ids = nullptr, *positions = nullptr, *tables = nullptr, *inputs = nullptr;
  size_t n_inputs = 0;
  bool tables_sent = false;
  // The host's: results of single tokens by parity of their position, then of rows.
  cuda::StepResult *token_results = nullptr, *results = nullptr;
  cuda::StepControl* start = nullptr;  // on its way to `control`
  cudaEvent_t done[2] = {};            // the step of a single token at a position of that parity
  cudaEvent_t sent = nullptr;          // `inputs` may be written again

  // Of a single token for each Reach and Ending; what they were captured with.
  std::array<cudaGraphExec_t, 9> token_graphs = {};
  const void *token_kv = nullptr, *token_rope = nullptr;
  int64_t one_kernel_positions = 0;
  std::array<cudaGraphExec_t, kBuckets> batch_graphs = {};
  const void *batch_kv = nullptr, *batch_rope = nullptr;
  std::vector<Run> runs;  // capacity max_parts

  // Of the last single token: its position, the token that was chosen after it, and how.
  int64_t last_position = -1;
  int32_t last_chosen = -1;
  Draw last_draw;
  bool ahead = false;    // the step of last_chosen is on the stream already
  unsigned kinds = ~0u;  // of kernels that are launched: measure() wants one
};

inline CudaFused::Reach CudaFused::reach(const State& state, int64_t position) {
  if (position < state.one_kernel_positions) return kOneKernel;
  return position < cuda::kFewPositions ? kFew : kMany;
}

template <class Launch>
Status CudaFused::capture(CudaStream& stream, cudaGraphExec_t& graph, const Launch& launch) const {
  BN_CUDA_RETURN_IF_ERROR(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeThreadLocal), "recording a graph");
  Status launched = launch();
  cudaGraph_t recorded = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(stream.get(), &recorded);
  if (!launched) {
    if (recorded != nullptr) (void)cudaGraphDestroy(recorded);
    return launched;
  }
  BN_CUDA_RETURN_IF_ERROR(ended, "recording a graph");
  const cudaError_t made = cudaGraphInstantiate(&graph, recorded, 0);
  (void)cudaGraphDestroy(recorded);
  BN_CUDA_RETURN_IF_ERROR(made, "making a graph");
  return ok();
}

}  // namespace bitnet
