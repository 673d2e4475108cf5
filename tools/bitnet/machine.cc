#include "machine.h"

#include "base/file.h"
#include "base/thread_pool.h"
#include "int8_peak.h"
#include "memory/buffer.h"
#include "report/machine_facts.h"
#include "report/statistics.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <vector>

namespace bitnet::cli {
namespace {

constexpr size_t kBufferBytes = size_t{1} << 29;  // far beyond any cache that one process has to itself
constexpr int kPasses = 5;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

using Lanes = uint64_t __attribute__((vector_size(32)));

// One linear pass over [data, data + size_bytes), a multiple of 128.
uint64_t read_all(const std::byte* data, size_t size_bytes) {
  Lanes a{}, b{}, c{}, d{};
  const auto* const p = reinterpret_cast<const Lanes*>(data);
  for (size_t i = 0; i + 4 <= size_bytes / sizeof(Lanes); i += 4) {
    a ^= p[i];
    b ^= p[i + 1];
    c ^= p[i + 2];
    d ^= p[i + 3];
  }
  a ^= b ^ c ^ d;
  return a[0] ^ a[1] ^ a[2] ^ a[3];
}

double read_speed(const Buffer& buffer, ThreadPool& pool) {
  if (buffer.size_bytes() == 0) return 0;
  std::atomic<uint64_t> sink{0};
  std::vector<double> speeds;
  for (int pass = 0; pass < kPasses; ++pass) {
    const auto start = std::chrono::steady_clock::now();
    pool.parallel_for(int64_t(buffer.size_bytes() / 4096), [&](int64_t begin, int64_t end, int) {
      sink ^= read_all(buffer.data() + begin * 4096, size_t(end - begin) * 4096);
    });
    speeds.push_back(double(buffer.size_bytes()) / seconds_since(start) / 1e9);
  }
  return median(speeds);
}

double int8_speed(ThreadPool& pool) {
  std::vector<double> speeds;
  for (int pass = 0; pass < kPasses; ++pass) {
    std::atomic<double> ops{0};
    const auto start = std::chrono::steady_clock::now();
    pool.run([&](int) {
      const double mine = int8_peak_ops();
      for (double seen = ops.load(); !ops.compare_exchange_weak(seen, seen + mine);) continue;
    });
    speeds.push_back(ops.load() / seconds_since(start) / 1e9);
  }
  return median(speeds);
}

bool read_exactly(int fd, void* data, size_t size_bytes) {
  auto* p = static_cast<char*>(data);
  while (size_bytes > 0) {
    const ssize_t n = ::read(fd, p, size_bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    p += n;
    size_bytes -= size_t(n);
  }
  return true;
}

// Answers each thread count with the limits until the parent hangs up.
[[noreturn]] void serve(int in, int out) {
  ::signal(SIGINT, SIG_IGN);  // the parent decides; its end closes our pipe
  ::signal(SIGTERM, SIG_DFL);
  Buffer buffer;
  bool first = true;
  for (int n_threads = 0; read_exactly(in, &n_threads, sizeof n_threads);) {
    ThreadPool pool(n_threads);
    if (first) {
      if (auto allocated = Buffer::allocate(kBufferBytes)) {
        buffer = *std::move(allocated);
        pool.parallel_for(int64_t(kBufferBytes / 4096), [&](int64_t begin, int64_t end, int) {
          std::memset(buffer.data() + begin * 4096, 1, size_t(end - begin) * 4096);
        });
      }
      first = false;
    }
    const MachineLimits limits{read_speed(buffer, pool), int8_speed(pool)};
    if (::write(out, &limits, sizeof limits) != ssize_t(sizeof limits)) break;
  }
  ::_exit(0);
}

}  // namespace

MachineMeter::MachineMeter() {
  int down[2], up[2];
  if (::pipe(down) != 0) return;
  if (::pipe(up) != 0) {
    ::close(down[0]);
    ::close(down[1]);
    return;
  }
  child_ = ::fork();
  if (child_ == 0) {
    ::close(down[1]);
    ::close(up[0]);
    serve(down[0], up[1]);
  }
  ::close(down[0]);
  ::close(up[1]);
  to_child_ = down[1];
  from_child_ = up[0];
}

MachineMeter::~MachineMeter() {
  if (to_child_ >= 0) ::close(to_child_);
  if (from_child_ >= 0) ::close(from_child_);
  if (child_ > 0) {
    while (::waitpid(child_, nullptr, 0) < 0 && errno == EINTR) continue;
  }
}

MachineLimits MachineMeter::measure(int n_threads) {
  MachineLimits limits;
  if (child_ <= 0) return {};
  const auto old_handler = ::signal(SIGPIPE, SIG_IGN);  // a child that ran out of memory must not take us along
  const bool answered = ::write(to_child_, &n_threads, sizeof n_threads) == ssize_t(sizeof n_threads) &&
                        read_exactly(from_child_, &limits, sizeof limits);
  ::signal(SIGPIPE, old_handler);
  return answered ? limits : MachineLimits{};
}

std::string cpu_name() {
  const std::string name = read_machine_facts().cpu;
  return name.empty() ? "unknown processor" : name;
}

unsigned long long peak_rss_bytes() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
#ifdef __APPLE__
  return static_cast<unsigned long long>(usage.ru_maxrss);
#else
  return static_cast<unsigned long long>(usage.ru_maxrss) * 1024;
#endif
}

}  // namespace bitnet::cli
