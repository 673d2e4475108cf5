#pragma once

#include "base/result.h"
#include "format/byte_reader.h"
#include "format/gguf.h"

#include <string>
#include <string_view>
#include <vector>

namespace bitnet {

// The parts of a GGUF header, in the order in which they lie in the file.
struct GgufCounts {
  uint32_t version = 0;
  uint64_t n_tensors = 0;
  uint64_t n_keys = 0;
};
Result<GgufCounts> read_gguf_counts(ByteReader& in);
Result<GgufMetadata> read_gguf_metadata(ByteReader& in, uint64_t n_keys, const GgufLimits& limits);
// Tensors with their places in the file, each inside it and none on top of another.
Result<std::vector<StoredTensor>> read_gguf_tensors(ByteReader& in, uint64_t n_tensors, uint64_t alignment,
                                                    const GgufLimits& limits);

// `general.alignment`, or what the format says when it is missing.
Result<uint64_t> gguf_alignment(const GgufMetadata& metadata);

inline constexpr const char* kAlignmentKey = "general.alignment";
inline constexpr uint64_t kDefaultAlignment = 32;
inline constexpr uint64_t kMaxAlignment = uint64_t{1} << 20;
inline constexpr uint32_t kMaxGgufDims = 4;
bool is_gguf_alignment(uint64_t alignment);

// Why a key or a tensor's name cannot be: empty, too long, not UTF-8 or with a NUL inside. Empty when it can.
std::string name_problem(std::string_view name, uint64_t max_bytes);

// A little-endian number and a string with its length in front, as GGUF stores them.
template <class T>
Result<T> read_number(ByteReader& in, const char* field) {
  T value{};
  BN_RETURN_IF_ERROR(in.read(std::as_writable_bytes(std::span(&value, 1)), field));
  return value;
}
Result<std::string> read_gguf_string(ByteReader& in, uint64_t max_bytes, const char* field);

}  // namespace bitnet
