#pragma once

#include "base/result.h"
#include "train/cuda/train_kernels.h"

#include <cstdint>
#include <map>
#include <memory>
#include <tuple>

namespace bitnet {

// One factor of a product, row-major: its rows `stride` values apart.
struct ProductFactor {
  const void* data = nullptr;
  int64_t stride = 0;
  bool turned = false;  // stored as its transpose
};

// Products of matrices by NVIDIA's cuBLASLt, which is loaded when it is first wanted. Which of its kernels runs depends
// on the shapes alone, so that the same product has the same bits each time. One caller and one stream at a time.
class CublasProducts {
 public:
  // `workspace` of kWorkspaceBytes and `constants` (the floats 0 and 1) lie on the device and outlive this.
  // kUnsupported where there is no cuBLASLt.
  static Result<std::unique_ptr<CublasProducts>> create(cuda::Precision precision, void* workspace,
                                                        const float* constants, cudaStream_t stream);
  ~CublasProducts();
  CublasProducts(const CublasProducts&) = delete;
  CublasProducts& operator=(const CublasProducts&) = delete;

  static constexpr size_t kWorkspaceBytes = size_t{64} << 20;

  // out [m, n], of the precision's values, = a [m, k] b [k, n].
  Status multiply(const ProductFactor& a, const ProductFactor& b, int64_t m, int64_t n, int64_t k, void* out);
  // out [m, n], floats, += alpha a b, alpha one float on the device or null for 1.
  Status add_product(const ProductFactor& a, const ProductFactor& b, int64_t m, int64_t n, int64_t k,
                     const float* alpha, float* out);

 private:
  struct Library;
  struct Plan;
  // What a plan is for: m, n, k, strides, whether turned, float output, and what divides the addresses.
  using Key = std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t, int, uint32_t>;

  explicit CublasProducts(const Library& library);
  static Result<const Library*> load();
  Status run(const ProductFactor& a, const ProductFactor& b, int64_t m, int64_t n, int64_t k, const float* alpha,
             bool adds, void* out);
  Result<Plan*> plan(const ProductFactor& a, const ProductFactor& b, int64_t m, int64_t n, int64_t k, bool floats,
                     const void* out);

  const Library& library_;
  cuda::Precision precision_ = cuda::Precision::kBf16;
  void* handle_ = nullptr;
  void* workspace_ = nullptr;
  const float* constants_ = nullptr;
  cudaStream_t stream_ = nullptr;
  std::map<Key, std::unique_ptr<Plan>> plans_;
};

}  // namespace bitnet
