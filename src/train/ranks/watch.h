#pragma once

#include "train/ranks/peers.h"

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>

namespace bitnet {

// Looks after the other processes while this one waits for its GPU, whose kernels would wait for a lost one for ever.
class PeerWatch {
 public:
  using Duration = Peers::Duration;
  // `give_up` is called once, on a thread of the watch: when a process has left, or when one piece of work takes longer
  // than `patience`. The peers outlive the watch.
  PeerWatch(const Peers& peers, std::function<void()> give_up, Duration patience = std::chrono::minutes(30));
  ~PeerWatch();
  PeerWatch(const PeerWatch&) = delete;
  PeerWatch& operator=(const PeerWatch&) = delete;

  // Around a piece of work; end() has the reason where the watch gave up.
  void begin();
  Status end();

 private:
  using Clock = std::chrono::steady_clock;
  void watch();

  const Peers& peers_;
  const std::function<void()> give_up_;
  const Duration patience_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<Clock::time_point> begun_;
  std::optional<Error> failure_;
  bool over_ = false;
  std::thread thread_;
};

}  // namespace bitnet
