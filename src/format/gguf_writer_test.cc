#include "base/file.h"
#include "format/gguf.h"
#include "format/gguf_checksums.h"
#include "format/test_bytes.h"

#include <gtest/gtest.h>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

namespace bitnet {
namespace {

using testing::Bytes;
using testing::counting_bytes;
using testing::expect_error;

constexpr auto kArgument = ErrorCode::kInvalidArgument;

// One entry of every type, with values that show a wrong width or sign.
std::vector<std::pair<std::string, GgufValue>> one_of_each_type() {
  return {
      {"u8", GgufValue(uint8_t{255})},
      {"i8", GgufValue(int8_t{-128})},
      {"u16", GgufValue(uint16_t{65535})},
      {"i16", GgufValue(int16_t{-32768})},
      {"u32", GgufValue(uint32_t{4294967295})},
      {"i32", GgufValue(int32_t{-2147483647 - 1})},
      {"f32", GgufValue(1.5f)},
      {"bool", GgufValue(true)},
      {"string", GgufValue(std::string("a\0\xff text", 8))},
      {"u64", GgufValue(~uint64_t{0})},
      {"i64", GgufValue(std::numeric_limits<int64_t>::min())},
      {"f64", GgufValue(-0.1)},
      {"array.u8", GgufValue(GgufArray(std::vector<uint8_t>{0, 255}))},
      {"array.i8", GgufValue(GgufArray(std::vector<int8_t>{-1, 127}))},
      {"array.u16", GgufValue(GgufArray(std::vector<uint16_t>{1, 65535}))},
      {"array.i16", GgufValue(GgufArray(std::vector<int16_t>{-1, 2}))},
      {"array.u32", GgufValue(GgufArray(std::vector<uint32_t>{7}))},
      {"array.i32", GgufValue(GgufArray(std::vector<int32_t>{-7, 7}))},
      {"array.f32", GgufValue(GgufArray(std::vector<float>{0.5f, -2.0f}))},
      {"array.bool", GgufValue(GgufArray(std::vector<bool>{true, false, true}))},
      {"array.string", GgufValue(GgufArray(std::vector<std::string>{"", "token", "\xe2\x96\x81"}))},
      {"array.u64", GgufValue(GgufArray(std::vector<uint64_t>{~uint64_t{0}}))},
      {"array.i64", GgufValue(GgufArray(std::vector<int64_t>{-1}))},
      {"array.f64", GgufValue(GgufArray(std::vector<double>{1e300}))},
      {"array.empty", GgufValue(GgufArray(std::vector<std::string>{}))},
  };
}

TEST(GgufWriter, EveryTypeOfMetadataComesBack) {
  const testing::TemporaryFolder folder;
  auto writer = GgufWriter::create(folder.file("meta.gguf"));
  ASSERT_TRUE(writer);
  for (const auto& [key, value] : one_of_each_type()) ASSERT_TRUE(writer->add_metadata(key, value)) << key;
  ASSERT_TRUE(writer->begin_data());
  ASSERT_TRUE(writer->finish());

  const auto gguf = GgufFile::open(folder.file("meta.gguf"));
  ASSERT_TRUE(gguf) << gguf.error().message;
  EXPECT_EQ(gguf->version(), 3u);
  EXPECT_TRUE(gguf->metadata().entries() == one_of_each_type());
  for (const auto& [key, value] : gguf->metadata().entries()) {
    const std::string element = key == "array.empty" ? "string" : key.substr(key.find('.') + 1);
    EXPECT_EQ(gguf_type_name(value), key.starts_with("array.") ? "array of " + element : key);
  }
}

TEST(GgufWriter, BytesAreThoseOfTheDocument) {
  const testing::TemporaryFolder folder;
  auto writer = GgufWriter::create(folder.file("t.gguf"));
  ASSERT_TRUE(writer);
  ASSERT_TRUE(writer->add_metadata("n", GgufValue(uint32_t{7})));
  ASSERT_TRUE(writer->add_tensor("w", DType::kI8, {2, 3}));
  ASSERT_TRUE(writer->begin_data());
  ASSERT_TRUE(writer->write_data(counting_bytes(6)));
  ASSERT_TRUE(writer->finish());
  Bytes expected("GGUF");
  expected.u32(3).u64(1).u64(1);                                 // version, tensors, keys
  expected.u64(1).raw("n").u32(4).u32(7);                        // n = u32 7
  expected.u64(1).raw("w").u32(2).u64(3).u64(2).u32(24).u64(0);  // w: 2 dimensions, innermost first, I8, at 0
  expected.pad(32).raw(std::string_view("\x00\x07\x0e\x15\x1c\x23", 6)).pad(32);
  EXPECT_EQ(*read_file(folder.file("t.gguf")), expected.text());
}

TEST(GgufWriter, TensorsAndChecksumsComeBack) {
  const testing::TemporaryFolder folder;
  const std::string path = folder.file("t.gguf");
  for (const uint64_t alignment : {1u, 32u, 64u}) {
    auto writer = GgufWriter::create(path, alignment);
    ASSERT_TRUE(writer);
    ASSERT_TRUE(writer->add_tensor("w", DType::kI2_S, {2, 128}));
    ASSERT_TRUE(writer->add_checksums());
    ASSERT_TRUE(writer->add_tensor("h", DType::kF16, {3}));
    ASSERT_TRUE(writer->add_tensor("f", DType::kF32, {2, 1, 1, 2}));
    ASSERT_TRUE(writer->begin_data());
    const auto w = counting_bytes(96, 1), h = counting_bytes(6, 2), f = counting_bytes(16, 3);
    ASSERT_TRUE(writer->write_data(std::span(w).first(50)));  // in pieces
    ASSERT_TRUE(writer->write_data({}));
    ASSERT_TRUE(writer->write_data(std::span(w).subspan(50)));
    ASSERT_TRUE(writer->write_data(h));
    ASSERT_TRUE(writer->write_data(f));
    ASSERT_TRUE(writer->finish());

    const auto gguf = GgufFile::open(path);
    ASSERT_TRUE(gguf) << gguf.error().message;
    EXPECT_EQ(gguf->alignment(), alignment);
    EXPECT_EQ(gguf->size_bytes() % alignment, 0u);
    ASSERT_EQ(gguf->tensors().size(), 3u);
    EXPECT_EQ(gguf->tensors()[2].shape, (Shape{2, 1, 1, 2}));
    EXPECT_EQ(gguf->find("w")->dtype, DType::kI2_S);
    const auto checksums = GgufChecksums::read(*gguf);
    ASSERT_TRUE(checksums);
    EXPECT_EQ(checksums->kind(), GgufChecksums::Kind::kValid);
    const std::vector<std::vector<std::byte>> all = {w, h, f};
    for (size_t i = 0; i < 3; ++i) {
      auto data = gguf->read(gguf->tensors()[i]);
      ASSERT_TRUE(data);
      EXPECT_EQ(*data, all[i]);
      EXPECT_TRUE(checksums->verify(gguf->tensors()[i], *data));
    }
  }
}

TEST(GgufWriter, MistakesAreRefusedAndLeaveNoFile) {
  const testing::TemporaryFolder folder;
  const std::string path = folder.file("t.gguf");
  expect_error(GgufWriter::create(path, 48), kArgument, "alignment 48");
  {
    auto writer = GgufWriter::create(path);
    expect_error(writer->add_metadata("", GgufValue(1.0f)), kArgument, "is empty");
    expect_error(writer->add_metadata("general.alignment", GgufValue(uint32_t{64})), kArgument, "writer itself");
    expect_error(writer->add_metadata(kChecksumKey, GgufValue(1.0f)), kArgument, "writer itself");
    ASSERT_TRUE(writer->add_metadata("k", GgufValue(1.0f)));
    expect_error(writer->add_metadata("k", GgufValue(1.0f)), kArgument, "\"k\" is there already");
    expect_error(writer->add_tensor(std::string(65, 'a'), DType::kF32, {1}), kArgument, "more than 64");
    expect_error(writer->add_tensor("t", DType::kBool, {1}), ErrorCode::kUnsupported, "BOOL, which GGUF cannot hold");
    expect_error(writer->add_tensor("t", DType::kF32, {}), kArgument, "shape []");
    expect_error(writer->add_tensor("t", DType::kF32, {1, 0}), kArgument, "shape [1, 0]");
    expect_error(writer->add_tensor("t", DType::kF32, {1, 1, 1, 1, 1}), kArgument, "1 to 4 dimensions");
    expect_error(writer->add_tensor("t", DType::kQ8_0, {33}), kArgument, "Q8_0 stores blocks of 32");
    expect_error(writer->write_data(counting_bytes(1)), kArgument, "outside the data section");
    expect_error(writer->finish(), kArgument, "without data");
    ASSERT_TRUE(writer->add_tensor("t", DType::kI8, {4}));
    expect_error(writer->add_tensor("t", DType::kI8, {4}), kArgument, "\"t\" is there already");
    ASSERT_TRUE(writer->begin_data());
    expect_error(writer->begin_data(), kArgument, "written already");
    expect_error(writer->add_metadata("l", GgufValue(1.0f)), kArgument, "written already");
    expect_error(writer->write_data(counting_bytes(5)), kArgument, "5 bytes of data for tensor \"t\", which takes 4");
    ASSERT_TRUE(writer->write_data(counting_bytes(3)));
    expect_error(writer->finish(), kArgument, "tensor \"t\" has 3 of its 4 bytes");
    ASSERT_TRUE(writer->write_data(counting_bytes(1)));
    expect_error(writer->write_data(counting_bytes(1)), kArgument, "after the last tensor");
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(GgufMetadata, GettersConvertWhatFitsAndNameWhatDoesNot) {
  GgufMetadata meta;
  meta.file_name = "m.gguf";
  for (auto& [key, value] : one_of_each_type()) ASSERT_TRUE(meta.add(key, value));
  EXPECT_FALSE(meta.add("u8", GgufValue(uint8_t{1})));
  ASSERT_TRUE(meta.add("nan", GgufValue(std::nanf(""))));
  ASSERT_TRUE(meta.add("i64.positive", GgufValue(int64_t{5})));
  EXPECT_EQ(*meta.get_uint("u8", 0, 255), 255u);
  EXPECT_EQ(*meta.get_uint("u64", 0, UINT64_MAX), UINT64_MAX);
  EXPECT_EQ(*meta.get_uint("i64.positive", 0, 5), 5u);
  EXPECT_EQ(*meta.get_uint("absent", 0, 5, 77), 77u);
  EXPECT_EQ(*meta.get_float("f32"), 1.5);
  EXPECT_EQ(*meta.get_float("f64"), -0.1);
  EXPECT_EQ(*meta.get_float("absent", 2.0), 2.0);
  EXPECT_TRUE(*meta.get_bool("bool"));
  EXPECT_TRUE(*meta.get_bool("absent", true));
  EXPECT_EQ(*meta.get_string("absent", "x"), "x");
  EXPECT_EQ((*meta.get_array<std::string>("array.string"))->at(1), "token");
  EXPECT_EQ(*meta.get_array<float>("absent"), nullptr);
  EXPECT_TRUE((*meta.get_array<float>("array.empty"))->empty());
  constexpr auto kInvalid = ErrorCode::kInvalidInput;
  expect_error(meta.get_uint("u8", 0, 254), kInvalid, "m.gguf: metadata key \"u8\" is 255, expected 0 to 254");
  expect_error(meta.get_uint("i8", 0, 254), kInvalid, "\"i8\" is -128, expected 0 to 254");
  expect_error(meta.get_uint("absent", 0, 1), kInvalid, "\"absent\" is missing, expected a whole number");
  expect_error(meta.get_uint("bool", 0, 1), kInvalid, "\"bool\" has the type bool, expected a whole number");
  expect_error(meta.get_uint("array.u8", 0, 1), kInvalid, "has the type array of u8");
  expect_error(meta.get_float("nan"), kInvalid, "\"nan\" is nan, expected a finite number");
  expect_error(meta.get_float("u32"), kInvalid, "expected f32 or f64");
  expect_error(meta.get_bool("u8"), kInvalid, "has the type u8, expected bool");
  expect_error(meta.get_string("bool"), kInvalid, "has the type bool, expected string");
  expect_error(meta.get_array<float>("array.u8"), kInvalid, "has the type array of u8, expected array of f32");
  expect_error(meta.get_array<float>("f32"), kInvalid, "has the type f32, expected array of f32");
}

}  // namespace
}  // namespace bitnet
