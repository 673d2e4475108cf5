#include "train/cuda/cublas_products.h"

#include <cublasLt.h>
#include <dlfcn.h>

#include <algorithm>
#include <bit>
#include <string>
#include <type_traits>

namespace bitnet {

struct CublasProducts::Library {
  decltype(&cublasLtCreate) create = nullptr;
  decltype(&cublasLtDestroy) destroy = nullptr;
  decltype(&cublasLtMatmul) matmul = nullptr;
  decltype(&cublasLtMatmulDescCreate) desc_create = nullptr;
  decltype(&cublasLtMatmulDescDestroy) desc_destroy = nullptr;
  decltype(&cublasLtMatmulDescSetAttribute) desc_set = nullptr;
  decltype(&cublasLtMatrixLayoutCreate) layout_create = nullptr;
  decltype(&cublasLtMatrixLayoutDestroy) layout_destroy = nullptr;
  decltype(&cublasLtMatmulPreferenceCreate) preference_create = nullptr;
  decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy = nullptr;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set = nullptr;
  decltype(&cublasLtMatmulAlgoGetHeuristic) find_algorithm = nullptr;
};

// cuBLASLt counts columns first: a matrix of rows is the transpose of one of columns, so its product is b^T a^T.
struct CublasProducts::Plan {
  explicit Plan(const Library& loaded) : library(loaded) {}
  ~Plan() {
    if (desc != nullptr) (void)library.desc_destroy(desc);
    for (const cublasLtMatrixLayout_t layout : {first, second, out}) {
      if (layout != nullptr) (void)library.layout_destroy(layout);
    }
  }
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;

  const Library& library;
  cublasLtMatmulDesc_t desc = nullptr;
  cublasLtMatrixLayout_t first = nullptr, second = nullptr, out = nullptr;
  cublasLtMatmulAlgo_t algorithm = {};
};

namespace {

Status check(cublasStatus_t status, const char* doing) {
  if (status == CUBLAS_STATUS_SUCCESS) return ok();
  return make_error(ErrorCode::kResource, "cuBLASLt, {}: status {}", doing, int(status));
}

// The largest power of two, 256 at most, that divides an address.
uint32_t alignment(const void* p) {
  const auto address = reinterpret_cast<uintptr_t>(p);
  return address == 0 ? 256u : std::min(256u, 1u << std::min(std::countr_zero(address), 8));
}

}  // namespace

// Once; the library stays loaded.
Result<const CublasProducts::Library*> CublasProducts::load() {
  static const Result<const Library*> loaded = []() -> Result<const Library*> {
    const std::string name = fmt::format("libcublasLt.so.{}", CUDART_VERSION / 1000);
    void* const handle = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) {
      return unsupported("training on a GPU wants NVIDIA's cuBLASLt, whose {} could not be loaded: {}", name,
                         dlerror());
    }
    static Library l;
    bool whole = true;
    const auto find = [&](auto& function, const char* symbol) {
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(handle, symbol));
      whole = whole && function != nullptr;
    };
    find(l.create, "cublasLtCreate");
    find(l.destroy, "cublasLtDestroy");
    find(l.matmul, "cublasLtMatmul");
    find(l.desc_create, "cublasLtMatmulDescCreate");
    find(l.desc_destroy, "cublasLtMatmulDescDestroy");
    find(l.desc_set, "cublasLtMatmulDescSetAttribute");
    find(l.layout_create, "cublasLtMatrixLayoutCreate");
    find(l.layout_destroy, "cublasLtMatrixLayoutDestroy");
    find(l.preference_create, "cublasLtMatmulPreferenceCreate");
    find(l.preference_destroy, "cublasLtMatmulPreferenceDestroy");
    find(l.preference_set, "cublasLtMatmulPreferenceSetAttribute");
    find(l.find_algorithm, "cublasLtMatmulAlgoGetHeuristic");
    if (!whole) return unsupported("{} lacks a function that every cuBLASLt has", name);
    return &l;
  }();
  return loaded;
}

Result<std::unique_ptr<CublasProducts>> CublasProducts::create(cuda::Precision precision, void* workspace,
                                                               const float* constants, cudaStream_t stream) {
  BN_ASSIGN_OR_RETURN(const Library* const library, load());
  std::unique_ptr<CublasProducts> made(new CublasProducts(*library));
  made->precision_ = precision;
  made->workspace_ = workspace;
  made->constants_ = constants;
  made->stream_ = stream;
  cublasLtHandle_t handle = nullptr;
  BN_RETURN_IF_ERROR(check(library->create(&handle), "beginning"));
  made->handle_ = handle;
  return made;
}

CublasProducts::CublasProducts(const Library& library) : library_(library) {}

CublasProducts::~CublasProducts() {
  plans_.clear();
  if (handle_ != nullptr) (void)library_.destroy(static_cast<cublasLtHandle_t>(handle_));
}

Result<CublasProducts::Plan*> CublasProducts::plan(const ProductFactor& a, const ProductFactor& b, int64_t m, int64_t n,
                                                   int64_t k, bool floats, const void* out) {
  const uint32_t aligned = std::min({alignment(a.data), alignment(b.data), alignment(out)});
  const Key key{m, n, k, a.stride, b.stride, int(a.turned) + 2 * int(b.turned) + 4 * int(floats), aligned};
  if (const auto known = plans_.find(key); known != plans_.end()) return known->second.get();
  auto made = std::make_unique<Plan>(library_);
  const cudaDataType_t type = precision_ == cuda::Precision::kBf16 ? CUDA_R_16BF : CUDA_R_32F;
  BN_RETURN_IF_ERROR(check(library_.desc_create(&made->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F), "describing a product"));
  const cublasOperation_t first = b.turned ? CUBLAS_OP_T : CUBLAS_OP_N, second = a.turned ? CUBLAS_OP_T : CUBLAS_OP_N;
  const cublasLtPointerMode_t mode = CUBLASLT_POINTER_MODE_DEVICE;
  const auto set = [&](cublasLtMatmulDescAttributes_t attribute, const auto& value) {
    return check(library_.desc_set(made->desc, attribute, &value, sizeof value), "describing a product");
  };
  BN_RETURN_IF_ERROR(set(CUBLASLT_MATMUL_DESC_TRANSA, first));
  BN_RETURN_IF_ERROR(set(CUBLASLT_MATMUL_DESC_TRANSB, second));
  BN_RETURN_IF_ERROR(set(CUBLASLT_MATMUL_DESC_POINTER_MODE, mode));
  const auto layout = [&](cublasLtMatrixLayout_t* to, cudaDataType_t of, int64_t rows, int64_t cols, int64_t stride) {
    return check(library_.layout_create(to, of, uint64_t(rows), uint64_t(cols), stride), "describing a matrix");
  };
  BN_RETURN_IF_ERROR(layout(&made->first, type, b.turned ? k : n, b.turned ? n : k, b.stride));
  BN_RETURN_IF_ERROR(layout(&made->second, type, a.turned ? m : k, a.turned ? k : m, a.stride));
  BN_RETURN_IF_ERROR(layout(&made->out, floats ? CUDA_R_32F : type, n, m, n));

  cublasLtMatmulPreference_t preference = nullptr;
  BN_RETURN_IF_ERROR(check(library_.preference_create(&preference), "choosing a kernel"));
  const uint64_t workspace_bytes = kWorkspaceBytes;
  (void)library_.preference_set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace_bytes,
                                sizeof workspace_bytes);
  for (const auto attribute :
       {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
    (void)library_.preference_set(preference, attribute, &aligned, sizeof aligned);
  }
  cublasLtMatmulHeuristicResult_t found = {};
  int n_found = 0;
  const cublasStatus_t status =
      library_.find_algorithm(static_cast<cublasLtHandle_t>(handle_), made->desc, made->first, made->second, made->out,
                              made->out, preference, 1, &found, &n_found);
  (void)library_.preference_destroy(preference);
  if (status != CUBLAS_STATUS_SUCCESS || n_found == 0) {
    return unsupported("cuBLASLt has no kernel for a product of [{}, {}] and [{}, {}] (status {})", m, k, k, n,
                       int(status));
  }
  made->algorithm = found.algo;
  return plans_.emplace(key, std::move(made)).first->second.get();
}

Status CublasProducts::run(const ProductFactor& a, const ProductFactor& b, int64_t m, int64_t n, int64_t k,
                           const float* alpha, bool adds, void* out) {
  BN_ASSIGN_OR_RETURN(Plan* const p, plan(a, b, m, n, k, adds, out));
  return check(
      library_.matmul(static_cast<cublasLtHandle_t>(handle_), p->desc, alpha != nullptr ? alpha : constants_ + 1,
                      b.data, p->first, a.data, p->second, constants_ + int(adds), out, p->out, out, p->out,
                      &p->algorithm, workspace_, kWorkspaceBytes, stream_),
      "multiplying");
}

Status CublasProducts::multiply(const ProductFactor& a, const ProductFactor& b, int64_t m, int64_t n, int64_t k,
                                void* out) {
  return run(a, b, m, n, k, nullptr, false, out);
}

Status CublasProducts::add_product(const ProductFactor& a, const ProductFactor& b, int64_t m, int64_t n, int64_t k,
                                   const float* alpha, float* out) {
  return run(a, b, m, n, k, alpha, true, out);
}

}  // namespace bitnet
