#include "train/cuda/cuda_codes.h"

#include "kernels/cuda/cuda_error.h"

#include <algorithm>

namespace bitnet {

void CudaCodes::plan(int64_t largest) {
  DeviceMemory& memory = context_.memory();
  memory.plan(&counts_, 2 * int64_t{sizeof(unsigned long long)});
  memory.plan(&last_, context_.n_codes());
  memory.plan(&linear_, largest);
}

Result<CodeShares> CudaCodes::count() {
  BN_CUDA_RETURN_IF_ERROR(cudaMemsetAsync(counts_, 0, 2 * sizeof *counts_, context_.stream()), "counting codes");
  cuda::count_codes(context_.stream(), context_.precision(), context_.codes_at(0), context_.n_codes(), last_, counts_);
  BN_RETURN_IF_ERROR(context_.take_status());
  unsigned long long counts[2] = {};
  BN_RETURN_IF_ERROR(context_.to_host(counts_, counts, sizeof counts));
  const double n = double(std::max<int64_t>(context_.n_codes(), 1));
  const CodeShares shares{counted_ ? double(counts[0]) / n : 0.0, double(counts[1]) / n};
  counted_ = true;
  return shares;
}

Result<TernaryLinear> CudaCodes::linear(const Stages<CudaContext>::Weight& weight) {
  const int64_t n = weight.n_out * weight.n_in;
  cuda::count_codes(context_.stream(), context_.precision(), context_.codes_at(weight.place), n, linear_, counts_);
  BN_RETURN_IF_ERROR(context_.take_status());
  codes_.resize(size_t(n));
  BN_RETURN_IF_ERROR(context_.to_host(linear_, codes_.data(), codes_.size()));
  TernaryLinear linear;
  linear.codes = codes_;
  BN_RETURN_IF_ERROR(context_.to_host(weight.alpha, &linear.alpha, sizeof linear.alpha));
  return linear;
}

}  // namespace bitnet
