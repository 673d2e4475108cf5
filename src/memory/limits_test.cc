#include "memory/limits.h"
#include "memory/pressure.h"
#include "memory/profile.h"

#include <gtest/gtest.h>

#include <unistd.h>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace bitnet {
namespace {

namespace fs = std::filesystem;
constexpr uint64_t kGiB = uint64_t{1} << 30;

// A root directory of our own with some files of /proc and /sys.
class FakeRoot : public testing::Test {
 protected:
  FakeRoot() : root_(testing::TempDir() + "bitnet-root-" + std::to_string(::getpid())) {
    write("/proc/meminfo", "MemTotal:       16777216 kB\nMemFree:  1 kB\nMemAvailable:   12582912 kB\n");
  }
  ~FakeRoot() override { fs::remove_all(root_); }
  void write(const std::string& path, const std::string& text) {
    fs::create_directories(fs::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << text;
  }
  void group_v2(const std::string& folder, const std::string& max, uint64_t current, uint64_t inactive_file) {
    write(folder + "/memory.max", max + "\n");
    write(folder + "/memory.current", std::to_string(current) + "\n");
    write(folder + "/memory.stat", "anon 5\ninactive_anon 7\ninactive_file " + std::to_string(inactive_file) + "\n");
  }
  std::string root_;
};

TEST_F(FakeRoot, WithoutAGroupTheMachineIsTheLimit) {
  const MemoryLimits limits = read_memory_limits(root_);
  EXPECT_EQ(limits.limit_bytes, 16 * kGiB);
  EXPECT_EQ(limits.available_bytes, 12 * kGiB);
  EXPECT_EQ(limits.used_bytes, 4 * kGiB);
  EXPECT_EQ(limits.stall_percent, -1);
}

TEST_F(FakeRoot, Version2TakesTheTightestOfTheGroupsAround) {
  write("/proc/self/cgroup", "0::/pod/app\n");
  group_v2("/sys/fs/cgroup/pod/app", "max", kGiB, 0);
  group_v2("/sys/fs/cgroup/pod", std::to_string(4 * kGiB), 3 * kGiB, kGiB);
  write("/sys/fs/cgroup/pod/app/memory.events", "low 0\nhigh 3\nmax 2\noom 1\noom_kill 5\n");
  write("/sys/fs/cgroup/pod/app/memory.pressure", "some avg10=12.50 avg60=1.00 avg300=0.10 total=9\nfull avg10=0.00\n");
  const MemoryLimits limits = read_memory_limits(root_);
  EXPECT_EQ(limits.limit_bytes, 4 * kGiB);
  EXPECT_EQ(limits.used_bytes, 2 * kGiB) << "file pages nobody used lately do not count";
  EXPECT_EQ(limits.available_bytes, 2 * kGiB);
  EXPECT_EQ(limits.n_oom_kills, 5u);
  EXPECT_EQ(limits.stall_percent, 12.5);
}

TEST_F(FakeRoot, Version2SlowsDownAtHigh) {
  write("/proc/self/cgroup", "0::/\n");
  group_v2("/sys/fs/cgroup", std::to_string(4 * kGiB), kGiB, 0);
  write("/sys/fs/cgroup/memory.high", std::to_string(2 * kGiB) + "\n");
  EXPECT_EQ(read_memory_limits(root_).limit_bytes, 2 * kGiB);
}

TEST_F(FakeRoot, Version1IsKnownToo) {
  write("/proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/docker/abc\n0::/\n");
  const std::string folder = "/sys/fs/cgroup/memory/docker/abc";
  write(folder + "/memory.limit_in_bytes", std::to_string(kGiB) + "\n");
  write(folder + "/memory.usage_in_bytes", std::to_string(kGiB / 2) + "\n");
  write(folder + "/memory.stat", "inactive_file 7\ntotal_inactive_file " + std::to_string(kGiB / 4) + "\n");
  write(folder + "/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n");
  write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  write("/sys/fs/cgroup/memory/memory.usage_in_bytes", "1000\n");
  const MemoryLimits limits = read_memory_limits(root_);
  EXPECT_EQ(limits.limit_bytes, kGiB);
  EXPECT_EQ(limits.used_bytes, kGiB / 4);
  EXPECT_EQ(limits.available_bytes, kGiB * 3 / 4);
  EXPECT_EQ(limits.n_oom_kills, 2u);
}

TEST_F(FakeRoot, AContainerSeesItsGroupAsTheRoot) {
  write("/proc/self/cgroup", "0::/a/path/of/the/host\n");
  group_v2("/sys/fs/cgroup", std::to_string(kGiB), 0, 0);
  EXPECT_EQ(read_memory_limits(root_).limit_bytes, kGiB);
}

TEST_F(FakeRoot, GarbageIsNoLimit) {
  write("/proc/self/cgroup", "no colons\n::\n0::/x\n");
  write("/sys/fs/cgroup/x/memory.max", "many\n");
  write("/sys/fs/cgroup/x/memory.current", "\n");
  write("/proc/pressure/memory", "some avg10=\n");
  EXPECT_EQ(read_memory_limits(root_).limit_bytes, 16 * kGiB);
  EXPECT_EQ(read_memory_limits(root_ + "/nowhere").limit_bytes, 0u);
}

TEST_F(FakeRoot, ThePressureIsToldWhenItChanges) {
  write("/proc/self/cgroup", "0::/\n");
  std::vector<Pressure> told;
  PressureMonitor monitor([&](Pressure pressure, const MemoryLimits&) { told.push_back(pressure); }, root_);
  for (const uint64_t percent : {10, 50, 81, 85, 92, 99, 40}) {
    group_v2("/sys/fs/cgroup", std::to_string(100 * kGiB / 10), percent * kGiB / 10, 0);
    (void)monitor.look();
  }
  write("/sys/fs/cgroup/memory.pressure", "some avg10=41.00\n");
  EXPECT_EQ(monitor.look(), Pressure::kCritical);
  EXPECT_EQ(told, (std::vector{Pressure::kModerate, Pressure::kHigh, Pressure::kCritical, Pressure::kNone,
                               Pressure::kCritical}));
  EXPECT_STREQ(pressure_name(told[1]), "high");
}

TEST(MemoryLimits, ThisMachineHasSome) {
  const MemoryLimits limits = read_memory_limits();
  EXPECT_GT(limits.limit_bytes, uint64_t{1} << 24);
  EXPECT_LE(limits.available_bytes, limits.limit_bytes);
}

TEST(Profile, ASmallLimitMakesSmallCaches) {
  MemoryLimits limits;
  limits.limit_bytes = kGiB;
  EXPECT_EQ(fitting_profile(Profile::kTraining, limits), Profile::kSmall);
  EXPECT_EQ(pool_options(Profile::kSmall, limits).kept_bytes, 0u);
  limits.limit_bytes = 4 * kGiB;
  EXPECT_EQ(fitting_profile(Profile::kTraining, limits), Profile::kTraining);
  EXPECT_EQ(pool_options(Profile::kTraining, limits).kept_bytes, kGiB / 4);
  EXPECT_LT(pool_options(Profile::kServer, limits).kept_bytes, kGiB / 4);
  EXPECT_STREQ(profile_name(Profile::kServer), "server");
}

TEST(Profile, ATraceSaysWhatIsWorthKeeping) {
  MemoryLimits limits;
  limits.limit_bytes = 64 * kGiB;
  AllocationTrace trace;
  for (int step = 0; step < 100; ++step) {  // three blocks of 8 MiB again and again
    const uint32_t first = trace.n_blocks;
    for (int i = 0; i < 3; ++i) trace.allocate(uint64_t{8} << 20);
    for (uint32_t i = 0; i < 3; ++i) trace.release(first + i);
  }
  const PoolOptions options = adapt_options(trace, limits);
  EXPECT_GE(options.kept_bytes, uint64_t{24} << 20);
  EXPECT_LE(options.kept_bytes, uint64_t{32} << 20);
  EXPECT_EQ(trace_cost(trace, options).n_maps, 3u);
  EXPECT_EQ(trace_cost(trace, {options.thread_cache_bytes, 0, 0, false}).n_maps, 300u);

  AllocationTrace once;  // nothing comes back
  for (int i = 0; i < 100; ++i) once.allocate(uint64_t{1} << 20);
  EXPECT_EQ(adapt_options(once, limits).kept_bytes, 0u);
  EXPECT_EQ(adapt_options(once, limits).thread_cache_bytes, 4096u);
}

}  // namespace
}  // namespace bitnet
