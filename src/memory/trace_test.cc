#include "memory/trace.h"

#include "base/rng.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace bitnet {
namespace {

AllocationTrace random_trace(uint64_t seed) {
  const CounterRng rng(seed);
  AllocationTrace trace;
  std::vector<uint32_t> live;
  for (uint64_t i = 0; i < 1000; ++i) {
    const uint64_t bits = rng.bits(i);
    if (live.empty() || bits % 2 == 0) {
      live.push_back(trace.n_blocks);
      trace.allocate((bits >> 8) % (uint64_t{1} << (bits >> 4) % 40));
    } else {
      const size_t at = (bits >> 8) % live.size();
      trace.release(live[at]);
      live.erase(live.begin() + ptrdiff_t(at));
    }
  }
  return trace;
}

TEST(AllocationTrace, ComesBackAsItWas) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const AllocationTrace trace = random_trace(seed);
    const auto decoded = decode_trace(encode(trace), "t");
    ASSERT_TRUE(decoded) << decoded.error().message;
    EXPECT_EQ(decoded->n_blocks, trace.n_blocks);
    ASSERT_EQ(decoded->events.size(), trace.events.size());
    for (size_t i = 0; i < trace.events.size(); ++i) {
      ASSERT_EQ(decoded->events[i].size_bytes, trace.events[i].size_bytes);
      ASSERT_EQ(decoded->events[i].block, trace.events[i].block);
    }
  }
}

TEST(AllocationTrace, RefusesWhatItDidNotWrite) {
  const std::string good = encode(random_trace(3));
  for (size_t n = 0; n < good.size(); ++n) EXPECT_FALSE(decode_trace(std::string_view(good).substr(0, n), "t")) << n;
  EXPECT_FALSE(decode_trace(good + "x", "t"));
  EXPECT_FALSE(decode_trace("BNALLOC1\x01\x01", "t")) << "a release of nothing";
  EXPECT_FALSE(decode_trace(std::string("BNALLOC1\x01\x00", 10), "t")) << "no bytes";
  EXPECT_FALSE(decode_trace("BNALLOC1\x03\x08\x01\x01", "t")) << "twice";
  EXPECT_FALSE(decode_trace("BNALLOC1\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "t"));
  EXPECT_TRUE(decode_trace("BNALLOC1\x02\x08\x01", "t"));
}

}  // namespace
}  // namespace bitnet
