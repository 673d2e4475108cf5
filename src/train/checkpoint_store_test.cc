#include "train/checkpoint_store.h"

#include "train/checkpoint_test_state.h"
#include "train/test_folder.h"

#include <sys/resource.h>
#include <sys/wait.h>

#include <algorithm>
#include <condition_variable>
#include <csignal>
#include <mutex>
#include <numeric>

namespace bitnet {
namespace {

using testing::contents_of;
using testing::expect_error;
using testing::FailingDisk;
using testing::RunState;
using testing::save;
using testing::TemporaryFolder;

CheckpointStore open_store(const std::string& folder, const CheckpointStoreOptions& options = {}) {
  auto store = CheckpointStore::open(folder, options);
  EXPECT_TRUE(store) << store.error().message;
  return *std::move(store);
}

std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().filename() != "lock") names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

void expect_newest(const std::string& folder, int64_t step, size_t n_rejected = 0, size_t n_values = 300) {
  const auto newest = newest_checkpoint(folder);
  ASSERT_TRUE(newest) << newest.error().message;
  ASSERT_TRUE(newest->file);
  RunState(step, n_values).expect_in(*newest->file);
  EXPECT_EQ(newest->rejected.size(), n_rejected);
}

TEST(CheckpointName, GoesBothWays) {
  EXPECT_EQ(checkpoint_name(1000), "step-000000001000.safetensors");
  EXPECT_EQ(checkpoint_step("step-000000001000.safetensors"), 1000);
  for (const char* name :
       {"step-1000.safetensors", "step-000000001000.safetensors.tmp-ab", "step--00000000001.safetensors",
        "model.safetensors", "step-00000000100x.safetensors", "lock", ""}) {
    EXPECT_FALSE(checkpoint_step(name)) << name;
  }
}

TEST(CheckpointStore, GivesBackWhatWasSaved) {
  TemporaryFolder folder;
  CheckpointStore store = open_store(folder.file("run/checkpoints"));
  const auto none = store.load_newest();
  ASSERT_TRUE(none) << none.error().message;
  EXPECT_FALSE(none->file);
  for (const int64_t step : {0, 5, 10}) ASSERT_TRUE(save(store, step));
  const auto newest = store.load_newest();
  ASSERT_TRUE(newest && newest->file);
  RunState(10).expect_in(*newest->file);
  EXPECT_TRUE(newest->rejected.empty());
  std::vector<std::byte> bytes(4 * 300);
  expect_error(newest->file->read("weights", DType::kF16, {300}, bytes), ErrorCode::kInvalidInput,
               "expected F16 [300]");
  expect_error(newest->file->read("weights", DType::kF32, {30, 10}, bytes), ErrorCode::kInvalidInput, "[30, 10]");
  expect_error(newest->file->read("wights", DType::kF32, {300}, bytes), ErrorCode::kInvalidInput, "\"wights\"");
  expect_error(store.save(-1, {}, Json::object()), ErrorCode::kInvalidArgument, "negative");
}

TEST(CheckpointStore, IsAReadableSafetensorsFile) {
  TemporaryFolder folder;
  CheckpointStore store = open_store(folder.path());
  ASSERT_TRUE(save(store, 7));
  const auto file = SafetensorsFile::open(folder.file(checkpoint_name(7)));
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(file->tensors().size(), 4u);
  EXPECT_EQ(file->metadata().at("step"), "7");
}

TEST(CheckpointStore, KeepsTheNewestOnesOnly) {
  TemporaryFolder folder;
  CheckpointStoreOptions options;
  options.n_keep = 2;
  CheckpointStore store = open_store(folder.path(), options);
  for (int64_t step = 1; step <= 5; ++step) ASSERT_TRUE(save(store, step));
  EXPECT_EQ(names_in(folder.path()), (std::vector<std::string>{checkpoint_name(4), checkpoint_name(5)}));
  options.n_keep = 1;
  expect_error(CheckpointStore::open(folder.file("x"), options), ErrorCode::kInvalidArgument, "at least 2");
}

TEST(CheckpointStore, DamagedOnesDoNotCountAsKept) {
  TemporaryFolder folder;
  CheckpointStoreOptions options;
  options.n_keep = 2;
  {
    CheckpointStore store = open_store(folder.path(), options);
    for (int64_t step = 1; step <= 2; ++step) ASSERT_TRUE(save(store, step));
  }
  std::filesystem::resize_file(folder.file(checkpoint_name(2)), 100);
  CheckpointStore store = open_store(folder.path(), options);
  const auto newest = store.load_newest();
  ASSERT_TRUE(newest && newest->file);
  EXPECT_EQ(newest->file->step(), 1);
  ASSERT_EQ(newest->rejected.size(), 1u);
  EXPECT_NE(newest->rejected[0].find(checkpoint_name(2)), std::string::npos);
  ASSERT_TRUE(save(store, 3));  // 1 and 3 are valid
  EXPECT_EQ(names_in(folder.path()).size(), 3u);
  ASSERT_TRUE(save(store, 4));
  EXPECT_EQ(names_in(folder.path()), (std::vector<std::string>{checkpoint_name(3), checkpoint_name(4)}));
}

TEST(CheckpointStore, WritesWhileTheCallerGoesOn) {
  TemporaryFolder folder;
  std::mutex mutex;
  std::condition_variable changed;
  bool may_sync = false;
  DiskCalls disk = system_disk_calls();
  disk.sync = [&](int fd) {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return may_sync; });
    return system_disk_calls().sync(fd);
  };
  CheckpointStoreOptions options;
  options.disk = &disk;
  CheckpointStore store = open_store(folder.path(), options);
  RunState state(3);
  ASSERT_TRUE(store.save(3, state.tensors(), state.state()));
  EXPECT_TRUE(list_checkpoints(folder.path())->empty());
  std::fill(state.weights.begin(), state.weights.end(), -1.0f);  // the caller's buffers are its own again
  {
    const std::scoped_lock lock(mutex);
    may_sync = true;
  }
  changed.notify_all();
  ASSERT_TRUE(store.wait());
  expect_newest(folder.path(), 3);
}

TEST(CheckpointStore, OneProcessAtATime) {
  TemporaryFolder folder;
  {
    const CheckpointStore store = open_store(folder.path());
    expect_error(CheckpointStore::open(folder.path()), ErrorCode::kResource, "another process");
  }
  open_store(folder.path());
}

TEST(CheckpointStore, ForgetsWhatWasNeverFinished) {
  TemporaryFolder folder;
  const std::string unfinished = folder.write(checkpoint_name(5) + ".tmp-Ab12xy", "half");
  const std::string other = folder.write("notes.tmp-Ab12xy", "the user's own");
  open_store(folder.path());
  EXPECT_FALSE(std::filesystem::exists(unfinished));
  EXPECT_TRUE(std::filesystem::exists(other));
}

// K5.
TEST(CheckpointFile, EveryDamagedByteIsNoticed) {
  TemporaryFolder folder;
  CheckpointStore store = open_store(folder.path());
  ASSERT_TRUE(save(store, 1));
  const std::string good = contents_of(folder.file(checkpoint_name(1)));
  const auto is_accepted = [](const std::string& bytes) {
    return bool(CheckpointFile::parse(std::as_bytes(std::span(bytes)), "checkpoint"));
  };
  ASSERT_TRUE(is_accepted(good));
  for (size_t i = 0; i < good.size(); ++i) {  // the header and all the rest
    for (const int change : {0x01, 0x20, 0xff}) {
      std::string bad = good;
      bad[i] = char(bad[i] ^ change);
      ASSERT_FALSE(is_accepted(bad)) << "byte " << i;
    }
  }
  const CounterRng rng(5);
  for (uint64_t i = 0; i < 10000; ++i) {
    std::string bad = good;
    const uint64_t bit = rng.bits(i) % (8 * bad.size());
    bad[bit / 8] = char(bad[bit / 8] ^ (1 << bit % 8));
    ASSERT_FALSE(is_accepted(bad)) << "bit " << bit;
  }
  for (size_t size = 0; size < good.size(); ++size) ASSERT_FALSE(is_accepted(good.substr(0, size))) << size;
  ASSERT_FALSE(is_accepted(good + '\0'));
}

TEST(CheckpointFile, MixedAndRenamedFilesAreNoticed) {
  TemporaryFolder folder;
  CheckpointStore store = open_store(folder.path());
  ASSERT_TRUE(save(store, 2));
  ASSERT_TRUE(save(store, 3));
  const std::string a = contents_of(folder.file(checkpoint_name(2))), b = contents_of(folder.file(checkpoint_name(3)));
  ASSERT_EQ(a.size(), b.size());
  for (size_t cut = 1; cut < a.size(); cut += 13) {
    const std::string mixed = a.substr(0, cut) + b.substr(cut);
    if (mixed != a && mixed != b) {
      EXPECT_FALSE(CheckpointFile::parse(std::as_bytes(std::span(mixed)), "mixed")) << cut;
    }
  }
  std::filesystem::rename(folder.file(checkpoint_name(2)), folder.file(checkpoint_name(4)));
  expect_newest(folder.path(), 3, 1);
}

TEST(CheckpointStore, FallsBackToTheNewestValidOne) {
  TemporaryFolder folder;
  CheckpointStore store = open_store(folder.path());
  for (const int64_t step : {1, 2, 3}) ASSERT_TRUE(save(store, step));
  const std::string good = contents_of(folder.file(checkpoint_name(3)));
  const CounterRng rng(9);
  for (uint64_t i = 0; i < 50; ++i) {
    std::string bad = good;
    bad[rng.bits(i) % bad.size()] ^= 0x10;
    folder.write(checkpoint_name(3), bad);
    expect_newest(folder.path(), 2, 1);
  }
  folder.write(checkpoint_name(3), "");
  folder.write(checkpoint_name(2), good.substr(0, 100));
  expect_newest(folder.path(), 1, 2);
  folder.write(checkpoint_name(1), "x");
  expect_error(store.load_newest(), ErrorCode::kInvalidInput, "none of its 3 checkpoints is valid");
}

// K4: each call of a save fails once, and all from there on.
class DiskFailure : public ::testing::TestWithParam<int> {};

TEST_P(DiskFailure, LeavesTheCheckpointsBefore) {
  constexpr size_t kValues = 800'000;  // several writes
  for (const int n_failing : {1, 1 << 20}) {
    for (int fail_at = 0;; ++fail_at) {
      TemporaryFolder folder;
      FailingDisk failing;
      CheckpointStoreOptions options;
      options.n_keep = 2;
      options.disk = &failing.disk;
      CheckpointStore store = open_store(folder.path(), options);
      ASSERT_TRUE(save(store, 1));
      ASSERT_TRUE(save(store, 2));
      failing.calls.clear();
      failing.error = GetParam();
      failing.n_failing = n_failing;
      failing.fail_at = fail_at;
      const RunState state(3, kValues);
      ASSERT_TRUE(store.save(3, state.tensors(), state.state()));
      const Status written = store.wait();
      const bool reached = int(failing.calls.size()) > fail_at;
      EXPECT_EQ(bool(written), !reached) << "call " << fail_at;
      if (!reached) {
        EXPECT_GE(fail_at, 8) << "create, 4 writes, sync, rename, 2 syncs of the directory, remove";
        break;
      }
      expect_error(written, ErrorCode::kResource, std::strerror(GetParam()));
      const auto newest = newest_checkpoint(folder.path());
      ASSERT_TRUE(newest && newest->file) << "call " << fail_at;
      EXPECT_TRUE(newest->rejected.empty()) << "call " << fail_at;
      EXPECT_GE(newest->file->step(), 2);
      RunState(newest->file->step(), newest->file->step() == 3 ? kValues : 300).expect_in(*newest->file);
      // The disk works again: training goes on, and nothing unfinished stays.
      failing.n_failing = 0;
      ASSERT_TRUE(save(store, 4));
      ASSERT_TRUE(save(store, 5));
      expect_newest(folder.path(), 5);
      EXPECT_TRUE(n_failing > 1 || names_in(folder.path()).size() == 2) << "call " << fail_at;
    }
  }
}
INSTANTIATE_TEST_SUITE_P(Errors, DiskFailure, ::testing::Values(ENOSPC, EIO));

TEST(CheckpointStore, TheErrorOfAWriteComesAtTheNextCall) {
  TemporaryFolder folder;
  FailingDisk failing;
  CheckpointStoreOptions options;
  options.disk = &failing.disk;
  CheckpointStore store = open_store(folder.path(), options);
  failing.fail_at = 1;
  const RunState one(1), two(2);
  ASSERT_TRUE(store.save(1, one.tensors(), one.state()));
  expect_error(store.save(2, two.tensors(), two.state()), ErrorCode::kResource, "No space left");
  ASSERT_TRUE(store.save(2, two.tensors(), two.state()));
  ASSERT_TRUE(store.wait());
  expect_newest(folder.path(), 2);
}

// The kernel's own refusal: a file may not grow beyond a limit.
TEST(CheckpointStore, AFileSizeLimitIsAnError) {
  TemporaryFolder folder;
  const pid_t child = ::fork();
  if (child == 0) {
    CheckpointStore store = open_store(folder.path());
    if (!save(store, 1)) ::_exit(1);
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{100'000, 100'000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    if (save(store, 2, 100'000)) ::_exit(2);
    ::_exit(save(store, 3) ? 0 : 3);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  expect_newest(folder.path(), 3);
  EXPECT_EQ(names_in(folder.path()).size(), 2u);
}

}  // namespace
}  // namespace bitnet
