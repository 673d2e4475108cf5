#pragma once

#include "base/thread_pool.h"
#include "kernels/cpu/kernel_table.h"
#include "memory/pool_vector.h"

#include <cstdint>
#include <vector>

namespace bitnet {

// Element (i, k) of a factor is data[i * stride + k * k_stride].
struct DenseFactor {
  const float* data = nullptr;
  int64_t n = 0;
  int64_t stride = 0;
  int64_t k_stride = 0;
};

// Products of float matrices on all threads. Each output is a sum of partial sums over kDepth values of k, in order, so
// that its bits depend on neither the threads nor the instruction set. One caller at a time.
class DenseProduct {
 public:
  DenseProduct(ThreadPool& pool, const CpuKernels& kernels) : pool_(pool), kernels_(kernels.training) {}

  // c[i * c_stride + j] = sum over k < depth of a(i, k) b(j, k), added to what is there where `add`.
  void multiply(const DenseFactor& a, const DenseFactor& b, int64_t depth, bool add, float* c, int64_t c_stride);

 private:
  static constexpr int64_t kDepth = 512;
  ThreadPool& pool_;
  const TrainingKernels& kernels_;
  PoolVector<float> a_panels_, b_panels_;
};

}  // namespace bitnet
