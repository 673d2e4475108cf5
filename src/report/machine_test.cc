#include "report/energy.h"
#include "report/machine_facts.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace bitnet {
namespace {

// A tree of files that goes away with the test.
class FakeRoot {
 public:
  FakeRoot() {
    std::string path = (std::filesystem::temp_directory_path() / "bitnet-report-XXXXXX").string();
    path_ = ::mkdtemp(path.data());
  }
  ~FakeRoot() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }
  void write(const std::string& name, const std::string& text) const {
    const std::filesystem::path path = std::filesystem::path(path_) / name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << text << "\n";
  }
  void zone(const std::string& folder, const std::string& name, const std::string& energy_uj) const {
    write(folder + "/name", name);
    write(folder + "/energy_uj", energy_uj);
    write(folder + "/max_energy_range_uj", "262143328850");
  }

 private:
  std::string path_;
};

TEST(EnergyMeter, AddsPackagesAndMemory) {
  const FakeRoot root;
  root.zone("intel-rapl:0", "package-0", "1000000");
  root.zone("intel-rapl:0:0", "core", "400000");  // inside the package
  root.zone("intel-rapl:0:1", "dram", "50000");   // beside it
  root.zone("intel-rapl:1", "psys", "9000000");   // all of it
  root.zone("dtpm:0", "package-7", "5");          // another interface to the same
  const EnergyMeter meter(root.path());
  EXPECT_EQ(meter.why_not(), "");
  EXPECT_EQ(meter.zones(), (std::vector<std::string>{"package-0", "dram"}));
  const auto start = meter.read();
  ASSERT_TRUE(start);
  root.zone("intel-rapl:0", "package-0", "3500000");
  root.zone("intel-rapl:0:0", "core", "900000");
  root.zone("intel-rapl:0:1", "dram", "150000");
  EXPECT_DOUBLE_EQ(meter.joules_since(*start).value(), 2.6);
}

TEST(EnergyMeter, CountsThroughTheEndOfACounter) {
  const FakeRoot root;
  root.zone("intel-rapl:0", "package-0", "262143000000");
  const EnergyMeter meter(root.path());
  const auto start = meter.read();
  ASSERT_TRUE(start);
  root.zone("intel-rapl:0", "package-0", "671150");
  EXPECT_DOUBLE_EQ(meter.joules_since(*start).value(), 1.0);
}

TEST(EnergyMeter, SaysWhyItKnowsNothing) {
  const FakeRoot root;
  EXPECT_EQ(EnergyMeter(root.path()).why_not(), "not told by this machine");
  EXPECT_EQ(EnergyMeter(root.path() + "/absent").why_not(), "not told by this machine");
  root.write("intel-rapl:0/name", "package-0");  // and no counter that could be read
  const EnergyMeter meter(root.path());
  EXPECT_NE(meter.why_not().find("may not be read"), std::string::npos);
  EXPECT_FALSE(meter.read());
  EXPECT_FALSE(meter.joules_since({}));
  root.zone("intel-rapl:0", "package-0", "no number");
  EXPECT_FALSE(EnergyMeter(root.path()).read());
}

TEST(MachineFacts, OfAServer) {
  const FakeRoot root;
  std::string cpuinfo;
  for (int i = 0; i < 4; ++i) {
    cpuinfo += "processor\t: " + std::to_string(i) +
               "\nmodel name\t: Fast CPU @ 3 GHz: new\nphysical id\t: 0\ncore id\t\t: " + std::to_string(i / 2) +
               "\nflags\t\t: fpu avx2 hypervisor lahf_lm\npower management:\n\n";
  }
  root.write("proc/cpuinfo", cpuinfo);
  root.write("proc/meminfo", "MemTotal:       24654321 kB\nMemFree: 1 kB");
  root.write("proc/loadavg", "1.33 1.39 1.85 2/300 4711");
  root.write("proc/sys/kernel/ostype", "Linux");
  root.write("proc/sys/kernel/osrelease", "6.1.0-18-amd64");
  const std::string cpu0 = "sys/devices/system/cpu/cpu0/";
  root.write(cpu0 + "cpufreq/scaling_governor", "performance");
  root.write(cpu0 + "cache/index0/level", "1");
  root.write(cpu0 + "cache/index0/type", "Data");
  root.write(cpu0 + "cache/index0/size", "48K");
  root.write(cpu0 + "cache/index0/shared_cpu_list", "0-1");
  root.write(cpu0 + "cache/index1/level", "3");
  root.write(cpu0 + "cache/index1/type", "Unified");
  root.write(cpu0 + "cache/index1/size", "260M");
  const MachineFacts facts = read_machine_facts(root.path());
  EXPECT_EQ(facts.cpu, "Fast CPU @ 3 GHz: new");
  EXPECT_EQ(facts.n_processors, 4);
  EXPECT_EQ(facts.n_cores, 2);
  EXPECT_TRUE(facts.virtual_machine);
  EXPECT_EQ(facts.memory_bytes, uint64_t{24654321} << 10);
  EXPECT_EQ(facts.kernel, "Linux 6.1.0-18-amd64");
  EXPECT_EQ(facts.governor, "performance");
  EXPECT_EQ(facts.load, "1.33");
  ASSERT_EQ(facts.caches.size(), 2u);
  EXPECT_EQ(facts.caches[0].size_bytes, 48u << 10);
  EXPECT_EQ(facts.caches[0].shared_by, "0-1");
  EXPECT_EQ(facts.caches[1].level, 3);
  EXPECT_EQ(facts.caches[1].size_bytes, 260u << 20);
}

TEST(MachineFacts, OfArmAndOfNothing) {
  const FakeRoot root;
  root.write("proc/cpuinfo", "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd40\n");
  const MachineFacts arm = read_machine_facts(root.path());
  EXPECT_EQ(arm.cpu, "ARM, implementer 0x41, part 0xd40");
  EXPECT_EQ(arm.n_cores, 1);
  EXPECT_FALSE(arm.virtual_machine);
  const MachineFacts nothing = read_machine_facts(root.path() + "/absent");
  EXPECT_EQ(nothing.cpu, "");
  EXPECT_EQ(nothing.n_processors, 0);
  EXPECT_EQ(nothing.memory_bytes, 0u);
}

}  // namespace
}  // namespace bitnet
