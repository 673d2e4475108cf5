#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace bitnet {

// A fixed team of threads for fork/join loops. The caller is member 0. Workers spin for a short while after a job
// (decoding issues one every few hundred microseconds) and then sleep in the kernel. When the caller has done its part
// it also does those of members that have not begun: on a busy machine a worker may get no processor for milliseconds.
// Nothing is allocated per call. One caller at a time: run() from several threads is serialised.
class ThreadPool {
 public:
  explicit ThreadPool(int n_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int n_threads() const { return n_threads_; }

  // Calls fn(thread_index) once for each member, on its thread or on the caller's, and returns when all have returned.
  // What fn throws for any member, having no memory for one, the call throws then (the first that was caught).
  template <class Fn>
  void run(Fn&& fn) {
    run_job([](void* context, int thread) { (*static_cast<std::remove_reference_t<Fn>*>(context))(thread); }, &fn);
  }

  // Splits [0, n) into one contiguous part a member, as even as can be: fn(begin, end, thread_index), parts that are
  // empty left out. The split depends on n and n_threads only.
  template <class Fn>
  void parallel_for(int64_t n, Fn&& fn) {
    if (n <= 0) return;
    if (n_threads_ == 1 || n == 1) {
      fn(int64_t{0}, n, 0);
      return;
    }
    run([&](int thread) {
      const int64_t begin = n * thread / n_threads_, end = n * (thread + 1) / n_threads_;
      if (begin < end) fn(begin, end, thread);
    });
  }

 private:
  using Job = void (*)(void* context, int thread);
  void run_job(Job job, void* context);
  void run_member(int thread) noexcept;
  void work(int thread);
  bool claim(int thread, uint32_t generation);

  // The job that a member's part has been begun of; each on a cache line of its own.
  struct alignas(64) Begun {
    std::atomic<uint32_t> generation{0};
  };

  const int n_threads_;
  const bool spin_;  // not when there are more members than processors: a spinner would keep a worker waiting
  std::mutex caller_;
  Job job_ = nullptr;
  void* context_ = nullptr;
  std::mutex thrown_mutex_;
  std::exception_ptr thrown_;
  alignas(64) std::atomic<uint32_t> generation_{0};  // bumped once a job and once to stop
  alignas(64) std::atomic<int32_t> n_running_{0};
  std::atomic<bool> stop_{false};
  std::unique_ptr<Begun[]> begun_;  // [n_threads]
  std::vector<std::thread> workers_;
};

// Logical processors this process may use (its affinity mask), at least 1.
int available_cpus();

}  // namespace bitnet
