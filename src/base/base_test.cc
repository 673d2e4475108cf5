#include "base/file.h"
#include "base/half.h"
#include "base/rng.h"
#include "base/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <new>
#include <thread>
#include <vector>

namespace bitnet {
namespace {

TEST(Half, EveryF16SurvivesTheRoundTrip) {
  for (uint32_t h = 0; h < 65536; ++h) {
    const float f = f16_to_f32(uint16_t(h));
    if (std::isnan(f)) {
      EXPECT_TRUE(std::isnan(f16_to_f32(f32_to_f16(f))));
    } else {
      EXPECT_EQ(f32_to_f16(f), h);
    }
  }
  EXPECT_EQ(f16_to_f32(0x3c01), 1.0f + 0x1p-10f);
  EXPECT_EQ(f16_to_f32(0x0001), 0x1p-24f);
}

TEST(Half, RoundsToNearestEven) {
  EXPECT_EQ(f32_to_f16(1.0f + 0x1p-11f), 0x3c00);  // tie, stays even
  EXPECT_EQ(f32_to_f16(1.0f + 0x3p-11f), 0x3c02);  // tie, goes up to even
  EXPECT_EQ(f32_to_f16(65519.996f), 0x7bff);
  EXPECT_EQ(f32_to_f16(65520.0f), 0x7c00);
  EXPECT_EQ(f32_to_f16(0x1p-25f), 0x0000);
  EXPECT_EQ(f32_to_f16(0x1.8p-25f), 0x0001);
  EXPECT_EQ(f32_to_bf16(1.0f + 0x1p-8f), 0x3f80);
  EXPECT_EQ(f32_to_bf16(1.0f + 0x3p-8f), 0x3f82);
}

TEST(CounterRng, IsAPureFunctionOfSeedStreamAndCounter) {
  EXPECT_EQ(CounterRng(1).bits(5), CounterRng(1).bits(5));
  EXPECT_NE(CounterRng(1).bits(5), CounterRng(2).bits(5));
  EXPECT_NE(CounterRng(1, 0).bits(5), CounterRng(1, 1).bits(5));
  double sum = 0, squares = 0;
  const CounterRng rng(7);
  for (uint64_t i = 0; i < 100000; ++i) {
    const double x = rng.normal(i);
    sum += x;
    squares += x * x;
  }
  EXPECT_NEAR(sum / 100000, 0.0, 0.02);
  EXPECT_NEAR(squares / 100000, 1.0, 0.03);
}

TEST(ThreadPool, ThrowsWhatAMemberThrewAndGoesOn) {
  for (const int n_threads : {1, 2, 3}) {
    ThreadPool pool(n_threads);
    for (int culprit = 0; culprit < n_threads; ++culprit) {
      std::atomic<int> n_returned{0};
      auto job = [&](int thread) {
        if (thread == culprit) throw std::bad_alloc();
        ++n_returned;
      };
      EXPECT_THROW(pool.run(job), std::bad_alloc);
      EXPECT_EQ(n_returned, n_threads - 1) << "it waited for all";
    }
    std::atomic<int> n{0};
    pool.run([&](int) { ++n; });
    EXPECT_EQ(n, n_threads);
  }
}

TEST(ThreadPool, VisitsEveryItemOnce) {
  for (const int n_threads : {1, 2, 3, 8}) {
    ThreadPool pool(n_threads);
    for (int round = 0; round < 50; ++round) {
      std::vector<std::atomic<int>> visits(size_t(round) + 1);
      pool.parallel_for(round + 1, [&](int64_t begin, int64_t end, int thread) {
        EXPECT_LT(thread, n_threads);
        for (int64_t i = begin; i < end; ++i) visits[size_t(i)].fetch_add(1);
      });
      for (const auto& v : visits) EXPECT_EQ(v.load(), 1);
    }
  }
}

// Parts are done by their members or by the caller, once each and one after the other from job to job: a member's
// memory needs no lock. With more members than processors most workers come late.
TEST(ThreadPool, EachPartIsDoneOnceWhoeverIsLate) {
  for (const int n_threads : {2, 5, 32}) {
    ThreadPool pool(n_threads);
    struct alignas(64) Member {
      int64_t n_jobs = 0;
    };
    std::vector<Member> members(static_cast<size_t>(n_threads));
    constexpr int64_t kJobs = 3000;
    for (int64_t job = 0; job < kJobs; ++job) {
      pool.run([&](int thread) { members[size_t(thread)].n_jobs += job; });
      if (job % 500 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));  // workers fall asleep
    }
    for (const Member& member : members) EXPECT_EQ(member.n_jobs, kJobs * (kJobs - 1) / 2);
  }
}

TEST(File, SaysWhatIsWrong) {
  EXPECT_EQ(File::open("/nonexistent/model").error().code, ErrorCode::kInvalidInput);
  EXPECT_NE(File::open("/").error().message.find("directory"), std::string::npos);
  EXPECT_NE(File::open("/dev/zero").error().message.find("device"), std::string::npos);
}

TEST(AtomicFile, AppearsWholeOrNotAtAll) {
  const auto folder = std::filesystem::temp_directory_path() / "bitnet_atomic_file_test";
  std::filesystem::create_directories(folder);
  const std::string path = folder / "out";
  {
    auto file = AtomicFile::create(path);
    ASSERT_TRUE(file);
    ASSERT_TRUE(file->write("half"));
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder));
  {
    auto file = AtomicFile::create(path);
    ASSERT_TRUE(file);
    ASSERT_TRUE(file->write(std::string(3 << 20, 'x')));
    ASSERT_TRUE(file->write_at(1, std::as_bytes(std::span("yz", 2))));
    ASSERT_TRUE(file->commit());
  }
  auto text = read_file(path);
  ASSERT_TRUE(text);
  EXPECT_EQ(text->size(), size_t(3 << 20));
  EXPECT_EQ(text->substr(0, 4), "xyzx");
  EXPECT_NE(read_file(path, 10).error().message.find("limit"), std::string::npos);
  std::filesystem::remove_all(folder);
}

TEST(File, NoticesThatAFileShrank) {
  const std::string path = std::filesystem::temp_directory_path() / "bitnet_shrinking_file";
  ASSERT_TRUE(write_file_atomically(path, std::string(100, 'x')));
  auto file = File::open(path);
  ASSERT_TRUE(file);
  std::filesystem::resize_file(path, 50);
  std::vector<std::byte> bytes(100);
  EXPECT_NE(file->read_at(0, bytes).error().message.find("ends at byte 50"), std::string::npos);
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace bitnet
