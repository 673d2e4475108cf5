#include "format/gguf_checksums.h"
#include "base/file.h"
#include "format/gguf.h"
#include "format/test_bytes.h"

#include <gtest/gtest.h>
#include <string>
#include <utility>
#include <vector>

namespace bitnet {
namespace {

using testing::Bytes;
using testing::counting_bytes;
using testing::expect_error;

// XXH3-64 with seed 0 of "abc" (the name "ab" and the data "c"), from the reference implementation.
TEST(GgufChecksums, AreXxh3OfNameAndData) {
  const testing::TemporaryFolder folder;
  auto writer = GgufWriter::create(folder.file("t.gguf"));
  ASSERT_TRUE(writer->add_checksums());
  ASSERT_TRUE(writer->add_tensor("ab", DType::kI8, {1}));
  ASSERT_TRUE(writer->begin_data());
  ASSERT_TRUE(writer->write_data(std::as_bytes(std::span("c", 1))));
  ASSERT_TRUE(writer->finish());
  const auto gguf = GgufFile::open(folder.file("t.gguf"));
  ASSERT_TRUE(gguf);
  const std::vector<uint64_t> expected = {layout_checksum(gguf->tensors()), 0x78af5f94892f3950u};
  EXPECT_EQ(**gguf->metadata().get_array<uint64_t>(kChecksumKey), expected);
}

class Damage : public ::testing::Test {
 protected:
  void SetUp() override {
    auto writer = GgufWriter::create(folder_.file("t.gguf"));
    ASSERT_TRUE(writer->add_checksums());
    for (const char* name : {"a", "b"}) ASSERT_TRUE(writer->add_tensor(name, DType::kI8, {8192}));
    ASSERT_TRUE(writer->begin_data());
    ASSERT_TRUE(writer->write_data(counting_bytes(8192, 1)));
    ASSERT_TRUE(writer->write_data(counting_bytes(8192, 2)));
    ASSERT_TRUE(writer->finish());
    text_ = *read_file(folder_.file("t.gguf"));
    const auto gguf = parse();
    a_ = gguf->tensors()[0];
    b_ = gguf->tensors()[1];
  }
  Result<GgufFile> parse() const { return GgufFile::parse(std::as_bytes(std::span(text_)), "t.gguf"); }
  Status verify(size_t i) const {
    const auto gguf = parse();
    BN_ASSIGN_OR_RETURN(const GgufChecksums checksums, GgufChecksums::read(*gguf));
    return checksums.verify(gguf->tensors()[i], *gguf->read(gguf->tensors()[i]));
  }
  GgufChecksums::Kind kind() const {
    const auto gguf = parse();
    return GgufChecksums::read(*gguf)->kind();
  }
  testing::TemporaryFolder folder_;
  std::string text_;
  StoredTensor a_, b_;
};

TEST_F(Damage, B09EveryFlippedBitIsNoticed) {
  for (size_t byte = 0; byte < 8192; byte += 37) {
    for (int bit = 0; bit < 8; ++bit) {
      text_[b_.offset_bytes + byte] ^= char(1 << bit);
      EXPECT_TRUE(verify(0));
      expect_error(verify(1), ErrorCode::kInvalidInput, "tensor \"b\" is damaged");
      text_[b_.offset_bytes + byte] ^= char(1 << bit);
    }
  }
  EXPECT_TRUE(verify(1));
}

TEST_F(Damage, B10SwappedTensorsAreNoticed) {
  std::swap_ranges(text_.begin() + long(a_.offset_bytes), text_.begin() + long(a_.offset_bytes + a_.size_bytes),
                   text_.begin() + long(b_.offset_bytes));
  expect_error(verify(0), ErrorCode::kInvalidInput, "tensor \"a\" is damaged");
  expect_error(verify(1), ErrorCode::kInvalidInput, "tensor \"b\" is damaged");
}

TEST_F(Damage, B11ZeroedAndRepeatedBlocksAreNoticed) {
  const std::string whole = text_;
  text_.replace(a_.offset_bytes + 4096, 4096, 4096, '\0');
  expect_error(verify(0), ErrorCode::kInvalidInput, "damaged");
  text_ = whole;
  text_.replace(a_.offset_bytes + 1, 4096, whole.substr(a_.offset_bytes, 4096));
  expect_error(verify(0), ErrorCode::kInvalidInput, "damaged");
}

TEST_F(Damage, B12ADamagedTableIsAnError) {
  const size_t table = text_.find(kChecksumKey) + std::string_view(kChecksumKey).size();
  const std::string whole = text_;
  text_[table + 4 + 4 + 8 + 8] ^= 1;  // type, element type, count, layout, first tensor
  expect_error(verify(0), ErrorCode::kInvalidInput, "damaged");
  EXPECT_TRUE(verify(1));
  text_ = whole;
  text_[table + 4] = 11;  // array of i64
  expect_error(verify(0), ErrorCode::kInvalidInput, "has the type array of i64, expected array of u64");
  text_ = whole;
  text_.replace(text_.find(kChecksumKey), 6, "BitNet");  // a file without the table is not checked
  EXPECT_EQ(kind(), GgufChecksums::Kind::kNone);
  EXPECT_TRUE(verify(0));
}

TEST_F(Damage, B10ExchangedNamesAreNoticed) {
  const size_t a = text_.find(std::string("\1\0\0\0\0\0\0\0a", 9)) + 8;
  const size_t b = text_.find(std::string("\1\0\0\0\0\0\0\0b", 9)) + 8;
  std::swap(text_[a], text_[b]);
  expect_error(verify(0), ErrorCode::kInvalidInput, "damaged");
  expect_error(verify(1), ErrorCode::kInvalidInput, "damaged");
}

// What llama.cpp's quantiser leaves: our table, copied, and tensors of other types or in another number.
TEST(GgufChecksums, B12ATableOfOtherTensorsIsNotUsed) {
  const StoredTensor was{"a", DType::kF32, {8}, 0, 32}, is{"a", DType::kF16, {8}, 0, 16};
  const auto kind = [](std::vector<uint64_t> entries) {
    Bytes table;
    table.u32(10).u64(entries.size());
    for (const uint64_t entry : entries) table.u64(entry);
    const Bytes file = testing::GgufParts{.keys = {testing::gguf_key(kChecksumKey, 9, table)},
                                          .infos = {testing::gguf_info("a", {8}, 1, 0)},
                                          .data = Bytes().zeros(16)}
                           .file();
    const auto gguf = GgufFile::parse(file.span(), "t.gguf");
    const auto checksums = GgufChecksums::read(*gguf);
    const bool passes = bool(checksums->verify(gguf->tensors()[0], *gguf->read(gguf->tensors()[0])));
    EXPECT_EQ(passes, checksums->kind() != GgufChecksums::Kind::kValid);
    return checksums->kind();
  };
  EXPECT_EQ(kind({layout_checksum({&is, 1}), 5}), GgufChecksums::Kind::kValid);
  EXPECT_EQ(kind({layout_checksum({&was, 1}), 5}), GgufChecksums::Kind::kOutdated);
  EXPECT_EQ(kind({layout_checksum({&is, 1}), 5, 5}), GgufChecksums::Kind::kOutdated);
  EXPECT_EQ(kind({}), GgufChecksums::Kind::kOutdated);
}

}  // namespace
}  // namespace bitnet
