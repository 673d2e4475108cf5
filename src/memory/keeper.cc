#include "memory/keeper.h"

#include <pthread.h>
#include <signal.h>
#include <atomic>
#include <chrono>
#include <system_error>
#include <thread>

namespace bitnet {
namespace {

std::atomic<int64_t> sleep_ms{0};

void keep(Pool& pool) {
  for (;;) {
    pool.wait_for_release();
    do {
      std::this_thread::sleep_for(std::chrono::milliseconds(sleep_ms.load(std::memory_order_relaxed)));
    } while (pool.decay());
  }
}

}  // namespace

bool start_pool_keeper(Pool& pool, int64_t decay_ms) {
  sleep_ms.store(decay_ms, std::memory_order_relaxed);
  static const bool started = [&] {
    bool ok = true;
    // Signals are for the program's own threads.
    sigset_t all, before;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
      std::thread([&pool] { keep(pool); }).detach();
    } catch (const std::system_error&) {
      ok = false;
    }
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return ok;
  }();
  return started;
}

}  // namespace bitnet
