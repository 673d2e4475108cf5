#include "train/watch/event_file.h"

#include "base/crc32c.h"

#include <cstring>

namespace bitnet {
namespace {

template <class T>
void append_little_endian(std::string& out, T value) {
  for (size_t i = 0; i < sizeof value; ++i) out += char(uint64_t(value) >> (8 * i));
}

void append_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += char(value | 0x80);
  out += char(value);
}

// Fields of a protocol buffer: a varint of number << 3 | wire type, then the value.
void varint_field(std::string& out, uint32_t number, uint64_t value) {
  append_varint(out, number << 3 | 0);
  append_varint(out, value);
}
void double_field(std::string& out, uint32_t number, double value) {
  uint64_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  append_varint(out, number << 3 | 1);
  append_little_endian(out, bits);
}
void bytes_field(std::string& out, uint32_t number, std::string_view value) {
  append_varint(out, number << 3 | 2);
  append_varint(out, value.size());
  out += value;
}
void float_field(std::string& out, uint32_t number, float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  append_varint(out, number << 3 | 5);
  append_little_endian(out, bits);
}

// Field numbers of the messages that we write.
namespace event {
constexpr uint32_t kWallTime = 1, kStep = 2, kFileVersion = 3, kSummary = 5, kSessionLog = 7;
}
namespace summary {
constexpr uint32_t kValue = 1, kTag = 1, kSimpleValue = 2, kTensor = 8, kMetadata = 9;
constexpr uint32_t kPluginData = 1, kPluginName = 1, kDataClass = 4;
constexpr uint64_t kDataClassTensor = 2;
}  // namespace summary
namespace tensor {
constexpr uint32_t kDtype = 1, kShape = 2, kStringVal = 8;
constexpr uint64_t kDtString = 7;
}  // namespace tensor
namespace session_log {
constexpr uint32_t kStatus = 1;
constexpr uint64_t kStart = 1;
}  // namespace session_log

std::string event_of(int64_t step, double wall_time_s, uint32_t field, std::string_view content) {
  std::string out;
  double_field(out, event::kWallTime, wall_time_s);
  if (step != 0) varint_field(out, event::kStep, uint64_t(step));
  bytes_field(out, field, content);
  return out;
}

// A checksum of data that hold checksums is weak; TFRecord stores this instead.
uint32_t masked_crc32c(std::string_view data) {
  const uint32_t crc = crc32c(std::as_bytes(std::span(data)));
  return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

}  // namespace

Result<EventFile> EventFile::create(const std::string& folder, double wall_time_s, int64_t start_step) {
  const std::string base = fmt::format("{}/events.out.tfevents.{:010}.bitnet", folder, uint64_t(wall_time_s));
  Result<AppendFile> file = AppendFile::create(base);
  for (int n = 1; !file && file.error().code == ErrorCode::kInvalidArgument && n < 1000; ++n) {
    file = AppendFile::create(fmt::format("{}.{}", base, n));
  }
  if (!file) return file.error();
  EventFile events(*std::move(file));
  BN_RETURN_IF_ERROR(events.write_record(event_of(0, wall_time_s, event::kFileVersion, "brain.Event:2")));
  if (start_step > 0) {
    std::string start;
    varint_field(start, session_log::kStatus, session_log::kStart);
    BN_RETURN_IF_ERROR(events.write_record(event_of(start_step, wall_time_s, event::kSessionLog, start)));
  }
  return events;
}

Status EventFile::write_scalars(int64_t step, double wall_time_s, std::span<const Metric> metrics) {
  std::string values;
  for (const Metric& metric : metrics) {
    std::string value;
    bytes_field(value, summary::kTag, metric.name);
    float_field(value, summary::kSimpleValue, float(metric.value));
    bytes_field(values, summary::kValue, value);
  }
  return write_record(event_of(step, wall_time_s, event::kSummary, values));
}

Status EventFile::write_text(int64_t step, double wall_time_s, std::string_view name, std::string_view text) {
  std::string plugin, metadata, content, value, values;
  bytes_field(plugin, summary::kPluginName, "text");
  bytes_field(metadata, summary::kPluginData, plugin);
  varint_field(metadata, summary::kDataClass, summary::kDataClassTensor);
  varint_field(content, tensor::kDtype, tensor::kDtString);
  bytes_field(content, tensor::kShape, "");
  bytes_field(content, tensor::kStringVal, text);
  bytes_field(value, summary::kTag, name);
  bytes_field(value, summary::kMetadata, metadata);
  bytes_field(value, summary::kTensor, content);
  bytes_field(values, summary::kValue, value);
  return write_record(event_of(step, wall_time_s, event::kSummary, values));
}

Status EventFile::write_record(std::string_view data) {
  std::string length, record;
  append_little_endian(length, uint64_t(data.size()));
  record = length;
  append_little_endian(record, masked_crc32c(length));
  record += data;
  append_little_endian(record, masked_crc32c(data));
  return file_.append(record);
}

}  // namespace bitnet
