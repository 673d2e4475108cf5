#pragma once

#include "base/result.h"

#include <cuda_runtime.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace bitnet {

// What several GPUs give each other, by NVIDIA's NCCL, which is loaded when it is first wanted: GPUs of one process, or
// of several that share an id. Every rank makes the same calls in the same order, each rank of a process on a thread
// and a stream of its own. They may be recorded in graphs.
//
// Loading a kernel, which CUDA puts off to its first launch, may wait for all that a GPU has to do, while it holds what
// the other ranks' threads want for a launch of theirs. So the ranks of a process wait for each other on the host in
// front of a call and after it: whatever else they start, no GPU has a call in its queue that another lacks.
class Collectives {
 public:
  using Id = std::array<char, 128>;  // of ranks that belong together
  // kUnsupported where there is no NCCL.
  static Status available();
  static Result<Id> new_id();
  // `devices`: of this process's ranks, the first of which is `first_rank` of `n_ranks`. Returns when all of them have
  // called.
  static Result<std::unique_ptr<Collectives>> create(std::span<const int> devices, int first_rank, int n_ranks,
                                                     const Id& id);
  static Result<std::unique_ptr<Collectives>> create(std::span<const int> devices);
  ~Collectives();
  Collectives(const Collectives&) = delete;
  Collectives& operator=(const Collectives&) = delete;

  // In all calls `member` counts the ranks of this process from 0.
  int n_ranks() const { return n_ranks_; }
  int first_rank() const { return first_rank_; }
  // all [n_ranks, n]: every rank's `part` [n], which may lie at its place there.
  Status all_gather(int member, const float* part, int64_t n, float* all, cudaStream_t stream) const;
  Status all_gather_bytes(int member, const void* part, int64_t n_bytes, void* all, cudaStream_t stream) const;
  // part [n]: the sum of every rank's all [n_ranks, n] at this rank's place. The order of the sum is NCCL's, the same
  // each time for the same GPUs.
  Status reduce_scatter(int member, const float* all, int64_t n, float* part, cudaStream_t stream) const;
  // values [n] of rank 0 to all.
  Status broadcast(int member, float* values, int64_t n, cudaStream_t stream) const;
  // One rank will make no more calls: frees the others, which wait for it. Nothing works afterwards. Thread-safe.
  void abort();

 private:
  struct Library;
  explicit Collectives(const Library& library) : library_(library) {}
  static Result<const Library*> load();
  static Status check(const Library& library, int result, const char* doing);
  // Waits until every rank of this process is here; false after an abort.
  bool meet() const;
  template <class Call>
  Status together(const char* doing, const Call& call) const;

  const Library& library_;
  int first_rank_ = 0, n_ranks_ = 0;
  std::vector<void*> comms_;  // of this process's ranks
  mutable std::atomic<uint32_t> n_here_{0}, n_meetings_{0};
  std::atomic<bool> aborted_{false};
};

}  // namespace bitnet
