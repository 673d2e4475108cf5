#pragma once

#include "base/file.h"
#include "base/result.h"
#include "format/name_index.h"
#include "format/stored_tensor.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

namespace bitnet {

class ByteReader;

// Metadata values of GGUF (specification: ggml docs/gguf.md). Arrays hold one scalar type; arrays of arrays, which
// the format allows and no model uses, are refused.
using GgufArray =
    std::variant<std::vector<uint8_t>, std::vector<int8_t>, std::vector<uint16_t>, std::vector<int16_t>,
                 std::vector<uint32_t>, std::vector<int32_t>, std::vector<float>, std::vector<bool>,
                 std::vector<std::string>, std::vector<uint64_t>, std::vector<int64_t>, std::vector<double>>;
using GgufValue = std::variant<uint8_t, int8_t, uint16_t, int16_t, uint32_t, int32_t, float, bool, std::string,
                               GgufArray, uint64_t, int64_t, double>;
std::string gguf_type_name(const GgufValue& value);  // "u32", "string", "array of f32"

struct GgufLimits {
  uint64_t max_string_bytes = uint64_t{1} << 26;
  uint64_t max_key_bytes = 65535;
  uint64_t max_name_bytes = 64;
  uint64_t max_keys = uint64_t{1} << 18;
  uint64_t max_tensors = uint64_t{1} << 18;
  // In all arrays together: an empty string takes 8 bytes of a file, but 32 in memory.
  uint64_t max_array_strings = uint64_t{1} << 21;
};

// Metadata in file order with look-up by key. Typed getters accept any integer width that holds the value; a missing
// key gives `fallback` where one is passed and an error otherwise. Errors name file and key.
class GgufMetadata {
 public:
  const std::vector<std::pair<std::string, GgufValue>>& entries() const { return entries_; }
  const GgufValue* find(std::string_view key) const;
  bool contains(std::string_view key) const { return find(key) != nullptr; }
  // False when the key is there already.
  bool add(std::string key, GgufValue value);

  Result<uint64_t> get_uint(std::string_view key, uint64_t min, uint64_t max,
                            std::optional<uint64_t> fallback = std::nullopt) const;
  // A float32 or float64 that is finite.
  Result<double> get_float(std::string_view key, std::optional<double> fallback = std::nullopt) const;
  Result<bool> get_bool(std::string_view key, std::optional<bool> fallback = std::nullopt) const;
  Result<std::string> get_string(std::string_view key, std::optional<std::string> fallback = std::nullopt) const;
  // The array, or null when the key is missing; an error when it is of another type. An empty array fits every type.
  template <class T>
  Result<const std::vector<T>*> get_array(std::string_view key) const;

  std::string file_name;  // for error messages

 private:
  std::vector<std::pair<std::string, GgufValue>> entries_;
  // Seeded anew in each process: no file can choose keys that collide.
  struct KeyHash {
    using is_transparent = void;
    size_t operator()(std::string_view key) const;
  };
  std::unordered_map<std::string, size_t, KeyHash, std::equal_to<>> index_;
};

// A GGUF file, version 2 or 3, little-endian. Everything in the header is checked against the file's length before
// it is believed; tensors lie inside the file and do not overlap. Immutable; thread-safe.
class GgufFile {
 public:
  static Result<GgufFile> open(const std::string& path);
  // The header of a file held in memory; read() then copies from `bytes`, which must outlive the object.
  static Result<GgufFile> parse(std::span<const std::byte> bytes, const std::string& name,
                                const GgufLimits& limits = {});

  const std::string& name() const { return metadata_.file_name; }
  uint32_t version() const { return version_; }
  uint64_t alignment() const { return alignment_; }
  uint64_t size_bytes() const { return size_bytes_; }
  const GgufMetadata& metadata() const { return metadata_; }
  const std::vector<StoredTensor>& tensors() const { return tensors_; }
  const StoredTensor* find(std::string_view tensor) const;

  const std::shared_ptr<const File>& file() const { return file_; }  // null for a file held in memory

  // Bytes [offset, offset + out.size()) of a tensor's data.
  Status read(const StoredTensor& tensor, uint64_t offset_bytes, std::span<std::byte> out) const;
  // All of a tensor's data.
  Result<std::vector<std::byte>> read(const StoredTensor& tensor) const;

 private:
  GgufFile() = default;
  static Result<GgufFile> parse_header(ByteReader& in, const GgufLimits& limits);

  GgufMetadata metadata_;
  std::vector<StoredTensor> tensors_;
  NameIndex index_;
  uint32_t version_ = 3;
  uint64_t alignment_ = 32;
  uint64_t size_bytes_ = 0;
  std::shared_ptr<const File> file_;  // one of the two
  std::span<const std::byte> in_memory_;
};

// GGML's number of a type that we know, and its name for any number it ever gave out ("IQ4_NL", "TL1 (bitnet.cpp)").
std::optional<DType> dtype_from_ggml(uint32_t id);
std::optional<uint32_t> ggml_from_dtype(DType type);  // GGUF has no number for bool and unsigned types
std::string ggml_type_name(uint32_t id);

// Writes a GGUF v3 file: declare everything, then hand over each tensor's data in the declared order. Dropped before
// finish() it leaves no file. `general.alignment` (unless 32) and the checksum table are the writer's own keys.
class GgufWriter {
 public:
  static Result<GgufWriter> create(const std::string& path, uint64_t alignment = 32);
  // Both before begin_data().
  Status add_metadata(std::string key, GgufValue value);
  Status add_tensor(std::string name, DType type, const Shape& shape);
  // A table (format/gguf_checksums.h), filled by finish(), by which a reader can tell a damaged file.
  Status add_checksums();

  Status begin_data();
  // Data of the next declared tensor; in one call or in pieces.
  Status write_data(std::span<const std::byte> data);
  // Checks that all data came, then makes the file appear under its name.
  Status finish();

 private:
  struct State;
  explicit GgufWriter(std::shared_ptr<State> state) : state_(std::move(state)) {}
  std::shared_ptr<State> state_;
};

}  // namespace bitnet
