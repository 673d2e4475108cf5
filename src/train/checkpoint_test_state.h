#pragma once

#include "base/rng.h"
#include "train/checkpoint_store.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

// Small states of a pretended run, and a disk whose calls fail on demand.
namespace bitnet::testing {

// What a run would hold at a step, all of it a function of the step.
struct RunState {
  explicit RunState(int64_t in_step, size_t n_values = 300) : step(in_step) {
    const CounterRng rng(1, uint64_t(step));
    for (size_t i = 0; i < n_values; ++i) weights.push_back(float(rng.normal(i)));
    for (size_t i = 0; i < 33; ++i) moments.push_back(uint8_t(rng.bits(i)));
    for (size_t i = 0; i < 7; ++i) halves.push_back(uint16_t(rng.bits(i + 50)));
  }
  std::vector<TensorView> tensors() const {
    return {{"moments", DType::kU8, {3, 11}, std::as_bytes(std::span(moments))},
            {"weights", DType::kF32, {int64_t(weights.size())}, std::as_bytes(std::span(weights))},
            {"halves", DType::kBF16, {7}, std::as_bytes(std::span(halves))}};
  }
  Json state() const { return {{"step", step}, {"data_index", step * 64}, {"note", "\u00e4 \"quoted\""}}; }

  void expect_in(const CheckpointFile& file) const {
    EXPECT_EQ(file.step(), step);
    EXPECT_EQ(file.state(), state());
    EXPECT_EQ(file.tensors().size(), 3u);
    for (const TensorView& tensor : tensors()) {
      std::vector<std::byte> bytes(tensor.bytes.size());
      const Status read = file.read(tensor.name, tensor.dtype, tensor.shape, bytes);
      ASSERT_TRUE(read) << read.error().message;
      EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), tensor.bytes.begin())) << tensor.name;
    }
  }

  int64_t step;
  std::vector<float> weights;
  std::vector<uint8_t> moments;
  std::vector<uint16_t> halves;
};

inline Status save(CheckpointStore& store, int64_t step, size_t n_values = 300) {
  const RunState state(step, n_values);
  BN_RETURN_IF_ERROR(store.save(step, state.tensors(), state.state()));
  return store.wait();
}

// The system's calls, of which number `fail_at` and `n_failing - 1` more fail with `error`; a failing write first puts
// half of its bytes on the disk, as a full one does.
class FailingDisk {
 public:
  FailingDisk() {
    const auto fails = [this](const char* kind) {
      calls.emplace_back(kind);
      const int n = int(calls.size()) - 1;
      if (n < fail_at || n >= fail_at + n_failing) return false;
      errno = error;
      return true;
    };
    disk.create = [fails](std::string& path) { return fails("create") ? -1 : system_disk_calls().create(path); };
    disk.write = [fails, this](int fd, const void* data, size_t n, uint64_t offset) -> int64_t {
      if (!fails("write")) return system_disk_calls().write(fd, data, n, offset);
      (void)system_disk_calls().write(fd, data, n / 2, offset);
      errno = error;
      return -1;
    };
    disk.sync = [fails](int fd) { return fails("sync") ? -1 : system_disk_calls().sync(fd); };
    disk.rename = [fails](const std::string& from, const std::string& to) {
      return fails("rename") ? -1 : system_disk_calls().rename(from, to);
    };
    disk.remove = [fails](const std::string& path) { return fails("remove") ? -1 : system_disk_calls().remove(path); };
    disk.sync_directory = [fails](const std::string& path) {
      return fails("sync_directory") ? -1 : system_disk_calls().sync_directory(path);
    };
  }
  FailingDisk(const FailingDisk&) = delete;
  FailingDisk& operator=(const FailingDisk&) = delete;

  DiskCalls disk;
  std::vector<std::string> calls;
  int fail_at = 1 << 30;
  int n_failing = 1;
  int error = ENOSPC;
};

}  // namespace bitnet::testing
