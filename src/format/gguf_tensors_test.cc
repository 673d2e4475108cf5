#include "format/gguf.h"
#include "format/test_bytes.h"

#include <gtest/gtest.h>
#include <chrono>
#include <string>
#include <vector>

// The tensor table and where the data lie: what is refused, and what is read though it is unusual.
namespace bitnet {
namespace {

using testing::Bytes;
using testing::gguf_info;
using testing::GgufParts;
using testing::MalformedCase;

constexpr uint64_t k2_16 = uint64_t{1} << 16, k2_31 = uint64_t{1} << 31, k2_32 = uint64_t{1} << 32,
                   k2_62 = uint64_t{1} << 62;
constexpr uint32_t kF32 = 0, kQ8_0 = 8, kI8 = 24, kTQ2_0 = 35, kI2_S = 36;
constexpr auto kInvalid = ErrorCode::kInvalidInput;
constexpr auto kUnsupported = ErrorCode::kUnsupported;

Bytes with_infos(const std::vector<Bytes>& infos, size_t data_bytes) {
  return GgufParts{.infos = infos, .data = Bytes().zeros(data_bytes)}.file();
}
Bytes with_shape(const std::vector<uint64_t>& dims, uint32_t type = kF32) {
  return with_infos({gguf_info("bad", dims, type, 0)}, 64);
}
Bytes with_type(uint32_t type) { return with_shape({256}, type); }

const std::vector<MalformedCase>& cases() {
  static const std::vector<MalformedCase> kCases = {
      {"G23", with_infos({gguf_info("t", {4}, kF32, 0), gguf_info("t", {4}, kF32, 32)}, 48), kInvalid,
       "\"t\" appears twice"},
      {"G24_5", with_shape({1, 1, 1, 1, 1}), kInvalid, "5 dimensions, expected 1 to 4"},
      {"G24_max", with_infos({Bytes().string("bad").u32(0xffffffff).zeros(40)}, 0), kInvalid, "4294967295 dimensions"},
      {"G25", with_infos({Bytes().string("bad").u32(0).u32(kF32).u64(0).zeros(16)}, 4), kInvalid,
       "0 dimensions, expected 1 to 4 (tensor \"bad\")"},
      {"G26", with_shape({4, 0}), kInvalid, "the dimension 0 is not between 1"},
      {"G27", with_shape({~uint64_t{0}}), kInvalid, "the dimension 18446744073709551615"},
      {"G28", with_shape({k2_32, k2_32}), kInvalid, "more values than 64 bits can count (tensor \"bad\")"},
      {"G29", with_shape({k2_16, k2_16, k2_16, k2_16}), kInvalid, "more values than 64 bits"},
      {"G30_2_63", with_shape({k2_32, k2_31}, kI8), kInvalid, "more bytes than a file can have"},
      {"G30_wrap", with_shape({k2_62 + 2, 2}, kI8), kInvalid, "more bytes than a file can have"},
      {"G31", with_shape({k2_62 - 1}), kInvalid, "more bytes than a file can have"},
      {"G32", with_shape({542551296285575072}, kQ8_0), kInvalid, "beyond the end of the file"},
      {"G33", with_shape({255}, kTQ2_0), kInvalid, "TQ2_0 stores blocks of 256 values"},
      {"G33_row", with_shape({128, 2}, kTQ2_0), kInvalid, "128 of each row"},
      {"G33_i2s", with_shape({192}, kI2_S), kInvalid, "I2_S stores blocks of 128 values"},
      {"G34_minus_1", with_type(0xffffffff), kInvalid, "tensor type 4294967295 (unknown)"},
      {"G34_4", with_type(4), kUnsupported, "tensor type 4 (Q4_2 (removed from ggml))"},
      {"G34_5", with_type(5), kUnsupported, "Q4_3"},
      {"G34_31", with_type(31), kUnsupported, "Q4_0_4_4"},
      {"G34_38", with_type(38), kUnsupported, "tensor type 38 (TL1 (bitnet.cpp))"},
      {"G34_39", with_type(39), kUnsupported, "TL2 (bitnet.cpp) or MXFP4 (ggml)"},
      {"G34_40", with_type(40), kUnsupported, "NVFP4"},
      {"G34_136", with_type(136), kUnsupported, "Q8_K64 (ik_llama.cpp)"},
      {"G34_143", with_type(143), kUnsupported, "PTQ1_0"},
      {"G34_count", with_type(43), kInvalid, "tensor type 43 (unknown)"},
      {"G34_2_31", with_type(uint32_t{1} << 31), kInvalid, "tensor type 2147483648 (unknown)"},
      {"G35", with_infos({gguf_info("bad", {4}, kF32, 16)}, 64), kInvalid,
       "the offset 16 is not a multiple of the alignment 32"},
      {"G36_beyond", with_infos({gguf_info("bad", {4}, kF32, 64)}, 64), kInvalid, "beyond the end of the file"},
      {"G36_minus_32", with_infos({gguf_info("bad", {4}, kF32, ~uint64_t{31})}, 64), kInvalid,
       "beyond the end of the file"},
      {"G36_wrap", with_infos({gguf_info("bad", {64}, kF32, ~uint64_t{127})}, 64), kInvalid,
       "beyond the end of the file"},
      {"G37_same", with_infos({gguf_info("a", {8}, kF32, 0), gguf_info("b", {8}, kF32, 0)}, 64), kInvalid, "overlap"},
      {"G37_part", with_infos({gguf_info("a", {9}, kF32, 0), gguf_info("b", {8}, kF32, 32)}, 64), kInvalid,
       "\"b\" at byte 128 overlap those of tensor \"a\""},
      {"G40_short", with_infos({gguf_info("bad", {4}, kF32, 0)}, 15), kInvalid, "end of the file at byte 79"},
      {"G41", with_infos({gguf_info("a", {4}, kF32, 0)}, 33), kInvalid, "17 bytes follow the end of the last tensor"},
      {"G41_aligned", with_infos({gguf_info("a", {8}, kF32, 0)}, 64), kInvalid, "32 bytes follow"},
      {"B04", with_infos({gguf_info("bad", {128}, kI2_S, 0)}, 32), kInvalid, "64 bytes at offset 0"},
  };
  return kCases;
}

class MalformedTensor : public ::testing::TestWithParam<MalformedCase> {};

TEST_P(MalformedTensor, IsRefused) {
  const MalformedCase& c = GetParam();
  testing::expect_error(GgufFile::parse(c.file.span(), "bad.gguf"), c.code, c.part);
}
INSTANTIATE_TEST_SUITE_P(Gguf, MalformedTensor, ::testing::ValuesIn(cases()), testing::id_of_case);

void expect_places(const Bytes& file, const std::vector<uint64_t>& from_data_begin, uint64_t data_begin) {
  const auto gguf = GgufFile::parse(file.span(), "good.gguf");
  ASSERT_TRUE(gguf) << gguf.error().message;
  ASSERT_EQ(gguf->tensors().size(), from_data_begin.size());
  for (size_t i = 0; i < from_data_begin.size(); ++i) {
    EXPECT_EQ(gguf->tensors()[i].offset_bytes, data_begin + from_data_begin[i]) << "tensor " << i;
  }
}

TEST(GgufTensors, G38HolesAreSkipped) {
  expect_places(with_infos({gguf_info("a", {4}, kF32, 32), gguf_info("b", {4}, kF32, 128)}, 144), {32, 128}, 96);
}

TEST(GgufTensors, G39AnyOrderIsRead) {
  expect_places(with_infos({gguf_info("a", {4}, kF32, 32), gguf_info("b", {8}, kF32, 0)}, 48), {32, 0}, 96);
}

TEST(GgufTensors, G40PaddingAfterTheLastTensorMayBeThereOrNot) {
  for (const size_t data_bytes : {16, 17, 31, 32}) {
    expect_places(with_infos({gguf_info("a", {4}, kF32, 0)}, data_bytes), {0}, 64);
  }
}

TEST(GgufTensors, AFileOfMetadataAloneMayBePadded) {
  const Bytes file = GgufParts{.keys = {testing::gguf_u32("k", 7)}}.file();
  EXPECT_TRUE(GgufFile::parse(file.span(), "f"));
  EXPECT_TRUE(GgufFile::parse(Bytes(file).pad(32).span(), "f"));
  EXPECT_FALSE(GgufFile::parse(Bytes(file).pad(32).u8(0).span(), "f"));
}

TEST(GgufTensors, B06I2sHasOneTailATensor) {
  // [K = 64, N = 2] in the file's order: rows of 64 share a block of 128.
  const Bytes file = with_infos({gguf_info("w", {64, 2}, kI2_S, 0)}, 64);
  const auto gguf = GgufFile::parse(file.span(), "good.gguf");
  ASSERT_TRUE(gguf) << gguf.error().message;
  EXPECT_EQ(gguf->tensors()[0].size_bytes, 128u / 4 + 32);
  EXPECT_EQ(gguf->tensors()[0].shape, (Shape{2, 64}));
}

TEST(GgufTensors, Version2IsRead) {
  GgufParts parts{.version = 2, .infos = {gguf_info("a", {4, 2}, kF32, 0)}, .data = Bytes().zeros(32)};
  const Bytes file = parts.file();
  const auto gguf = GgufFile::parse(file.span(), "good.gguf");
  ASSERT_TRUE(gguf) << gguf.error().message;
  EXPECT_EQ(gguf->version(), 2u);
  EXPECT_EQ(gguf->find("a")->shape, (Shape{2, 4}));
}

// Quadratic work on these takes minutes, so a test that ends at all is the check; no time is asserted.
TEST(GgufTensors, G42ManyKeysAndTensors) {
  GgufParts parts;
  constexpr size_t kMany = 200000;
  for (size_t i = 0; i < kMany; ++i) {
    parts.keys.push_back(testing::gguf_u32("key." + std::to_string(i), uint32_t(i)));
    parts.infos.push_back(gguf_info("tensor." + std::to_string(i), {8}, kF32, 32 * i));
  }
  parts.data.zeros(32 * kMany);
  const Bytes file = parts.file();
  const auto begin = std::chrono::steady_clock::now();
  const auto gguf = GgufFile::parse(file.span(), "many.gguf");
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  RecordProperty("seconds", std::to_string(seconds.count()));
  ASSERT_TRUE(gguf) << gguf.error().message;
  EXPECT_EQ(*gguf->metadata().get_uint("key.199999", 0, UINT64_MAX), 199999u);
  EXPECT_EQ(gguf->find("tensor.123456")->offset_bytes, gguf->tensors()[0].offset_bytes + 32 * 123456);

  parts.infos.back() = gguf_info("tensor.5", {8}, kF32, 32 * (kMany - 1));
  testing::expect_error(GgufFile::parse(parts.file().span(), "many.gguf"), kInvalid, "\"tensor.5\" appears twice");
}

TEST(GgufTensors, DataAreReadInsideTheTensorOnly) {
  GgufParts parts{.infos = {gguf_info("a", {2}, kF32, 0), gguf_info("b", {2}, kF32, 32)}};
  parts.data.number(1.0f).number(2.0f).pad(32).number(3.0f).number(4.0f);
  const testing::TemporaryFolder folder;
  const std::string path = folder.write("two.gguf", parts.file().text());
  const Bytes bytes = parts.file();
  for (const auto& gguf : {GgufFile::open(path), GgufFile::parse(bytes.span(), "memory")}) {
    ASSERT_TRUE(gguf) << gguf.error().message;
    const StoredTensor& b = *gguf->find("b");
    float value = 0;
    ASSERT_TRUE(gguf->read(b, 4, std::as_writable_bytes(std::span(&value, 1))));
    EXPECT_EQ(value, 4.0f);
    EXPECT_EQ(gguf->read(b)->size(), 8u);
    testing::expect_error(gguf->read(b, 5, std::as_writable_bytes(std::span(&value, 1))), ErrorCode::kInvalidArgument,
                          "4 bytes from byte 5 of tensor \"b\"");
    testing::expect_error(gguf->read(b, UINT64_MAX, {}), ErrorCode::kInvalidArgument, "were asked for");
    StoredTensor stranger = b;
    stranger.offset_bytes = UINT64_MAX - 3;
    testing::expect_error(gguf->read(stranger), ErrorCode::kInvalidArgument, "has no tensor");
    EXPECT_EQ(gguf->find("c"), nullptr);
  }
}

TEST(GgufTensors, AFileThatShrinksGivesAnError) {
  const testing::TemporaryFolder folder;
  const std::string path = folder.write("t.gguf", with_infos({gguf_info("a", {8}, kF32, 0)}, 32).text());
  const auto gguf = GgufFile::open(path);
  ASSERT_TRUE(gguf);
  std::filesystem::resize_file(path, 80);
  testing::expect_error(gguf->read(gguf->tensors()[0]), kInvalid, "ends at byte 80");
}

TEST(GgufTypes, NumbersAndTypesAgree) {
  int n_known = 0;
  for (uint32_t id = 0; id < 500; ++id) {
    const auto type = dtype_from_ggml(id);
    if (!type) continue;
    ++n_known;
    EXPECT_EQ(ggml_from_dtype(*type), id);
    EXPECT_EQ(ggml_type_name(id), dtype_info(*type).name);
  }
  EXPECT_EQ(n_known, 25);
  EXPECT_FALSE(ggml_from_dtype(DType::kBool));
}

}  // namespace
}  // namespace bitnet
