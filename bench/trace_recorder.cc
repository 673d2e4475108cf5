// The bitnet program with every allocation written down: ALLOCATION_TRACE=FILE trace_recorder run -m ... The trace ends
// with the last allocation, while model and session are still there; bench/traces holds what pool_bench replays.
#include "base/file.h"
#include "memory/pool.h"
#include "memory/trace.h"

#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <new>
#include <unordered_map>

namespace {

struct Recorder {
  std::mutex mutex;
  bitnet::AllocationTrace trace;
  std::unordered_map<const void*, uint32_t> live;
};
Recorder* recorder = nullptr;
thread_local bool busy = false;  // with its own allocations

void note(const void* data, size_t size_bytes, bool released) {
  if (recorder == nullptr || busy || data == nullptr) return;
  busy = true;
  {
    const std::lock_guard<std::mutex> lock(recorder->mutex);
    if (!released) {
      recorder->live[data] = recorder->trace.n_blocks;
      recorder->trace.allocate(size_bytes);
    } else if (const auto found = recorder->live.find(data); found != recorder->live.end()) {
      recorder->trace.release(found->second);
      recorder->live.erase(found);
    }
  }
  busy = false;
}

void write_trace() {
  busy = true;
  auto& events = recorder->trace.events;
  while (!events.empty() && events.back().size_bytes == 0) events.pop_back();
  const char* const path = std::getenv("ALLOCATION_TRACE");
  if (const auto status = bitnet::write_file_atomically(path, encode(recorder->trace)); !status) {
    std::fprintf(stderr, "trace_recorder: %s\n", status.error().message.c_str());
  }
  std::fprintf(stderr, "trace_recorder: %zu events, %u blocks in %s\n", events.size(), recorder->trace.n_blocks, path);
}

[[gnu::constructor]] void start() {
  if (std::getenv("ALLOCATION_TRACE") == nullptr) return;
  recorder = new Recorder;
  bitnet::host_pool().set_observer(
      [](const bitnet::PoolEvent& event) { note(event.data, event.size_bytes, event.released); });
  std::atexit(write_trace);
}

void* allocate(size_t size_bytes, size_t align_bytes) {
  void* const data = std::aligned_alloc(align_bytes, (size_bytes + align_bytes) / align_bytes * align_bytes);
  if (data == nullptr) throw std::bad_alloc();
  note(data, size_bytes, false);
  return data;
}
void release(void* data) {
  note(data, 0, true);
  std::free(data);
}

}  // namespace

// All other forms of new and delete lead to these.
void* operator new(size_t size_bytes) { return allocate(size_bytes, __STDCPP_DEFAULT_NEW_ALIGNMENT__); }
void* operator new(size_t size_bytes, std::align_val_t align) { return allocate(size_bytes, size_t(align)); }
void operator delete(void* data) noexcept { release(data); }
void operator delete(void* data, size_t) noexcept { release(data); }
void operator delete(void* data, std::align_val_t) noexcept { release(data); }
void operator delete(void* data, size_t, std::align_val_t) noexcept { release(data); }
