#include "memory/buffer.h"
#include "memory/pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace bitnet {
namespace {

const SiteUse* find_site(const PoolReport& report, const std::string& part) {
  const auto found = std::find_if(report.sites.begin(), report.sites.end(),
                                  [&](const SiteUse& use) { return use.site.find(part) != std::string::npos; });
  return found == report.sites.end() ? nullptr : &*found;
}

TEST(Tracking, FullKnowsEveryLiveBlockAndItsSite) {
  Pool pool;
  void* const before = pool.allocate(64);
  pool.set_tracking(Tracking::kFull);
  const int line = __LINE__ + 1;
  std::byte* const first = pool.allocate_zeroed(1000, true);
  std::byte* const second = pool.allocate_zeroed(size_t{1} << 20, true);
  const PoolReport report = pool.report();
  ASSERT_EQ(report.sites.size(), 2u);
  EXPECT_EQ(report.sites[0].size_bytes, size_t{1} << 20) << "the largest first";
  EXPECT_EQ(report.sites[1].site, "src/memory/tracker_test.cc:" + std::to_string(line));
  EXPECT_EQ(report.sites[1].size_bytes, 1000u);
  EXPECT_EQ(report.sites[1].n_blocks, 1u);
  EXPECT_NE(describe(report).find("tracker_test.cc:" + std::to_string(line)), std::string::npos);

  pool.release(first, 1000);
  pool.release(before, 64);
  EXPECT_EQ(pool.report().sites.size(), 1u) << "what is left would be a leak";
  pool.set_tracking(Tracking::kOff);
  pool.release(second, size_t{1} << 20);
  EXPECT_TRUE(pool.report().sites.empty()) << "notes go with their blocks at any level";
}

TEST(Tracking, AnAddressStandsForTheSiteWhereNoLineIsKnown) {
  Pool pool;
  pool.set_tracking(Tracking::kFull);
  void* const data = pool.allocate(10);
  ASSERT_EQ(pool.report().sites.size(), 1u);
  EXPECT_NE(pool.report().sites[0].site.find("memory_test+0x"), std::string::npos) << pool.report().sites[0].site;
  pool.release(data, 10);
}

TEST(Tracking, SamplesEstimateTheWhole) {
  Pool pool;
  pool.set_tracking(Tracking::kSampled);
  constexpr size_t kBlocks = 200000, kSize_bytes = 200;
  std::vector<std::byte*> blocks;
  for (size_t i = 0; i < kBlocks; ++i) blocks.push_back(static_cast<std::byte*>(pool.allocate(kSize_bytes)));
  const PoolReport report = pool.report();
  uint64_t n_bytes = 0, n_blocks = 0;
  for (const SiteUse& use : report.sites) {
    n_bytes += use.size_bytes;
    n_blocks += use.n_blocks;
  }
  EXPECT_NEAR(double(n_bytes), double(kBlocks * kSize_bytes), 0.03 * double(kBlocks * kSize_bytes));
  EXPECT_NEAR(double(n_blocks), double(kBlocks), 0.03 * double(kBlocks));
  for (std::byte* const block : blocks) pool.release(block, kSize_bytes);
  EXPECT_TRUE(pool.report().sites.empty());
}

TEST(Tracking, BuffersNameTheLineThatWantedThem) {
  host_pool().set_tracking(Tracking::kFull);
  const int line = __LINE__ + 1;
  const Buffer buffer = *Buffer::allocate(12345);
  host_pool().set_tracking(Tracking::kOff);
  const PoolReport report = host_pool().report();
  const SiteUse* const use = find_site(report, "tracker_test.cc:" + std::to_string(line));
  ASSERT_NE(use, nullptr);
  EXPECT_GE(use->size_bytes, 12345u);
}

std::vector<PoolEvent> events;
TEST(Tracking, AnObserverSeesEverything) {
  Pool pool;
  events.clear();
  pool.set_observer([](const PoolEvent& event) { events.push_back(event); });
  void* const small = pool.allocate(24);
  void* const large = pool.allocate(size_t{1} << 20);
  pool.release(small, 24);
  pool.set_observer(nullptr);
  pool.release(large, size_t{1} << 20);
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(events[0].data, small);
  EXPECT_EQ(events[0].size_bytes, 24u);
  EXPECT_EQ(events[1].size_bytes, size_t{1} << 20);
  EXPECT_TRUE(events[2].released && events[2].data == small);
  EXPECT_TRUE(pool.report().sites.empty());
}

}  // namespace
}  // namespace bitnet
