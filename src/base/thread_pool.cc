#include "base/thread_pool.h"

#include <algorithm>
#include <chrono>
#include <utility>
#ifdef __linux__
#include <sched.h>
#endif

namespace bitnet {
namespace {

// Long enough to bridge the serial gap between two operations of a token, short enough not to burn a core that
// another program wants.
constexpr auto kSpin = std::chrono::microseconds(200);

// Pauses for which a caller that has done its part lets a worker be late, about a microsecond: one that spins has seen
// the job by then.
constexpr int kGrace = 24;

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Waits until `value` differs from `old`: spins for kSpin if asked to, then sleeps.
template <class T>
T wait_while_equal(const std::atomic<T>& value, T old, bool spin) {
  if (spin) {
    const auto deadline = std::chrono::steady_clock::now() + kSpin;
    while (true) {
      for (int i = 0; i < 256; ++i) {
        const T now = value.load(std::memory_order_acquire);
        if (now != old) return now;
        pause();
      }
      if (std::chrono::steady_clock::now() > deadline) break;
    }
  }
  value.wait(old, std::memory_order_acquire);
  return value.load(std::memory_order_acquire);
}

}  // namespace

ThreadPool::ThreadPool(int n_threads)
    : n_threads_(std::max(1, n_threads)),
      spin_(n_threads_ <= available_cpus()),
      begun_(std::make_unique<Begun[]>(size_t(n_threads_))) {
  workers_.reserve(size_t(n_threads_ - 1));
  for (int i = 1; i < n_threads_; ++i) workers_.emplace_back([this, i] { work(i); });
}

ThreadPool::~ThreadPool() {
  stop_.store(true, std::memory_order_relaxed);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run_job(Job job, void* context) {
  if (n_threads_ == 1) {
    job(context, 0);
    return;
  }
  const std::lock_guard<std::mutex> lock(caller_);
  job_ = job;
  context_ = context;
  n_running_.store(n_threads_ - 1, std::memory_order_relaxed);
  const uint32_t generation = generation_.fetch_add(1, std::memory_order_release) + 1;
  generation_.notify_all();
  run_member(0);
  for (int thread = 1; thread < n_threads_; ++thread) {
    const std::atomic<uint32_t>& begun = begun_[size_t(thread)].generation;
    for (int i = 0; spin_ && i < kGrace && begun.load(std::memory_order_relaxed) != generation; ++i) pause();
    if (!claim(thread, generation)) continue;
    run_member(thread);
    n_running_.fetch_sub(1, std::memory_order_relaxed);
  }
  for (int32_t n = n_running_.load(std::memory_order_acquire); n != 0;) n = wait_while_equal(n_running_, n, spin_);
  if (thrown_) std::rethrow_exception(std::exchange(thrown_, nullptr));
}

void ThreadPool::run_member(int thread) noexcept {
  try {
    job_(context_, thread);
  } catch (...) {
    const std::lock_guard<std::mutex> lock(thrown_mutex_);
    if (!thrown_) thrown_ = std::current_exception();
  }
}

// Whether the caller of this has to do a member's part of a job: the first to ask. A worker that comes late may ask
// for a job that is long over.
bool ThreadPool::claim(int thread, uint32_t generation) {
  std::atomic<uint32_t>& begun = begun_[size_t(thread)].generation;
  uint32_t last = begun.load(std::memory_order_relaxed);
  while (int32_t(generation - last) > 0) {
    if (begun.compare_exchange_weak(last, generation, std::memory_order_acq_rel)) return true;
  }
  return false;
}

void ThreadPool::work(int thread) {
  uint32_t seen = 0;
  while (true) {
    seen = wait_while_equal(generation_, seen, spin_);
    if (stop_.load(std::memory_order_relaxed)) return;
    if (!claim(thread, seen)) continue;
    run_member(thread);
    if (n_running_.fetch_sub(1, std::memory_order_acq_rel) == 1) n_running_.notify_one();
  }
}

int available_cpus() {
#ifdef __linux__
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) return CPU_COUNT(&set);
#endif
  return std::max(1, int(std::thread::hardware_concurrency()));
}

}  // namespace bitnet
