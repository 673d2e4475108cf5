#include "format/gguf_header.h"

#include "format/sniff.h"
#include "format/text.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace bitnet {
namespace {

static_assert(std::endian::native == std::endian::little, "files are read and written in the machine's byte order");

constexpr uint64_t kMinEntry_bytes = 8 + 1 + 4 + 1;  // key length, key, type, value
constexpr size_t kSniffed_bytes = 64;

Result<bool> read_bool(ByteReader& in, const char* field) {
  const uint64_t offset = in.offset();
  BN_ASSIGN_OR_RETURN(const uint8_t value, read_number<uint8_t>(in, field));
  if (value > 1) return invalid_input("{}: byte {}: a bool is {}, expected 0 or 1", in.name(), offset, value);
  return value == 1;
}

class ValueReader {
 public:
  ValueReader(ByteReader& in, const GgufLimits& limits) : in_(in), limits_(limits) {}

  Result<GgufValue> read() {
    const uint64_t offset = in_.offset();
    BN_ASSIGN_OR_RETURN(const uint32_t type, read_number<uint32_t>(in_, "the type of a value"));
    switch (type) {
      case 0: return number<uint8_t>();
      case 1: return number<int8_t>();
      case 2: return number<uint16_t>();
      case 3: return number<int16_t>();
      case 4: return number<uint32_t>();
      case 5: return number<int32_t>();
      case 6: return number<float>();
      case 7: {
        BN_ASSIGN_OR_RETURN(const bool value, read_bool(in_, "a bool"));
        return GgufValue(value);
      }
      case 8: {
        BN_ASSIGN_OR_RETURN(std::string value, read_gguf_string(in_, limits_.max_string_bytes, "a string"));
        return GgufValue(std::move(value));
      }
      case 9: return array();
      case 10: return number<uint64_t>();
      case 11: return number<int64_t>();
      case 12: return number<double>();
      default: return unknown_type(type, offset);
    }
  }

 private:
  template <class T>
  Result<GgufValue> number() {
    BN_ASSIGN_OR_RETURN(const T value, read_number<T>(in_, "a number"));
    return GgufValue(std::in_place_type<T>, value);
  }

  Result<GgufValue> array() {
    const uint64_t offset = in_.offset();
    BN_ASSIGN_OR_RETURN(const uint32_t type, read_number<uint32_t>(in_, "the type of an array's elements"));
    BN_ASSIGN_OR_RETURN(const uint64_t count, read_number<uint64_t>(in_, "the length of an array"));
    switch (type) {
      case 0: return numbers<uint8_t>(count);
      case 1: return numbers<int8_t>(count);
      case 2: return numbers<uint16_t>(count);
      case 3: return numbers<int16_t>(count);
      case 4: return numbers<uint32_t>(count);
      case 5: return numbers<int32_t>(count);
      case 6: return numbers<float>(count);
      case 7: return bools(count);
      case 8: return strings(count);
      case 9: return unsupported("{}: byte {}: an array of arrays, which no model needs", in_.name(), offset);
      case 10: return numbers<uint64_t>(count);
      case 11: return numbers<int64_t>(count);
      case 12: return numbers<double>(count);
      default: return unknown_type(type, offset);
    }
  }

  template <class T>
  Result<GgufValue> numbers(uint64_t count) {
    BN_RETURN_IF_ERROR(check_count(count, sizeof(T)));
    std::vector<T> values(count);
    BN_RETURN_IF_ERROR(in_.read(std::as_writable_bytes(std::span(values)), "an array"));
    return GgufValue(GgufArray(std::move(values)));
  }

  Result<GgufValue> bools(uint64_t count) {
    BN_RETURN_IF_ERROR(check_count(count, 1));
    std::vector<bool> values(count);
    for (uint64_t i = 0; i < count; ++i) {
      BN_ASSIGN_OR_RETURN(values[i], read_bool(in_, "an array of bools"));
    }
    return GgufValue(GgufArray(std::move(values)));
  }

  Result<GgufValue> strings(uint64_t count) {
    BN_RETURN_IF_ERROR(check_count(count, sizeof(uint64_t)));
    n_strings_ += count;
    if (n_strings_ > limits_.max_array_strings) {
      return unsupported("{}: byte {}: an array of {} strings, more than the limit of {} in all arrays", in_.name(),
                         in_.offset(), count, limits_.max_array_strings);
    }
    std::vector<std::string> values;
    values.reserve(count);
    for (uint64_t i = 0; i < count; ++i) {
      BN_ASSIGN_OR_RETURN(std::string value, read_gguf_string(in_, limits_.max_string_bytes, "a string of an array"));
      values.push_back(std::move(value));
    }
    return GgufValue(GgufArray(std::move(values)));
  }

  // Before anything is allocated: `count` elements need at least this many bytes each.
  Status check_count(uint64_t count, uint64_t element_bytes) const {
    if (count <= in_.remaining() / element_bytes) return ok();
    return invalid_input("{}: byte {}: an array of {} elements does not fit in the {} bytes left", in_.name(),
                         in_.offset(), count, in_.remaining());
  }

  Error unknown_type(uint32_t type, uint64_t offset) const {
    return invalid_input("{}: byte {}: the value type {} is unknown, expected 0 to 12", in_.name(), offset, type);
  }

  ByteReader& in_;
  const GgufLimits& limits_;
  uint64_t n_strings_ = 0;  // of the arrays so far
};

Status check_magic(ByteReader& in) {
  if (in.size_bytes() == 0) return invalid_input("{}: is empty", in.name());
  const uint64_t n = std::min<uint64_t>(in.size_bytes(), kSniffed_bytes);
  BN_ASSIGN_OR_RETURN(const auto first, in.take(n, "the beginning"));
  if (n >= 4 && std::memcmp(first.data(), "GGUF", 4) == 0) return in.rewind(4);
  const std::string contents = describe_contents(first);
  return invalid_input("{}: byte 0: is not a GGUF file{}{}", in.name(), contents.empty() ? "" : " but looks like ",
                       contents);
}

Status check_version(const std::string& file, uint32_t version) {
  const uint32_t swapped = __builtin_bswap32(version);
  if (version == 2 || version == 3) return ok();
  if (swapped >= 1 && swapped <= 3) {
    return unsupported("{}: byte 4: is a big-endian GGUF file (version {}); only little-endian ones can be read", file,
                       swapped);
  }
  if (version == 1) {
    return unsupported("{}: byte 4: is GGUF version 1 of August 2023, which is not read; convert the model anew", file);
  }
  if (version == 0) return invalid_input("{}: byte 4: has the GGUF version 0, expected 2 or 3", file);
  return unsupported("{}: byte 4: has the GGUF version {}, only 2 and 3 are known", file, version);
}

}  // namespace

bool is_gguf_alignment(uint64_t alignment) { return std::has_single_bit(alignment) && alignment <= kMaxAlignment; }

std::string name_problem(std::string_view name, uint64_t max_bytes) {
  if (name.empty()) return "is empty";
  if (name.size() > max_bytes) return fmt::format("has {} bytes, more than {}", name.size(), max_bytes);
  if (name.find('\0') != std::string_view::npos) return "has a NUL byte inside";
  if (!is_utf8(name)) return "is not valid UTF-8";
  return {};
}

Result<std::string> read_gguf_string(ByteReader& in, uint64_t max_bytes, const char* field) {
  const uint64_t offset = in.offset();
  BN_ASSIGN_OR_RETURN(const uint64_t n, read_number<uint64_t>(in, field));
  if (n > max_bytes && n <= in.remaining()) {
    return invalid_input("{}: byte {}: {} has {} bytes, more than the limit of {}", in.name(), offset, field, n,
                         max_bytes);
  }
  BN_ASSIGN_OR_RETURN(const auto bytes, in.take(n, field));
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

Result<GgufCounts> read_gguf_counts(ByteReader& in) {
  BN_RETURN_IF_ERROR(check_magic(in));
  GgufCounts counts;
  BN_ASSIGN_OR_RETURN(counts.version, read_number<uint32_t>(in, "the version"));
  BN_RETURN_IF_ERROR(check_version(in.name(), counts.version));
  BN_ASSIGN_OR_RETURN(counts.n_tensors, read_number<uint64_t>(in, "the number of tensors"));
  BN_ASSIGN_OR_RETURN(counts.n_keys, read_number<uint64_t>(in, "the number of metadata keys"));
  return counts;
}

Result<GgufMetadata> read_gguf_metadata(ByteReader& in, uint64_t n_keys, const GgufLimits& limits) {
  if (n_keys > in.remaining() / kMinEntry_bytes) {
    return invalid_input("{}: byte 16: announces {} metadata keys, which do not fit in the {} bytes left", in.name(),
                         n_keys, in.remaining());
  }
  if (n_keys > limits.max_keys) {
    return unsupported("{}: byte 16: has {} metadata keys, more than the limit of {}", in.name(), n_keys,
                       limits.max_keys);
  }
  GgufMetadata metadata;
  metadata.file_name = in.name();
  ValueReader values(in, limits);
  for (uint64_t i = 0; i < n_keys; ++i) {
    const uint64_t offset = in.offset();
    BN_ASSIGN_OR_RETURN(std::string key, read_gguf_string(in, limits.max_key_bytes, "a metadata key"));
    if (const std::string problem = name_problem(key, limits.max_key_bytes); !problem.empty()) {
      return invalid_input("{}: byte {}: the metadata key {} {}", in.name(), offset, quote_name(key), problem);
    }
    auto value = values.read();
    if (!value) {
      value.error().message += fmt::format(" (metadata key {})", quote_name(key));
      return std::move(value.error());
    }
    if (!metadata.add(key, *std::move(value))) {
      return invalid_input("{}: byte {}: the metadata key {} appears twice", in.name(), offset, quote_name(key));
    }
  }
  return metadata;
}

Result<uint64_t> gguf_alignment(const GgufMetadata& metadata) {
  const GgufValue* value = metadata.find(kAlignmentKey);
  if (value == nullptr) return kDefaultAlignment;
  const auto* alignment = std::get_if<uint32_t>(value);
  if (alignment == nullptr) {
    return invalid_input("{}: metadata key \"{}\" has the type {}, expected u32", metadata.file_name, kAlignmentKey,
                         gguf_type_name(*value));
  }
  if (!is_gguf_alignment(*alignment)) {
    return invalid_input("{}: metadata key \"{}\" is {}, expected a power of two up to {}", metadata.file_name,
                         kAlignmentKey, *alignment, kMaxAlignment);
  }
  return *alignment;
}

}  // namespace bitnet
