#pragma once

#include "base/thread_pool.h"
#include "kernels/backend.h"
#include "kernels/cpu/kernel_table.h"
#include "memory/pool_vector.h"
#include "train/core/rows.h"

#include <cstdint>
#include <vector>

namespace bitnet {

// The backward products of a ternary linear, exact integers between one rounding of the output's gradient to 16 bits
// (docs/training.md has the error) and the scaling of the sums. Results depend on neither the threads nor the
// instruction set. One caller at a time.
class TernaryGradient {
 public:
  TernaryGradient(ThreadPool& pool, const CpuKernels& kernels) : pool_(pool), kernels_(kernels.training) {}

  // Codes w + 1 [n_out, n_in] as the products want them: [32 inputs][pair of outputs][input: 32][2].
  void pack_weight(const uint8_t* codes, int64_t n_out, int64_t n_in, PoolVector<int16_t>& panels) const;

  // dx = dy w alpha, added to dx where `add`. A row of dy is rounded to multiples of its largest value / 32000.
  void input_gradient(Rows<float> dy, const PoolVector<int16_t>& panels, float alpha, bool add, Rows<float> dx);

  // dw += dy^T x. dy times the rows' scales of x is rounded, for each output and kTokensAtOnce tokens, to multiples of
  // the largest of them / 32000.
  void weight_gradient(Rows<float> dy, const QuantizedView& x, float* dw);

 private:
  static constexpr int64_t kTokensAtOnce = 512;  // 32000 * 127 * 512 < 2^31
  static constexpr int64_t kGroupsAtOnce = 16;   // of tokens, whose panels stay in the second-level cache

  struct Scratch {
    PoolVector<int16_t> rows;    // rounded, unpacked
    PoolVector<int16_t> panels;  // of the left factor
    PoolVector<float> largest, scales;
  };
  Scratch& scratch(int thread);
  void pack_tokens(const QuantizedView& x, int64_t first, int64_t n_tokens);
  // Outputs [first, last) of a block of tokens.
  void outputs(Rows<float> dy, const QuantizedView& x, int64_t token, int64_t n_tokens, int64_t first, int64_t last,
               Scratch& s, float* dw) const;

  ThreadPool& pool_;
  const TrainingKernels& kernels_;
  std::vector<Scratch> scratch_;
  PoolVector<int16_t> x_panels_;
};

}  // namespace bitnet
