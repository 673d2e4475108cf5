#pragma once

#include "base/result.h"

#include <cuda_runtime.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace bitnet {

// What the GPUs of one process give each other, by NVIDIA's NCCL, which is loaded when it is first wanted. Every rank
// makes the same calls in the same order, each on a thread and a stream of its own. They may be recorded in graphs.
class Collectives {
 public:
  // kUnsupported where there is no NCCL.
  static Result<std::unique_ptr<Collectives>> create(std::span<const int> devices);
  ~Collectives();
  Collectives(const Collectives&) = delete;
  Collectives& operator=(const Collectives&) = delete;

  // all [n_ranks, n]: every rank's `part` [n].
  Status all_gather(int rank, const float* part, int64_t n, float* all, cudaStream_t stream) const;
  // One rank will make no more calls: frees the others, which wait for it. Nothing works afterwards. Thread-safe.
  void abort();

 private:
  struct Library;
  explicit Collectives(const Library& library) : library_(library) {}
  static Result<const Library*> load();
  Status check(int result, const char* doing) const;

  const Library& library_;
  std::vector<void*> ranks_;
  std::atomic<bool> aborted_{false};
};

}  // namespace bitnet
