#pragma once

#include "base/file.h"
#include "format/gguf.h"
#include "format/json.h"
#include "format/safetensors.h"
#include "model/config.h"
#include "model/weights.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

// Small models as files, in pieces that a test can spoil one at a time.
namespace bitnet {

struct TinyTensor {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;
  std::vector<std::byte> data;
};

// 2 layers, d_model 256, d_ff 512, 4 heads of 64 sharing 2 key/value heads, 48 tokens.
ModelConfig tiny_config(const std::string& architecture);

// Random values of about the size that a trained model's have.
std::vector<float> tiny_floats(uint64_t seed, int64_t n, double mean, double deviation);
std::vector<uint8_t> tiny_codes(uint64_t seed, int64_t n);
TinyTensor float_tensor(std::string name, DType dtype, const Shape& shape, const std::vector<float>& values);

// A GGUF file before it is written.
struct TinyGguf {
  std::vector<std::pair<std::string, GgufValue>> metadata;
  std::vector<TinyTensor> tensors;

  void set(const std::string& key, GgufValue value);  // adds or replaces
  void remove(const std::string& key);
  TinyTensor& tensor(const std::string& name);
  void remove_tensor(const std::string& name);
  void write(const std::string& path, bool checksums = false) const;
};
// Metadata as converters write them and seeded weights: linears of `linear_type`, tables F16, norms F32.
TinyGguf tiny_gguf(const ModelConfig& config, DType linear_type = DType::kI2_S);

// A Hugging Face folder before it is written.
struct TinyFolder {
  Json config;
  std::vector<TinyTensor> tensors;

  TinyTensor& tensor(const std::string& name);
  void remove_tensor(const std::string& name);
  void write(const std::string& path) const;
};
// Packed linears with F32 scales that multiply, BF16 tables and norms.
TinyFolder tiny_folder(const ModelConfig& config);

// A path in a fresh folder of this test's own, removed with the object.
class TestFolder {
 public:
  TestFolder();
  ~TestFolder();
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

// The value, or a test failure with the error's text.
#define BN_ASSERT_OK(expr)                                             \
  do {                                                                 \
    const auto& bn_assert_status = (expr);                             \
    ASSERT_TRUE(bn_assert_status) << bn_assert_status.error().message; \
  } while (false)

// Refused with this code and a message that holds all of these words.
template <class T>
void expect_error(const Result<T>& result, ErrorCode code, const std::vector<std::string>& words) {
  ASSERT_FALSE(result) << "accepted";
  EXPECT_EQ(error_kind(result.error().code), std::string(error_kind(code))) << result.error().message;
  for (const std::string& word : words) {
    EXPECT_NE(result.error().message.find(word), std::string::npos)
        << "'" << word << "' in: " << result.error().message;
  }
}

}  // namespace bitnet
