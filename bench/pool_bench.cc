// The pool against malloc, jemalloc, mimalloc and tcmalloc, all in one process: small blocks on one thread, with the
// percentiles of single calls, and the traces of bench/traces (bench/trace_recorder.cc) on one and two threads.
//   pool_bench --benchmark_enable_random_interleaving=true --benchmark_repetitions=9
// A library that is not installed is left out and named.
#include "base/file.h"
#include "base/rng.h"
#include "memory/pool.h"
#include "memory/profile.h"
#include "memory/trace.h"

#include <benchmark/benchmark.h>
#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

namespace bitnet {
namespace {

struct Allocator {
  std::string name;
  void* (*allocate)(size_t size_bytes) = nullptr;
  // With the size, as C++ programs release, where the library has such a call.
  void (*release_sized)(void* data, size_t size_bytes) = nullptr;
  void (*release)(void* data) = nullptr;

  void give_back(void* data, size_t size_bytes) const {
    release_sized != nullptr ? release_sized(data, size_bytes) : release(data);
  }
};

// A library's own functions, whatever malloc is here.
void add_library(std::vector<Allocator>& allocators, const std::string& name, const char* file, const char* allocate,
                 const char* release, const char* release_sized) {
  void* const library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    std::fprintf(stderr, "pool_bench: SKIPPED %s: %s\n", name.c_str(), dlerror());
    return;
  }
  Allocator a;
  a.name = name;
  a.allocate = reinterpret_cast<void* (*)(size_t)>(dlsym(library, allocate));
  a.release = reinterpret_cast<void (*)(void*)>(dlsym(library, release));
  if (release_sized != nullptr) {
    a.release_sized = reinterpret_cast<void (*)(void*, size_t)>(dlsym(library, release_sized));
  }
  if (a.allocate != nullptr && a.release != nullptr) allocators.push_back(a);
}

std::vector<Allocator> find_allocators() {
  std::vector<Allocator> allocators;
  allocators.push_back({"pool", [](size_t n) { return host_pool().allocate(n); },
                        [](void* data, size_t n) { host_pool().release(data, n); }, nullptr});
  allocators.push_back({"malloc", std::malloc, nullptr, std::free});
  add_library(allocators, "jemalloc", "libjemalloc.so.2", "malloc", "free", nullptr);
  add_library(allocators, "mimalloc", "libmimalloc.so.2", "mi_malloc", "mi_free", "mi_free_size");
  add_library(allocators, "tcmalloc", "libtcmalloc_minimal.so.4", "tc_malloc", "tc_free", "tc_free_sized");
  return allocators;
}

uint64_t ticks() {
#if defined(__x86_64__)
  unsigned aux;
  return __builtin_ia32_rdtscp(&aux);
#else
  return uint64_t(std::chrono::steady_clock::now().time_since_epoch().count());
#endif
}

double ns_per_tick() {
  static const double value = [] {
    const auto start = std::chrono::steady_clock::now();
    const uint64_t first = ticks();
    while (std::chrono::steady_clock::now() - start < std::chrono::milliseconds(100)) continue;
    const uint64_t last = ticks();
    return std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - start).count() /
           double(last - first);
  }();
  return value;
}

double percentile(std::vector<uint32_t>& sorted, double share) {
  return double(sorted[size_t(share * double(sorted.size() - 1))]);
}

// What a program with many small objects does: 4096 live, one of them at random replaced by another of random size.
class SmallBlocks {
 public:
  static constexpr size_t kLive = 4096, kDraws = 1 << 16;
  explicit SmallBlocks(const Allocator& allocator) : allocator_(allocator), live_(kLive), draws_(kDraws) {
    const CounterRng rng(3);
    for (size_t i = 0; i < kDraws; ++i) {
      const uint64_t bits = rng.bits(i);
      draws_[i] = {uint32_t(bits % kLive), uint32_t((bits >> 16) % (16u << (bits >> 40) % 7) + 1)};  // up to 1024 bytes
    }
    for (size_t i = 0; i < kLive; ++i) live_[i] = {allocator.allocate(64), 64};
  }
  ~SmallBlocks() {
    for (const Block& block : live_) allocator_.give_back(block.data, block.size_bytes);
  }
  void turn(size_t i) {
    const Draw draw = draws_[i % kDraws];
    Block& block = live_[draw.slot];
    allocator_.give_back(block.data, block.size_bytes);
    block = {allocator_.allocate(draw.size_bytes), draw.size_bytes};
    *static_cast<char*>(block.data) = 1;
  }
  void timed_turn(size_t i, std::vector<uint32_t>& allocations, std::vector<uint32_t>& releases) {
    const Draw draw = draws_[i % kDraws];
    Block& block = live_[draw.slot];
    const uint64_t start = ticks();
    allocator_.give_back(block.data, block.size_bytes);
    const uint64_t middle = ticks();
    block = {allocator_.allocate(draw.size_bytes), draw.size_bytes};
    const uint64_t end = ticks();
    *static_cast<char*>(block.data) = 1;
    releases.push_back(uint32_t(std::min<uint64_t>(middle - start, UINT32_MAX)));
    allocations.push_back(uint32_t(std::min<uint64_t>(end - middle, UINT32_MAX)));
  }

 private:
  struct Block {
    void* data;
    uint32_t size_bytes;
  };
  struct Draw {
    uint32_t slot, size_bytes;
  };
  const Allocator& allocator_;
  std::vector<Block> live_;
  std::vector<Draw> draws_;
};

void small_blocks(benchmark::State& state, const Allocator& allocator) {
  SmallBlocks blocks(allocator);
  size_t i = 0;
  for (auto _ : state) blocks.turn(i++);
  state.SetItemsProcessed(state.iterations());

  // Single calls, less what reading the clock takes.
  constexpr size_t kCalls = 1 << 18;
  std::vector<uint32_t> allocations, releases, clock;
  allocations.reserve(kCalls);
  releases.reserve(kCalls);
  clock.reserve(kCalls);
  for (size_t call = 0; call < kCalls; ++call) {
    blocks.timed_turn(call, allocations, releases);
    const uint64_t start = ticks();
    clock.push_back(uint32_t(ticks() - start));
  }
  for (auto* const samples : {&allocations, &releases, &clock}) std::sort(samples->begin(), samples->end());
  const double clock_ticks = percentile(clock, 0.5);
  const auto ns = [&](std::vector<uint32_t>& samples, double share) {
    return std::max(0.0, percentile(samples, share) - clock_ticks) * ns_per_tick();
  };
  state.counters["alloc_p50_ns"] = ns(allocations, 0.5);
  state.counters["alloc_p99_ns"] = ns(allocations, 0.99);
  state.counters["free_p50_ns"] = ns(releases, 0.5);
  state.counters["free_p99_ns"] = ns(releases, 0.99);
}

// The profile that the program would choose for it.
Profile profile_of(const std::string& trace) { return trace == "training" ? Profile::kTraining : Profile::kServer; }

// Each thread replays the whole trace; what it allocates it also touches, a byte a page.
void replay(benchmark::State& state, const Allocator& allocator, const AllocationTrace& trace, Profile profile) {
  if (state.thread_index() == 0) configure_host_pool(profile);
  struct Block {
    void* data = nullptr;
    size_t size_bytes = 0;
  };
  std::vector<Block> blocks(trace.n_blocks);
  const auto once = [&] {
    for (const AllocationTrace::Event& event : trace.events) {
      Block& block = blocks[event.block];
      if (event.size_bytes == 0) {
        allocator.give_back(block.data, block.size_bytes);
        block.data = nullptr;
        continue;
      }
      block = {allocator.allocate(event.size_bytes), event.size_bytes};
      for (size_t at = 0; at < event.size_bytes; at += 4096) static_cast<volatile char*>(block.data)[at] = 1;
    }
    for (Block& block : blocks) {
      if (block.data != nullptr) allocator.give_back(block.data, block.size_bytes);
      block.data = nullptr;
    }
  };
  once();  // a program takes its pages from the system once
  for (auto _ : state) once();
  state.SetItemsProcessed(state.iterations() * int64_t(trace.events.size()));
}

uint64_t resident_bytes() {
  uint64_t n_all = 0, n_resident = 0;
  if (std::FILE* const file = std::fopen("/proc/self/statm", "r")) {
    if (std::fscanf(file, "%lu %lu", &n_all, &n_resident) != 2) n_resident = 0;
    std::fclose(file);
  }
  return n_resident * uint64_t(::sysconf(_SC_PAGESIZE));
}

// What the pool of the process holds after a trace beside what is live: at once, after a while in which nothing happens
// (the keeper's doing), and after trim(). All of every block is written.
void print_fragmentation(const std::string& name, const AllocationTrace& trace) {
  const Profile profile = profile_of(name);
  configure_host_pool(profile);
  Pool& pool = host_pool();
  pool.trim();
  std::vector<std::pair<void*, size_t>> blocks(trace.n_blocks);
  for (auto& [data, size_bytes] : blocks) data = nullptr, size_bytes = 0;
  const uint64_t resident_before = resident_bytes();
  uint64_t live_bytes = 0, peak_bytes = 0, small_bytes = 0;
  for (const AllocationTrace::Event& event : trace.events) {
    auto& [data, size_bytes] = blocks[event.block];
    const bool release = event.size_bytes == 0;
    if (!release) size_bytes = event.size_bytes;
    live_bytes += release ? -size_bytes : size_bytes;
    if (size_bytes <= kSmallLimit_bytes) small_bytes += release ? -size_bytes : size_bytes;
    peak_bytes = std::max(peak_bytes, live_bytes);
    if (release) {
      pool.release(data, size_bytes);
      data = nullptr;
    } else {
      data = pool.allocate(size_bytes);
      std::memset(data, 1, size_bytes);
    }
  }
  std::printf("%s: %zu events, %u blocks, live at the end %.2f MB (small ones %.2f), at most %.2f\n", name.c_str(),
              trace.events.size(), trace.n_blocks, double(live_bytes) / 1e6, double(small_bytes) / 1e6,
              double(peak_bytes) / 1e6);
  const auto print = [&](const char* when) {
    const uint64_t held = pool.report().held_bytes();
    std::printf("%s: held %-16s %7.2f MB, %5.1f%% of it unused; resident %.2f MB\n", name.c_str(), when,
                double(held) / 1e6, 100 * (1 - double(live_bytes) / double(held)),
                double(resident_bytes() - resident_before) / 1e6);
  };
  print("at once");
  const int64_t idle_ms = 2 * pool_options(profile, read_memory_limits()).decay_ms + 100;
  std::this_thread::sleep_for(std::chrono::milliseconds(idle_ms));
  print(("after " + std::to_string(idle_ms) + " ms").c_str());
  pool.trim();
  print("after trim()");
  for (const auto& [data, size_bytes] : blocks) pool.release(data, size_bytes);
  pool.trim();
}

}  // namespace

int run(int argc, char** argv) {
  static const std::vector<Allocator> allocators = find_allocators();
  static std::vector<AllocationTrace> traces;
  traces.reserve(2);
  for (const Allocator& a : allocators) {
    benchmark::RegisterBenchmark(("small/" + a.name).c_str(), [&a](benchmark::State& s) { small_blocks(s, a); });
  }
  for (const std::string name : {"decode", "training"}) {
    const std::string path = std::string(BITNET_TRACES) + "/" + name + ".trace";
    const auto bytes = read_file(path);
    auto trace = bytes ? decode_trace(*bytes, path) : Result<AllocationTrace>(bytes.error());
    if (!trace) {
      std::fprintf(stderr, "pool_bench: SKIPPED %s: %s\n", name.c_str(), trace.error().message.c_str());
      continue;
    }
    traces.push_back(*std::move(trace));
    const AllocationTrace& t = traces.back();
    const Profile profile = profile_of(name);
    print_fragmentation(name, t);
    for (const Allocator& a : allocators) {
      benchmark::RegisterBenchmark((name + "/" + a.name).c_str(),
                                   [&a, &t, profile](benchmark::State& s) { replay(s, a, t, profile); })
          ->Threads(1)
          ->Threads(2)
          ->UseRealTime();
    }
    for (const auto& [level, label] : {std::pair{Tracking::kSampled, "sampled"}, std::pair{Tracking::kFull, "full"}}) {
      benchmark::RegisterBenchmark((name + "/pool_" + label).c_str(), [&t, profile,
                                                                       level = level](benchmark::State& s) {
        host_pool().set_tracking(level);
        replay(s, allocators[0], t, profile);
        host_pool().set_tracking(Tracking::kOff);
      })->UseRealTime();
    }
  }
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

}  // namespace bitnet

int main(int argc, char** argv) {
  // Libraries that want room for their thread_local variables find it only when the program starts.
  if (::setenv("GLIBC_TUNABLES", "glibc.rtld.optional_static_tls=16384", 0) == 0 &&
      std::getenv("POOL_BENCH") == nullptr) {
    ::setenv("POOL_BENCH", "1", 1);
    ::execv("/proc/self/exe", argv);
  }
  return bitnet::run(argc, argv);
}
