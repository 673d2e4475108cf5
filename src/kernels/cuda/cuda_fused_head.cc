#include "kernels/cuda/best_logits.h"
#include "kernels/cuda/cuda_fused_state.h"

#include <algorithm>

// Logits and best tokens of rows of last activations.
namespace bitnet {

bool CudaFused::has_sketch() const { return float_matrix(graph_.head).sketch().codes != nullptr; }

cuda::TokenHead CudaFused::head_of(const State& state, const float* x) const {
  const CudaFloatMatrix& matrix = float_matrix(graph_.head);
  cuda::TokenHead head;
  head.table = matrix.table();
  head.x = x;
  head.norm = graph_.output_norm;
  head.eps = graph_.rms_eps;
  head.logits = state.logits;
  head.normed = state.normed;
  head.codes = reinterpret_cast<uint32_t*>(state.head_codes);
  head.sketch = matrix.sketch();
  head.rows = state.head_state;
  head.floors = state.floors;
  head.results = state.results;
  return head;
}

// The best of one token.
Status CudaFused::launch_best(const cuda::Launcher& launcher, const cuda::TokenHead& head) const {
  if (has_sketch()) {
    BN_CUDA_RETURN_IF_ERROR(cuda::best_of_head(launcher, head, 1), kStartingKernel);
    return ok();
  }
  cuda::TokenHead whole = head;
  whole.n_blocks = cuda::token_head_blocks(launcher, head.table);
  BN_CUDA_RETURN_IF_ERROR(cuda::token_head(launcher, whole), kStartingKernel);
  return ok();
}

// What a single token's step chooses.
Status CudaFused::launch_ending(CudaStream& stream, State& state, Ending ending) const {
  if (ending == kActivations) return ok();
  const cuda::Launcher launcher = this->launcher(stream);
  cuda::TokenHead head = head_of(state, state.x);
  if (ending == kBest) {
    head.control = state.control;
    head.results = state.token_results;
    return launch_best(launcher, head);
  }
  if (has_sketch()) {
    head.candidates = state.candidates;
    head.draw = state.control;
  }
  BN_RETURN_IF_ERROR(launch_best(launcher, head));
  cuda::TokenDraw draw;
  draw.logits = state.logits;
  draw.n_rows = graph_.vocab_size;
  draw.candidates = head.candidates;
  draw.row = head.rows;
  draw.control = state.control;
  draw.results = state.token_results;
  BN_CUDA_RETURN_IF_ERROR(cuda::draw_token(launcher, draw), kStartingKernel);
  return ok();
}

Status CudaFused::best_tokens(CudaStream& stream, State& state, const float* x, std::span<BestToken> best) const {
  const cuda::Launcher launcher = this->launcher(stream);
  const int64_t n = int64_t(best.size()), together = has_sketch() ? state.head_rows : 1;
  for (int64_t row = 0; row < n; row += together) {
    cuda::TokenHead head = head_of(state, x + row * graph_.d_model);
    head.n_tokens = int(std::min(together, n - row));
    head.rows += row;
    head.results += row;
    if (head.n_tokens > 1) {
      BN_CUDA_RETURN_IF_ERROR(cuda::best_of_head(launcher, head, 1), kStartingKernel);
    } else {
      BN_RETURN_IF_ERROR(launch_best(launcher, head));
    }
  }
  BN_RETURN_IF_ERROR(backend_.wait(stream));
  for (int64_t row = 0; row < n; ++row) best[size_t(row)] = {state.results[row].id, state.results[row].logit};
  return ok();
}

Status CudaFused::some_logits(CudaStream& stream, State& state, const float* x, int64_t n_best,
                              MatrixView logits) const {
  for (int64_t row = 0; row < logits.n_rows; ++row) {
    const cuda::TokenHead head = head_of(state, x + row * graph_.d_model);
    if (n_best == 1) {
      BestToken best;
      BN_RETURN_IF_ERROR(best_tokens(stream, state, head.x, {&best, 1}));
      put_best(best, logits.row(row), logits.n_cols);
      continue;
    }
    BN_CUDA_RETURN_IF_ERROR(cuda::best_of_head(launcher(stream), head, n_best), kStartingKernel);
    BN_RETURN_IF_ERROR(backend_.fetch(stream, state.logits,
                                      std::as_writable_bytes(std::span(logits.row(row), size_t(logits.n_cols)))));
  }
  return ok();
}

// A head in the host's memory comes panel by panel; as many rows as there is room for share it.
Status CudaFused::all_logits(CudaStream& stream, State& state, const float* x, MatrixView logits) const {
  const cuda::Launcher launcher = this->launcher(stream);
  const CudaFloatMatrix& matrix = float_matrix(graph_.head);
  const cuda::FloatTable whole = matrix.table();
  const int64_t panel_rows = matrix.host_rows() == nullptr ? whole.n_rows : state.panel_rows;
  std::vector<cuda::FloatTable> panels;
  for (int64_t first = 0; first < whole.n_rows; first += panel_rows) {
    panels.push_back(whole);
    panels.back().n_rows = std::min(panel_rows, whole.n_rows - first);
  }
  unsigned n_blocks = 0;
  for (const cuda::FloatTable& panel : panels) n_blocks += cuda::token_head_blocks(launcher, panel);
  for (int64_t begin = 0; begin < logits.n_rows; begin += state.head_rows) {
    const int64_t n = std::min(state.head_rows, logits.n_rows - begin);
    int64_t first_row = 0;
    for (cuda::FloatTable& panel : panels) {
      if (matrix.host_rows() != nullptr) {
        BN_CUDA_RETURN_IF_ERROR(
            cudaMemcpyAsync(state.panel, matrix.host_rows() + first_row * panel.row_bytes,
                            size_t(panel.n_rows * panel.row_bytes), cudaMemcpyHostToDevice, stream.get()),
            "copying the head to the device");
        panel.data = reinterpret_cast<const uint8_t*>(state.panel);
      }
      for (int64_t i = 0; i < n; ++i) {
        cuda::TokenHead head = head_of(state, x + (begin + i) * graph_.d_model);
        head.table = panel;
        head.logits += i * whole.n_rows;
        head.rows += i;
        head.results += i;
        head.first_row = first_row;
        head.n_blocks = n_blocks;
        BN_CUDA_RETURN_IF_ERROR(cuda::token_head(launcher, head), kStartingKernel);
      }
      first_row += panel.n_rows;
    }
    BN_RETURN_IF_ERROR(backend_.fetch(stream, state.logits,
                                      std::as_writable_bytes(std::span(logits.row(begin), size_t(n * logits.n_cols)))));
  }
  return ok();
}

Result<const float*> CudaFused::last_rows(CudaStream& stream, State& state, std::span<const SequencePart> parts) const {
  const int64_t d = graph_.d_model;
  if (parts.size() == 1) return state.x + (int64_t(parts[0].ids.size()) - 1) * d;
  const auto single = [](const SequencePart& part) { return part.ids.size() == 1; };
  if (std::all_of(parts.begin(), parts.end(), single)) return state.x;
  int64_t end = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    end += int64_t(parts[i].ids.size());
    BN_CUDA_RETURN_IF_ERROR(cudaMemcpyAsync(state.last + int64_t(i) * d, state.x + (end - 1) * d,
                                            size_t(d) * sizeof(float), cudaMemcpyDeviceToDevice, stream.get()),
                            "gathering last rows");
  }
  return state.last;
}

}  // namespace bitnet
