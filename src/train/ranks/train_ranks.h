#pragma once

#include "base/result.h"
#include "train/ranks/peers.h"
#include "train/ranks/rank_place.h"

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace bitnet {

// Who trains a model together: each rank has a GPU and computes a part of every step (docs/training.md).
struct TrainRanks {
  std::vector<std::string> devices = {"cpu"};  // of this process's ranks
  int first = 0;                               // of them among all
  int n = 1;                                   // all ranks
  std::shared_ptr<Peers> peers;                // the other processes; null where there are none
  bool leads() const { return first == 0; }    // reads and writes the run's folder
};

// "cuda:0,1" are two ranks of this process. Where a launcher has started several (rank_place.h), each is one rank, on
// the GPU of its place on the machine for "cuda" and on the one named by "cuda:N"; returns when all are there.
Result<TrainRanks> join_ranks(std::string_view device, const Environment& environment);

// A step's `accumulation` parts of `batch` sequences among the ranks: `n_parts` of `n_sequences` for each, parts first.
// Part p of the ranks are the step's sequences from p * n_ranks * n_sequences on, one rank's after the other's: the
// same step whatever the number of ranks.
struct RankShare {
  int64_t n_sequences = 1;
  int64_t n_parts = 1;
};
// kInvalidArgument where the sequences cannot be shared evenly.
Result<RankShare> share_step(int64_t batch, int64_t accumulation, int n_ranks);

}  // namespace bitnet
