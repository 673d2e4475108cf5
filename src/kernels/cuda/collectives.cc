#include "kernels/cuda/collectives.h"

#include <dlfcn.h>

#include <cstdlib>
#include <type_traits>

namespace bitnet {
namespace {

// Of nccl.h, which keeps its numbers.
constexpr int kFloat32 = 7;

}  // namespace

struct Collectives::Library {
  int (*comm_init_all)(void** comms, int n_devices, const int* devices) = nullptr;
  int (*comm_destroy)(void* comm) = nullptr;
  int (*comm_abort)(void* comm) = nullptr;
  int (*all_gather)(const void* part, void* all, size_t n, int type, void* comm, cudaStream_t stream) = nullptr;
  const char* (*error_string)(int result) = nullptr;
};

// Once; the library stays loaded.
Result<const Collectives::Library*> Collectives::load() {
  static const Result<const Library*> loaded = []() -> Result<const Library*> {
    // NCCL would put off connecting the GPUs to the first calls, which may be recorded in a graph, where it cannot.
    (void)setenv("NCCL_RUNTIME_CONNECT", "0", 0);
    void* const handle = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) {
      return unsupported("several GPUs together want NVIDIA's NCCL, whose libnccl.so.2 could not be loaded: {}",
                         dlerror());
    }
    static Library library;
    const auto find = [&](auto& function, const char* name) {
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(handle, name));
      return function != nullptr;
    };
    if (!find(library.comm_init_all, "ncclCommInitAll") || !find(library.comm_destroy, "ncclCommDestroy") ||
        !find(library.comm_abort, "ncclCommAbort") || !find(library.all_gather, "ncclAllGather") ||
        !find(library.error_string, "ncclGetErrorString")) {
      return unsupported("libnccl.so.2 lacks a function that every NCCL 2 has: {}", dlerror());
    }
    return &library;
  }();
  return loaded;
}

Result<std::unique_ptr<Collectives>> Collectives::create(std::span<const int> devices) {
  BN_ASSIGN_OR_RETURN(const Library* const library, load());
  std::unique_ptr<Collectives> made(new Collectives(*library));
  made->ranks_.resize(devices.size());
  const int result = library->comm_init_all(made->ranks_.data(), int(devices.size()), devices.data());
  if (result != 0) made->ranks_.clear();
  BN_RETURN_IF_ERROR(made->check(result, "connecting the GPUs"));
  return made;
}

Collectives::~Collectives() {
  if (aborted_) return;
  for (void* rank : ranks_) (void)library_.comm_destroy(rank);
}

Status Collectives::check(int result, const char* doing) const {
  if (result == 0) return ok();
  return make_error(ErrorCode::kResource, "NCCL, {}: {}", doing, library_.error_string(result));
}

Status Collectives::all_gather(int rank, const float* part, int64_t n, float* all, cudaStream_t stream) const {
  if (aborted_) {
    return make_error(ErrorCode::kResource, "the GPUs no longer work together after an error of one of them");
  }
  return check(library_.all_gather(part, all, size_t(n), kFloat32, ranks_[size_t(rank)], stream), "gathering parts");
}

void Collectives::abort() {
  if (aborted_.exchange(true)) return;
  for (void* rank : ranks_) (void)library_.comm_abort(rank);
}

}  // namespace bitnet
