#include "kernels/cuda/collectives.h"

#include "kernels/cuda/cuda_error.h"

#include <dlfcn.h>

#include <cstdlib>
#include <thread>
#include <type_traits>

namespace bitnet {
namespace {

// Of nccl.h, which keeps its numbers.
constexpr int kInt8 = 0, kFloat32 = 7, kSum = 0;

// As ncclUniqueId, which is passed by value.
struct NcclId {
  char bytes[std::tuple_size_v<Collectives::Id>];
};

}  // namespace

struct Collectives::Library {
  int (*get_unique_id)(NcclId* id) = nullptr;
  int (*comm_init_rank)(void** comm, int n_ranks, NcclId id, int rank) = nullptr;
  int (*comm_destroy)(void* comm) = nullptr;
  int (*comm_abort)(void* comm) = nullptr;
  int (*group_start)() = nullptr;
  int (*group_end)() = nullptr;
  int (*all_gather)(const void* part, void* all, size_t n, int type, void* comm, cudaStream_t stream) = nullptr;
  int (*reduce_scatter)(const void* all, void* part, size_t n, int type, int op, void* comm,
                        cudaStream_t stream) = nullptr;
  int (*broadcast)(const void* from, void* to, size_t n, int type, int root, void* comm, cudaStream_t stream) = nullptr;
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
    if (!find(library.get_unique_id, "ncclGetUniqueId") || !find(library.comm_init_rank, "ncclCommInitRank") ||
        !find(library.comm_destroy, "ncclCommDestroy") || !find(library.comm_abort, "ncclCommAbort") ||
        !find(library.group_start, "ncclGroupStart") || !find(library.group_end, "ncclGroupEnd") ||
        !find(library.all_gather, "ncclAllGather") || !find(library.reduce_scatter, "ncclReduceScatter") ||
        !find(library.broadcast, "ncclBroadcast") || !find(library.error_string, "ncclGetErrorString")) {
      return unsupported("libnccl.so.2 lacks a function that every NCCL 2 has: {}", dlerror());
    }
    return &library;
  }();
  return loaded;
}

Status Collectives::available() {
  BN_RETURN_IF_ERROR(load());
  return ok();
}

Result<Collectives::Id> Collectives::new_id() {
  BN_ASSIGN_OR_RETURN(const Library* const library, load());
  NcclId made;
  BN_RETURN_IF_ERROR(check(*library, library->get_unique_id(&made), "making an id"));
  Id id;
  std::copy(std::begin(made.bytes), std::end(made.bytes), id.begin());
  return id;
}

Result<std::unique_ptr<Collectives>> Collectives::create(std::span<const int> devices) {
  BN_ASSIGN_OR_RETURN(const Id id, new_id());
  return create(devices, 0, int(devices.size()), id);
}

Result<std::unique_ptr<Collectives>> Collectives::create(std::span<const int> devices, int first_rank, int n_ranks,
                                                         const Id& id) {
  BN_ASSIGN_OR_RETURN(const Library* const library, load());
  std::unique_ptr<Collectives> made(new Collectives(*library));
  made->first_rank_ = first_rank;
  made->n_ranks_ = n_ranks;
  NcclId nccl_id;
  std::copy(id.begin(), id.end(), nccl_id.bytes);
  std::vector<void*> comms(devices.size());
  int result = library->group_start();
  for (size_t i = 0; i < devices.size() && result == 0; ++i) {
    BN_CUDA_RETURN_IF_ERROR(cudaSetDevice(devices[i]), "choosing the device");
    result = library->comm_init_rank(&comms[i], n_ranks, nccl_id, first_rank + int(i));
  }
  const int ended = library->group_end();
  BN_RETURN_IF_ERROR(check(*library, result != 0 ? result : ended, "connecting the GPUs"));
  made->comms_ = std::move(comms);
  return made;
}

Collectives::~Collectives() {
  if (aborted_) return;
  for (void* comm : comms_) (void)library_.comm_destroy(comm);
}

Status Collectives::check(const Library& library, int result, const char* doing) {
  if (result == 0) return ok();
  return make_error(ErrorCode::kResource, "NCCL, {}: {}", doing, library.error_string(result));
}

bool Collectives::meet() const {
  const uint32_t n = uint32_t(comms_.size());
  if (n == 1) return !aborted_;
  const uint32_t meeting = n_meetings_;
  if (n_here_.fetch_add(1) + 1 == n) {
    n_here_ = 0;
    ++n_meetings_;
  }
  // Mostly for some microseconds.
  for (int i = 0; n_meetings_ == meeting && !aborted_; ++i) {
    if (i > 1000) std::this_thread::yield();
  }
  return !aborted_;
}

template <class Call>
Status Collectives::together(const char* doing, const Call& call) const {
  const auto apart = [] {
    return make_error(ErrorCode::kResource, "the GPUs no longer work together after an error of one of them");
  };
  if (!meet()) return apart();
  BN_RETURN_IF_ERROR(check(library_, call(), doing));
  if (!meet()) return apart();
  return ok();
}

Status Collectives::all_gather(int member, const float* part, int64_t n, float* all, cudaStream_t stream) const {
  return together("gathering parts",
                  [&] { return library_.all_gather(part, all, size_t(n), kFloat32, comms_[size_t(member)], stream); });
}

Status Collectives::all_gather_bytes(int member, const void* part, int64_t n_bytes, void* all,
                                     cudaStream_t stream) const {
  return together("gathering parts", [&] {
    return library_.all_gather(part, all, size_t(n_bytes), kInt8, comms_[size_t(member)], stream);
  });
}

Status Collectives::reduce_scatter(int member, const float* all, int64_t n, float* part, cudaStream_t stream) const {
  return together("adding up", [&] {
    return library_.reduce_scatter(all, part, size_t(n), kFloat32, kSum, comms_[size_t(member)], stream);
  });
}

Status Collectives::broadcast(int member, float* values, int64_t n, cudaStream_t stream) const {
  return together("sending from the first rank", [&] {
    return library_.broadcast(values, values, size_t(n), kFloat32, 0, comms_[size_t(member)], stream);
  });
}

void Collectives::abort() {
  if (aborted_.exchange(true)) return;
  for (void* comm : comms_) (void)library_.comm_abort(comm);
}

}  // namespace bitnet
