#include "train/watch/metrics_log.h"

#include "base/crc32c.h"
#include "format/json.h"
#include "train/test_folder.h"
#include "train/watch/log_lines.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <sstream>

namespace bitnet {
namespace {

using testing::contents_of;
using testing::expect_error;
using testing::TemporaryFolder;

MetricsLog open_log(const std::string& folder, int64_t resume_step) {
  auto log = MetricsLog::open(folder, resume_step);
  EXPECT_TRUE(log) << log.error().message;
  return *std::move(log);
}

std::vector<Json> lines_of(const std::string& path) {
  std::vector<Json> lines;
  std::istringstream in(contents_of(path));
  for (std::string line; std::getline(in, line);) lines.push_back(Json::parse(line));
  return lines;
}

TEST(MetricsLog, WritesALineAStep) {
  TemporaryFolder folder;
  MetricsLog log = open_log(folder.path(), -1);
  const Metric first[] = {{"loss", 5.5452}, {"scale/layers.0.q_proj", 1e-7}, {"n", 12}};
  const Metric second[] = {{"loss", std::nan("")}, {"valid_loss", std::numeric_limits<double>::infinity()}};
  ASSERT_TRUE(log.log(1, first));
  ASSERT_TRUE(log.log(2, second));
  ASSERT_TRUE(log.log_text(2, "sample", "\"Once\" \xff\n"));
  const auto lines = lines_of(folder.file(kMetricsFile));
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0]["step"], 1);
  EXPECT_EQ(lines[0]["loss"], 5.5452);
  EXPECT_EQ(lines[0]["scale/layers.0.q_proj"], 1e-7);
  EXPECT_GT(lines[0]["time_s"], 1.5e9);
  EXPECT_TRUE(lines[1]["loss"].is_null());
  EXPECT_TRUE(lines[1]["valid_loss"].is_null());
  EXPECT_EQ(lines_of(folder.file(kSamplesFile))[0]["text"], "\"Once\" \ufffd\n");
}

TEST(MetricsLog, RefusesNamesThatWouldMakeALineUnclear) {
  TemporaryFolder folder;
  MetricsLog log = open_log(folder.path(), -1);
  for (const char* name : {"", "step", "time_s", "\xff"}) {
    const Metric metrics[] = {{name, 1}};
    expect_error(log.log(1, metrics), ErrorCode::kInvalidArgument, "name of a metric");
  }
  const Metric twice[] = {{"loss", 1}, {"loss", 2}};
  expect_error(log.log(1, twice), ErrorCode::kInvalidArgument, "\"loss\"");
}

TEST(MetricsLog, ResumingCutsWhatCameLater) {
  TemporaryFolder folder;
  const auto log_steps = [](MetricsLog& log, int64_t begin, int64_t end, double value) {
    for (int64_t step = begin; step <= end; ++step) {
      const Metric metrics[] = {{"loss", value}};
      ASSERT_TRUE(log.log(step, metrics));
      ASSERT_TRUE(log.log_text(step, "sample", "text"));
    }
  };
  {
    MetricsLog log = open_log(folder.path(), -1);
    log_steps(log, 1, 10, 1);
  }
  // A process that was killed in the middle of a line.
  std::filesystem::resize_file(folder.file(kMetricsFile), std::filesystem::file_size(folder.file(kMetricsFile)) - 5);
  {
    MetricsLog log = open_log(folder.path(), 7);
    EXPECT_EQ(lines_of(folder.file(kMetricsFile)).size(), 7u);
    EXPECT_EQ(lines_of(folder.file(kSamplesFile)).size(), 7u);
    log_steps(log, 8, 12, 2);
  }
  const auto lines = lines_of(folder.file(kMetricsFile));
  ASSERT_EQ(lines.size(), 12u);
  for (int64_t i = 0; i < 12; ++i) {
    EXPECT_EQ(lines[size_t(i)]["step"], i + 1);
    EXPECT_EQ(lines[size_t(i)]["loss"], i < 7 ? 1 : 2);
  }
  open_log(folder.path(), -1);
  EXPECT_TRUE(contents_of(folder.file(kMetricsFile)).empty());
}

TEST(MetricsLog, RefusesAFileThatIsNotItsOwn) {
  TemporaryFolder folder;
  folder.write(kMetricsFile, "step,loss\n1,2\n");
  expect_error(MetricsLog::open(folder.path(), 5), ErrorCode::kInvalidInput, "line 1");
  EXPECT_EQ(contents_of(folder.file(kMetricsFile)).size(), 14u);
}

TEST(LogLines, AreReadWholeWhateverTheirLength) {
  TemporaryFolder folder;
  std::string text;
  for (int i = 1; i <= 40; ++i)
    text += fmt::format("{}{}, \"x\": \"{}\"}}\n", kLogLineStart, i, std::string(100'000, 'x'));
  const std::string path = folder.write("log", text);
  int64_t n = 0;
  ASSERT_TRUE(for_each_log_line(path, [&](const LogLine& line) {
    EXPECT_EQ(line.step, ++n);
    EXPECT_EQ(line.end_byte, text.find('\n', line.end_byte - 1) + 1);
    return n < 30;
  }));
  EXPECT_EQ(n, 30);
}

// A reader of event files that shares no code with the writer: checksums bit by bit, protocol buffers as generic
// fields.
class EventReader {
 public:
  struct Field {
    uint32_t number, wire_type;
    uint64_t value = 0;
    std::string bytes;
  };
  static std::vector<std::string> records(const std::string& file) {
    std::vector<std::string> records;
    for (size_t at = 0; at < file.size();) {
      const uint64_t length = number(file, at, 8);
      EXPECT_EQ(number(file, at + 8, 4), masked(file.substr(at, 8)));
      records.push_back(file.substr(at + 12, length));
      EXPECT_EQ(number(file, at + 12 + length, 4), masked(records.back()));
      at += 16 + length;
    }
    return records;
  }
  static std::vector<Field> fields(const std::string& message) {
    std::vector<Field> fields;
    for (size_t at = 0; at < message.size();) {
      const uint64_t key = varint(message, at);
      Field field{uint32_t(key >> 3), uint32_t(key & 7), 0, ""};
      if (field.wire_type == 0) field.value = varint(message, at);
      if (field.wire_type == 1) field.value = number(message, at, 8), at += 8;
      if (field.wire_type == 5) field.value = number(message, at, 4), at += 4;
      if (field.wire_type == 2) {
        const uint64_t n = varint(message, at);
        field.bytes = message.substr(at, n);
        at += n;
      }
      fields.push_back(field);
    }
    return fields;
  }
  static Field field(const std::string& message, uint32_t number) {
    for (const Field& field : fields(message)) {
      if (field.number == number) return field;
    }
    return {0, 0, 0, ""};
  }

 private:
  static uint64_t number(const std::string& bytes, size_t at, size_t n) {
    uint64_t value = 0;
    for (size_t i = n; i-- > 0;) value = value << 8 | uint8_t(bytes.at(at + i));
    return value;
  }
  static uint64_t varint(const std::string& bytes, size_t& at) {
    uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      const uint8_t byte = uint8_t(bytes.at(at++));
      value |= uint64_t(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
  }
  static uint32_t masked(const std::string& bytes) {
    uint32_t crc = 0xffffffff;
    for (const char c : bytes) {
      crc ^= uint8_t(c);
      for (int bit = 0; bit < 8; ++bit) crc = crc & 1 ? crc >> 1 ^ 0x82f63b78 : crc >> 1;
    }
    crc = ~crc;
    return (crc >> 15 | crc << 17) + 0xa282ead8;
  }
};

std::vector<std::string> event_files(const std::string& folder) {
  std::vector<std::string> paths;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().filename().string().starts_with("events.out.tfevents.")) paths.push_back(entry.path().string());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

TEST(EventFile, AnotherReaderFindsWhatWasLogged) {
  TemporaryFolder folder;
  {
    MetricsLog log = open_log(folder.path(), -1);
    const Metric metrics[] = {{"loss", 2.5}, {"learning_rate", 1.5e-3}};
    ASSERT_TRUE(log.log(300, metrics));
    ASSERT_TRUE(log.log_text(300, "sample", "Once upon"));
  }
  ASSERT_EQ(event_files(folder.path()).size(), 1u);
  const auto records = EventReader::records(contents_of(event_files(folder.path())[0]));
  ASSERT_EQ(records.size(), 3u);
  EXPECT_EQ(EventReader::field(records[0], 3).bytes, "brain.Event:2");
  EXPECT_EQ(EventReader::field(records[1], 2).value, 300u);
  double wall_time;
  const uint64_t bits = EventReader::field(records[1], 1).value;
  std::memcpy(&wall_time, &bits, 8);
  EXPECT_GT(wall_time, 1.5e9);
  std::map<std::string, float> values;
  for (const auto& value : EventReader::fields(EventReader::field(records[1], 5).bytes)) {
    ASSERT_EQ(value.number, 1u);
    const uint32_t raw = uint32_t(EventReader::field(value.bytes, 2).value);
    std::memcpy(&values[EventReader::field(value.bytes, 1).bytes], &raw, 4);
  }
  EXPECT_EQ(values, (std::map<std::string, float>{{"loss", 2.5f}, {"learning_rate", 1.5e-3f}}));
  const std::string text = EventReader::field(EventReader::field(records[2], 5).bytes, 1).bytes;
  EXPECT_EQ(EventReader::field(text, 1).bytes, "sample");
  const std::string plugin = EventReader::field(EventReader::field(text, 9).bytes, 1).bytes;
  EXPECT_EQ(EventReader::field(plugin, 1).bytes, "text");
  EXPECT_EQ(EventReader::field(EventReader::field(text, 8).bytes, 1).value, 7u);
  EXPECT_EQ(EventReader::field(EventReader::field(text, 8).bytes, 8).bytes, "Once upon");
}

TEST(EventFile, ANewFileEachTimeThatTakesBackLaterSteps) {
  TemporaryFolder folder;
  open_log(folder.path(), -1);
  open_log(folder.path(), 40);
  const auto paths = event_files(folder.path());
  ASSERT_EQ(paths.size(), 2u);
  const auto records = EventReader::records(contents_of(paths[1]));
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(EventReader::field(records[1], 2).value, 41u);
  EXPECT_EQ(EventReader::field(EventReader::field(records[1], 7).bytes, 1).value, 1u);
}

}  // namespace
}  // namespace bitnet
