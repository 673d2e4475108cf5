#include "train/ranks/watch.h"

#include <utility>

namespace bitnet {
namespace {

constexpr auto kEvery = std::chrono::milliseconds(100);

}  // namespace

PeerWatch::PeerWatch(const Peers& peers, std::function<void()> give_up, Duration patience)
    : peers_(peers), give_up_(std::move(give_up)), patience_(patience), thread_([this] { watch(); }) {}

PeerWatch::~PeerWatch() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    over_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void PeerWatch::begin() {
  const std::lock_guard<std::mutex> lock(mutex_);
  begun_ = Clock::now();
}

Status PeerWatch::end() {
  const std::lock_guard<std::mutex> lock(mutex_);
  begun_.reset();
  if (failure_) return Error(*failure_);
  return ok();
}

// Between two pieces of work nobody waits on a GPU; a process that has left then is noticed by the next one.
void PeerWatch::watch() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (!changed_.wait_for(lock, kEvery, [&] { return over_; })) {
    if (!begun_) continue;
    Status status = peers_.check();
    if (status && Clock::now() - *begun_ > patience_) {
      status = make_error(ErrorCode::kResource, "the ranks have waited for each other for {} s",
                          std::chrono::duration_cast<std::chrono::seconds>(patience_).count());
    }
    if (status) continue;
    failure_ = std::move(status.error());
    lock.unlock();
    give_up_();
    return;
  }
}

}  // namespace bitnet
