#include "kernels/cuda/collectives.h"

#include <dlfcn.h>

#include <type_traits>

namespace bitnet {
namespace {

// Of nccl.h, whose numbers its versions keep.
constexpr int kUint32 = 3, kFloat32 = 7, kSum = 0;

}  // namespace

struct Collectives::Library {
  int (*comm_init_all)(void** comms, int n_devices, const int* devices) = nullptr;
  int (*comm_destroy)(void* comm) = nullptr;
  int (*comm_abort)(void* comm) = nullptr;
  int (*all_gather)(const void* part, void* all, size_t n, int type, void* comm, cudaStream_t stream) = nullptr;
  int (*all_reduce)(const void* from, void* to, size_t n, int type, int op, void* comm, cudaStream_t stream) = nullptr;
  const char* (*error_string)(int result) = nullptr;
};

// Once; the library stays loaded.
Result<const Collectives::Library*> Collectives::load() {
  static const Result<const Library*> loaded = []() -> Result<const Library*> {
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
        !find(library.all_reduce, "ncclAllReduce") || !find(library.error_string, "ncclGetErrorString")) {
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

Result<void*> Collectives::comm(int rank) const {
  if (!aborted_) return ranks_[size_t(rank)];
  return make_error(ErrorCode::kResource, "the GPUs no longer work together after an error of one of them");
}

Status Collectives::all_gather(int rank, const float* part, int64_t n, float* all, cudaStream_t stream) const {
  BN_ASSIGN_OR_RETURN(void* const comm, this->comm(rank));
  return check(library_.all_gather(part, all, size_t(n), kFloat32, comm, stream), "gathering parts");
}

Status Collectives::sum_words(int rank, uint32_t* words, int64_t n, cudaStream_t stream) const {
  BN_ASSIGN_OR_RETURN(void* const comm, this->comm(rank));
  return check(library_.all_reduce(words, words, size_t(n), kUint32, kSum, comm, stream), "adding up words");
}

void Collectives::abort() {
  if (aborted_.exchange(true)) return;
  for (void* rank : ranks_) (void)library_.comm_abort(rank);
}

}  // namespace bitnet
