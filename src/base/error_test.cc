#include "base/copied.h"
#include "base/file.h"
#include "base/result.h"
#include "base/retry.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <unistd.h>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <numeric>
#include <string>
#include <vector>

namespace bitnet {
namespace {

TEST(Error, TheSeverityFollowsFromTheKind) {
  EXPECT_EQ(severity(ErrorCode::kInterrupted), Severity::kNotice);
  EXPECT_EQ(severity(ErrorCode::kInternal), Severity::kFatal);
  for (const ErrorCode code :
       {ErrorCode::kInvalidArgument, ErrorCode::kInvalidInput, ErrorCode::kUnsupported, ErrorCode::kResource}) {
    EXPECT_EQ(severity(code), Severity::kError);
  }
  EXPECT_STREQ(severity_name(Severity::kFatal), "fatal");
}

TEST(Error, ReadsAsTextFromTheInnermostStepOutwards) {
  Error error = invalid_input("a.gguf: tensor x has {} bytes, expected {}", 3, 4);
  EXPECT_EQ(to_text(error), "a.gguf: tensor x has 3 bytes, expected 4\n");
  error.add_context("while reading the head").add_context("of a model");
  error.suggestion = "fetch it again";
  EXPECT_EQ(to_text(error),
            "a.gguf: tensor x has 3 bytes, expected 4\n  while reading the head\n  of a model\nTry: fetch it again\n");
}

TEST(Error, ReadsAsJsonWhateverItsBytes) {
  Error error = make_error(ErrorCode::kResource, "a \"quoted\" name\nwith \x01 and {}", std::string("\xff\xfe"));
  error.add_context("one").add_context("two");
  error.transient = true;
  const std::string text = to_json(error);
  EXPECT_EQ(text.find('\n'), std::string::npos) << "one line";
  const auto document = nlohmann::json::parse(text)["error"];
  EXPECT_EQ(document["kind"], "resource");
  EXPECT_EQ(document["code"], 5);
  EXPECT_EQ(document["severity"], "error");
  EXPECT_EQ(document["message"], "a \"quoted\" name\nwith \x01 and \xef\xbf\xbd\xef\xbf\xbd");
  EXPECT_EQ(document["context"], nlohmann::json({"one", "two"}));
  EXPECT_EQ(document["suggestion"], "");
  EXPECT_EQ(document["transient"], true);
}

// A call that fails so many times before it succeeds, and the waits in between.
struct Flaky {
  int n_failures;
  bool transient = true;
  int n_calls = 0;
  std::vector<int64_t> waits_us = {};
  Result<int> run(const RetryPolicy& policy) {
    return retry(
        policy,
        [&]() -> Result<int> {
          if (n_calls++ >= n_failures) return 7;
          Error error = make_error(ErrorCode::kResource, "failure {}", n_calls);
          error.transient = transient;
          return error;
        },
        [&](std::chrono::microseconds pause) { waits_us.push_back(pause.count()); });
  }
};

TEST(Retry, TriesAgainAfterLongerAndLongerWaits) {
  Flaky never{0};
  EXPECT_EQ(*never.run({}), 7);
  EXPECT_TRUE(never.waits_us.empty());

  Flaky twice{2};
  EXPECT_EQ(*twice.run({}), 7);
  EXPECT_EQ(twice.waits_us, (std::vector<int64_t>{1000, 4000}));

  Flaky always{100};
  const Result<int> result = always.run({.n_attempts = 3});
  EXPECT_EQ(result.error().message, "failure 3");
  EXPECT_EQ(result.error().context, std::vector<std::string>{"tried 3 times"});
  EXPECT_EQ(always.n_calls, 3);
}

TEST(Retry, WhatIsNotTransientFailsFast) {
  Flaky always{100, false};
  EXPECT_EQ(always.run({}).error().message, "failure 1");
  EXPECT_TRUE(always.waits_us.empty());
}

// A disk whose reads fail with given errnos, in turn, and give at most `most_bytes` at once.
class FlakyDisk {
 public:
  explicit FlakyDisk(std::vector<int> errnos, size_t most_bytes = SIZE_MAX) : errnos_(std::move(errnos)) {
    disk = system_disk_calls();
    disk.read = [this, most_bytes](int fd, void* data, size_t n, uint64_t offset) -> int64_t {
      ++n_reads;
      if (n_failed_ < errnos_.size()) {
        errno = errnos_[n_failed_++];
        return -1;
      }
      return system_disk_calls().read(fd, data, std::min(n, most_bytes), offset);
    };
    disk.wait = [this](std::chrono::microseconds pause) { waited += pause; };
  }
  DiskCalls disk;
  int n_reads = 0;
  std::chrono::microseconds waited{0};

 private:
  std::vector<int> errnos_;
  size_t n_failed_ = 0;
};

class FlakyFile : public testing::Test {
 protected:
  FlakyFile() : path_(testing::TempDir() + "bitnet-flaky-" + std::to_string(::getpid())), text_(5000, 0) {
    std::iota(text_.begin(), text_.end(), char(0));
    EXPECT_TRUE(write_file_atomically(path_, text_));
  }
  ~FlakyFile() override { std::filesystem::remove(path_); }
  Result<std::string> read(const DiskCalls& disk) {
    BN_ASSIGN_OR_RETURN(const File file, File::open(path_, disk));
    std::string out(text_.size(), '\0');
    BN_RETURN_IF_ERROR(file.read_at(0, std::as_writable_bytes(std::span(out))));
    return out;
  }
  std::string path_, text_;
};

TEST_F(FlakyFile, AReadSurvivesWhatPasses) {
  FlakyDisk interrupted({EINTR, EINTR, EINTR, EINTR, EINTR, EINTR});
  EXPECT_EQ(*read(interrupted.disk), text_);
  EXPECT_EQ(interrupted.waited.count(), 0) << "a signal is no reason to wait";

  for (const int code : {EIO, EAGAIN, ESTALE, ETIMEDOUT}) {
    FlakyDisk away({code, code, code});
    EXPECT_EQ(*read(away.disk), text_) << std::strerror(code);
    EXPECT_EQ(away.waited.count(), 1000 + 4000 + 16000);
  }
  FlakyDisk short_reads({EIO}, 7);
  EXPECT_EQ(*read(short_reads.disk), text_);
}

TEST_F(FlakyFile, AReadGivesUpWithAnErrorThatTellsAll) {
  FlakyDisk broken({EIO, EIO, EIO, EIO, EIO});
  const auto result = read(broken.disk);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::kResource);
  EXPECT_EQ(result.error().message, path_ + ": cannot read: Input/output error");
  EXPECT_EQ(result.error().context, std::vector<std::string>{"tried 4 times"});
  EXPECT_TRUE(result.error().transient);
  EXPECT_EQ(broken.n_reads, 4);

  FlakyDisk closed({EBADF});
  EXPECT_FALSE(read(closed.disk));
  EXPECT_EQ(closed.n_reads, 1) << "no hope, no second attempt";
}

TEST_F(FlakyFile, ReadsAreCounted) {
  const CopiedBytes before = copied_bytes();
  FlakyDisk disk({EIO}, 100);
  ASSERT_TRUE(read(disk.disk));
  EXPECT_EQ((copied_bytes() - before).read, text_.size());
}

}  // namespace
}  // namespace bitnet
