#pragma once

#include "base/result.h"
#include "train/ranks/rank_place.h"

#include <chrono>
#include <memory>
#include <string>
#include <vector>

namespace bitnet {

// The processes of one run, each connected to that of rank 0 by TCP for as long as the run lasts: so that they agree on
// small things, and so that one that ends ends them all. One caller at a time, but for check().
class Peers {
 public:
  using Duration = std::chrono::milliseconds;

  // Rank 0 listens at its port from now on, so that the others find it; they wait for it as long as `patience`.
  static Result<std::unique_ptr<Peers>> join(const RankPlace& place, Duration patience = std::chrono::minutes(5));
  ~Peers();
  Peers(const Peers&) = delete;
  Peers& operator=(const Peers&) = delete;

  int rank() const { return rank_; }
  int n_ranks() const { return n_ranks_; }

  // Returns when all have called: of what they said, in the order of the ranks, the first that is not empty. kResource
  // where one has left or has not come for `patience`.
  Result<std::string> meet(std::string_view said, Duration patience = std::chrono::minutes(30));
  // One that failed fails all, with its sentence.
  Status agree(const Status& mine);
  // kResource where one has left. Thread-safe.
  Status check() const;
  // The run is over: a last meeting, after which everyone may go.
  Status leave();
  bool left() const { return left_; }

 private:
  Peers(int rank, int n_ranks) : rank_(rank), n_ranks_(n_ranks) {}
  using Deadline = std::chrono::steady_clock::time_point;
  Status listen(const RankPlace& place);
  Status accept_all(Deadline deadline);
  Status connect(const RankPlace& place, Deadline deadline);
  Status send(int peer, std::string_view text, Deadline deadline) const;
  Result<std::string> receive(int peer, Deadline deadline) const;
  Status send_bytes(int peer, const void* data, size_t n, Deadline deadline) const;
  Status receive_bytes(int peer, void* data, size_t n, Deadline deadline) const;
  Status wait_for(int peer, short events, Deadline deadline) const;
  Error gone(int peer) const;

  int rank_, n_ranks_;
  int listener_ = -1;         // until all have come
  std::vector<int> sockets_;  // by rank: of rank 0 all others', of the others rank 0's; -1 elsewhere
  bool left_ = false;
};

}  // namespace bitnet
