#pragma once

#include "format/gguf.h"

#include <gtest/gtest.h>
#include <unistd.h>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

// Tools of this room's tests: bytes and files that may be wrong in any way.
namespace bitnet::testing {

// Appends little-endian values.
class Bytes {
 public:
  Bytes() = default;
  explicit Bytes(std::string_view raw) : data_(raw) {}
  template <class T>
  Bytes& number(T value) {
    data_.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  Bytes& u8(uint8_t value) { return number(value); }
  Bytes& u32(uint32_t value) { return number(value); }
  Bytes& u64(uint64_t value) { return number(value); }
  Bytes& raw(std::string_view text) {
    data_ += text;
    return *this;
  }
  Bytes& zeros(size_t n) {
    data_.append(n, '\0');
    return *this;
  }
  Bytes& string(std::string_view text) { return u64(text.size()).raw(text); }
  Bytes& pad(size_t alignment) { return zeros((alignment - data_.size() % alignment) % alignment); }

  const std::string& text() const { return data_; }
  std::span<const std::byte> span() const { return std::as_bytes(std::span(data_)); }

 private:
  std::string data_;
};

// A GGUF file put together from parts, each of which may be wrong; the defaults make an empty file of version 3.
struct GgufParts {
  std::string magic = "GGUF";
  uint32_t version = 3;
  std::optional<uint64_t> n_tensors = {};  // by default what `infos` holds
  std::optional<uint64_t> n_keys = {};
  std::vector<Bytes> keys = {};
  std::vector<Bytes> infos = {};
  size_t alignment = 32;
  Bytes data = {};

  Bytes file() const {
    Bytes out;
    out.raw(magic).u32(version).u64(n_tensors.value_or(infos.size())).u64(n_keys.value_or(keys.size()));
    for (const Bytes& key : keys) out.raw(key.text());
    for (const Bytes& info : infos) out.raw(info.text());
    if (!data.text().empty()) out.pad(alignment).raw(data.text());
    return out;
  }
};

// "key", type number, value bytes.
inline Bytes gguf_key(std::string_view name, uint32_t type, const Bytes& value) {
  return Bytes().string(name).u32(type).raw(value.text());
}
inline Bytes gguf_u32(std::string_view name, uint32_t value) { return gguf_key(name, 4, Bytes().u32(value)); }

// An entry of the tensor table; dimensions in the file's order, innermost first.
inline Bytes gguf_info(std::string_view name, const std::vector<uint64_t>& dims, uint32_t type, uint64_t offset) {
  Bytes out;
  out.string(name).u32(uint32_t(dims.size()));
  for (const uint64_t dim : dims) out.u64(dim);
  return out.u32(type).u64(offset);
}

// A safetensors file: length, header text, data.
inline Bytes safetensors(std::string_view header, size_t data_bytes = 0) {
  return Bytes().string(header).zeros(data_bytes);
}

// A file that must be refused, and what the message must say.
struct MalformedCase {
  std::string id;
  Bytes file;
  ErrorCode code;
  std::string part;
};
inline void PrintTo(const MalformedCase& c, std::ostream* out) { *out << c.id; }
inline std::string id_of_case(const ::testing::TestParamInfo<MalformedCase>& test) { return test.param.id; }

template <class T>
void expect_error(const Result<T>& result, ErrorCode code, std::string_view part) {
  ASSERT_FALSE(result) << "was accepted, expected an error about: " << part;
  EXPECT_EQ(result.error().code, code) << result.error().message;
  EXPECT_NE(result.error().message.find(part), std::string::npos)
      << "message: " << result.error().message << "\nexpected part: " << part;
}

// A folder that goes away with the test.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string path = (std::filesystem::temp_directory_path() / "bitnet-format-XXXXXX").string();
    path_ = ::mkdtemp(path.data());
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  std::string file(std::string_view name) const { return path_ + "/" + std::string(name); }
  const std::string& path() const { return path_; }
  std::string write(std::string_view name, std::string_view contents) const {
    const std::string path = file(name);
    std::ofstream(path, std::ios::binary) << contents;
    return path;
  }

 private:
  std::string path_;
};

inline std::vector<std::byte> counting_bytes(size_t n, int first = 0) {
  std::vector<std::byte> bytes(n);
  for (size_t i = 0; i < n; ++i) bytes[i] = std::byte(first + int(i) * 7);
  return bytes;
}

}  // namespace bitnet::testing
