// Checkpoints against kill -9 and against power failures.
#include "train/checkpoint_store.h"
#include "train/checkpoint_test_state.h"
#include "train/test_folder.h"

#include <sys/wait.h>

#include <chrono>
#include <csignal>
#include <functional>
#include <map>
#include <thread>

namespace bitnet {
namespace {

using testing::RunState;
using testing::TemporaryFolder;

constexpr int64_t kLastStep = 120;

// A run whose state at each step follows from that of the step before, as a trainer's does.
struct ToyRun {
  int64_t step = 0;
  std::vector<uint64_t> state = std::vector<uint64_t>(20000, 1);

  void advance() {
    const CounterRng rng(uint64_t(step), 1);
    for (size_t i = 0; i < state.size(); ++i) state[i] = state[i] * 6364136223846793005u + rng.bits(i);
    ++step;
  }
  std::vector<TensorView> tensors() const {
    return {{"state", DType::kU64, {int64_t(state.size())}, std::as_bytes(std::span(state))}};
  }
  Status load(const CheckpointFile& file) {
    step = file.step();
    return file.read("state", DType::kU64, {int64_t(state.size())}, std::as_writable_bytes(std::span(state)));
  }
};

// What the run tells its parent: a save begins, a save is on the disk.
struct Message {
  int64_t step;
  int64_t done;
};

// Runs to the end from the newest checkpoint, saving after every step. Never returns.
[[noreturn]] void run_child(const std::string& folder, int pipe) {
  DiskCalls disk = system_disk_calls();
  ToyRun run;
  disk.create = [&](std::string& path) {
    const Message begins{run.step, 0};
    (void)!::write(pipe, &begins, sizeof begins);
    return system_disk_calls().create(path);
  };
  CheckpointStoreOptions options;
  options.disk = &disk;
  options.n_keep = 2;
  auto store = CheckpointStore::open(folder, options);
  if (!store) ::_exit(10);
  const auto newest = store->load_newest();
  if (!newest || !newest->rejected.empty()) ::_exit(11);
  if (newest->file && !run.load(*newest->file)) ::_exit(12);
  while (run.step < kLastStep) {
    run.advance();
    if (!store->save(run.step, run.tensors(), Json::object())) ::_exit(13);
    if (!store->wait()) ::_exit(14);
    const Message done{run.step, 1};
    (void)!::write(pipe, &done, sizeof done);
  }
  ::_exit(0);
}

struct Killed {
  int64_t last_begun = 0, last_done = 0;
  bool finished = false;
};

// Starts the run and kills it after `delay`, counted from its start or from the start of its n-th save.
Killed run_and_kill(const std::string& folder, int n_saves, std::chrono::microseconds delay) {
  int pipes[2];
  EXPECT_EQ(::pipe(pipes), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::close(pipes[0]);
    run_child(folder, pipes[1]);
  }
  ::close(pipes[1]);
  Killed killed;
  Message message;
  const auto next = [&] {
    if (::read(pipes[0], &message, sizeof message) != ssize_t(sizeof message)) return false;
    (message.done ? killed.last_done : killed.last_begun) = message.step;
    return true;
  };
  for (int n = 0; n < n_saves && next();) n += message.done == 0;
  std::this_thread::sleep_for(delay);
  ::kill(child, SIGKILL);
  int status = 0;
  ::waitpid(child, &status, 0);
  while (next()) {
  }
  ::close(pipes[0]);
  killed.finished = WIFEXITED(status);
  EXPECT_TRUE(!killed.finished || WEXITSTATUS(status) == 0) << status;
  return killed;
}

// K1.
TEST(CheckpointCrash, TwoHundredKillsLoseNothing) {
  ToyRun expected;
  while (expected.step < kLastStep) expected.advance();
  const CounterRng rng(3);
  int n_kills = 0, n_inside = 0, n_runs = 0;
  while (n_kills < 200) {
    TemporaryFolder folder;
    ++n_runs;
    int64_t reported = 0;
    for (bool finished = false; !finished;) {
      const uint64_t random = rng.bits(uint64_t(n_kills) * 7 + uint64_t(n_runs));
      // Half the kills a little after a save began, the others at any time.
      const bool aimed = n_kills % 2 == 0;
      const Killed killed = run_and_kill(folder.path(), aimed ? 1 + int(random % 3) : 0,
                                         std::chrono::microseconds(random / 8 % (aimed ? 1500 : 12000)));
      finished = killed.finished;
      if (!finished) ++n_kills;
      n_inside += killed.last_begun > killed.last_done;
      reported = std::max(reported, killed.last_done);
      const auto newest = newest_checkpoint(folder.path());
      ASSERT_TRUE(newest) << newest.error().message;
      EXPECT_TRUE(newest->rejected.empty());
      if (reported == 0 && !newest->file) continue;  // killed before the first save
      ASSERT_TRUE(newest->file);
      EXPECT_GE(newest->file->step(), reported);
      if (!finished) continue;
      ToyRun final;
      ASSERT_TRUE(final.load(*newest->file));
      EXPECT_EQ(final.step, kLastStep);
      EXPECT_EQ(final.state, expected.state);
    }
  }
  std::printf("%d kills, %d of them inside a save, %d runs to the end\n", n_kills, n_inside, n_runs);
  EXPECT_GE(n_inside, 60);
}

// One call that changes the disk, recorded.
struct DiskCall {
  enum class Kind { kCreate, kWrite, kSync, kRename, kRemove, kSyncDirectory } kind;
  std::string path, to;
  uint64_t offset = 0;
  std::string data;
};

// Makes the calls and writes them down.
class RecordingDisk {
 public:
  RecordingDisk() {
    using Kind = DiskCall::Kind;
    disk.create = [this](std::string& path) {
      const int fd = system_disk_calls().create(path);
      paths_[fd] = path;
      calls.push_back({Kind::kCreate, path, "", 0, ""});
      return fd;
    };
    disk.write = [this](int fd, const void* data, size_t n, uint64_t offset) {
      calls.push_back({Kind::kWrite, paths_[fd], "", offset, std::string(static_cast<const char*>(data), n)});
      return system_disk_calls().write(fd, data, n, offset);
    };
    disk.sync = [this](int fd) {
      calls.push_back({Kind::kSync, paths_[fd], "", 0, ""});
      return 0;
    };
    disk.rename = [this](const std::string& from, const std::string& to) {
      calls.push_back({Kind::kRename, from, to, 0, ""});
      return system_disk_calls().rename(from, to);
    };
    disk.remove = [this](const std::string& path) {
      calls.push_back({Kind::kRemove, path, "", 0, ""});
      return system_disk_calls().remove(path);
    };
    disk.sync_directory = [this](const std::string& path) {
      calls.push_back({Kind::kSyncDirectory, path, "", 0, ""});
      return 0;
    };
  }
  DiskCalls disk;
  std::vector<DiskCall> calls;

 private:
  std::map<int, std::string> paths_;
};

using DiskState = std::map<std::string, std::string>;  // name: contents

// Every state that the disk may be in when the power fails after the first n calls: what was synced is there; of what
// was not, any part, and of the last write any half. `visit` gets each.
void for_each_crash(const DiskState& before, std::span<const DiskCall> calls,
                    const std::function<void(const DiskState&)>& visit) {
  using Kind = DiskCall::Kind;
  // Which calls are certain: writes in front of a sync of their file, names in front of a sync of the directory.
  std::vector<size_t> open_calls;
  for (size_t i = 0; i < calls.size(); ++i) {
    const bool is_name = calls[i].kind == Kind::kRename || calls[i].kind == Kind::kRemove;
    if (calls[i].kind != Kind::kWrite && !is_name) continue;
    bool certain = false;
    for (size_t k = i + 1; k < calls.size(); ++k) {
      certain |= is_name ? calls[k].kind == Kind::kSyncDirectory
                         : calls[k].kind == Kind::kSync && calls[k].path == calls[i].path;
    }
    if (!certain) open_calls.push_back(i);
  }
  ASSERT_LE(open_calls.size(), 12u);
  for (uint32_t subset = 0; subset < uint32_t{1} << open_calls.size(); ++subset) {
    for (const bool torn : {false, true}) {
      DiskState state = before;
      for (size_t i = 0; i < calls.size(); ++i) {
        const auto open = std::find(open_calls.begin(), open_calls.end(), i);
        if (open != open_calls.end() && !(subset >> (open - open_calls.begin()) & 1)) continue;
        const DiskCall& call = calls[i];
        if (call.kind == Kind::kCreate) state[call.path];
        if (call.kind == Kind::kWrite) {
          std::string& file = state[call.path];
          const size_t n = torn && i + 1 == calls.size() ? call.data.size() / 2 : call.data.size();
          file.resize(std::max(file.size(), size_t(call.offset) + n));
          file.replace(size_t(call.offset), n, call.data, 0, n);
        }
        if (call.kind == Kind::kRename) {
          state[call.to] = state[call.path];
          state.erase(call.path);
        }
        if (call.kind == Kind::kRemove) state.erase(call.path);
      }
      visit(state);
    }
  }
}

DiskState read_disk(const std::string& folder) {
  DiskState state;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    state[entry.path().string()] = testing::contents_of(entry.path().string());
  }
  return state;
}

// K3.
TEST(CheckpointCrash, EveryPowerFailureLeavesAValidCheckpoint) {
  constexpr size_t kValues = 700'000;  // three writes and a rest
  TemporaryFolder folder;
  RecordingDisk recording;
  CheckpointStoreOptions options;
  options.n_keep = 2;
  options.disk = &recording.disk;
  DiskState before;
  {
    auto store = CheckpointStore::open(folder.path(), options);
    ASSERT_TRUE(store);
    for (const int64_t step : {1, 2}) ASSERT_TRUE(testing::save(*store, step));
    before = read_disk(folder.path());
    recording.calls.clear();
    ASSERT_TRUE(testing::save(*store, 3, kValues));
  }
  EXPECT_GE(recording.calls.size(), 9u);
  EXPECT_LE(recording.calls.size(), 30u);
  int n_states = 0, n_new = 0;
  const std::span<const DiskCall> calls = recording.calls;
  for (size_t n = 0; n <= calls.size(); ++n) {
    for_each_crash(before, calls.first(n), [&](const DiskState& state) {
      ++n_states;
      TemporaryFolder crashed;
      for (const auto& [path, contents] : state) {
        crashed.write(std::filesystem::path(path).filename().string(), contents);
      }
      const auto newest = newest_checkpoint(crashed.path());
      ASSERT_TRUE(newest && newest->file) << n << " calls";
      EXPECT_TRUE(newest->rejected.empty()) << n << " calls: a file under its name is complete";
      const int64_t step = newest->file->step();
      EXPECT_GE(step, n == calls.size() ? 3 : 2);
      RunState(step, step == 3 ? kValues : 300).expect_in(*newest->file);
      n_new += step == 3;
    });
  }
  std::printf("%zu calls, %d states of the disk, %d of them with the new checkpoint\n", calls.size(), n_states, n_new);
  EXPECT_GT(n_new, 0);
  EXPECT_LT(n_new, n_states);
}

}  // namespace
}  // namespace bitnet
