#pragma once

#include "base/result.h"
#include "base/thread_pool.h"
#include "kernels/cpu/kernel_table.h"
#include "memory/pool_vector.h"
#include "tensor/dtype.h"
#include "train/core/parameters.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace bitnet {

enum class OptimizerKind : uint8_t {
  kAdamW,   // Loshchilov and Hutter 2019, as torch.optim.AdamW computes it
  kAdamW8,  // the same with moments in 8 bits, a scale for each block (Dettmers et al. 2022)
  kMuon,    // Jordan et al. 2024: orthogonalised momentum for the linears, AdamW for the rest
  kSgd,     // momentum without dampening, as torch.optim.SGD
};
struct OptimizerOptions {
  OptimizerKind kind = OptimizerKind::kAdamW;
  float beta1 = 0.9f;
  float beta2 = 0.95f;
  float eps = 1e-8f;
  float momentum = 0.95f;  // of Muon and SGD
};
// "adamw", "adamw8", "muon", "sgd"; Result names them all.
Result<OptimizerKind> parse_optimizer(std::string_view name);

// What changes from step to step.
struct UpdateRates {
  int64_t step = 1;  // counts from 1
  double lr = 0;
  double weight_decay = 0;
  double gradient_factor = 1;  // gradients are multiplied by it first: averaging and clipping
};

// Updates parameters from gradients. Every value depends on its own tensor alone, in an order that does not depend on
// the number of threads. One caller at a time.
class Optimizer {
 public:
  Optimizer(const OptimizerOptions& options, const ParameterLayout& layout, const CpuKernels& kernels);

  void update(ThreadPool& pool, const UpdateRates& rates, const float* gradients, float* parameters);

  // The state that a checkpoint keeps, by name; the bytes may be overwritten to restore it.
  struct State {
    std::string name;
    DType dtype;
    Shape shape;
    std::span<std::byte> bytes;
  };
  std::vector<State> states();
  uint64_t size_bytes() const;

 private:
  void adamw(ThreadPool& pool, const UpdateRates& rates, const ParameterSlice& slice, const float* g, float* p);
  void adamw8(ThreadPool& pool, const UpdateRates& rates, const ParameterSlice& slice, int64_t first_block,
              const float* g, float* p);
  void sgd(ThreadPool& pool, const UpdateRates& rates, const ParameterSlice& slice, const float* g, float* p);
  void muon(ThreadPool& pool, const UpdateRates& rates, const ParameterSlice& slice, const float* g, float* p);

  OptimizerOptions options_;
  const ParameterLayout& layout_;
  const CpuKernels& kernels_;
  PoolVector<float> first_, second_;  // moments, laid out as the parameters; second_ empty for SGD
  PoolVector<int8_t> first_codes_;    // of the 8-bit kind
  PoolVector<uint8_t> second_codes_;
  PoolVector<float> first_scales_, second_scales_;  // one a block
};

}  // namespace bitnet
