#include "format/safetensors.h"
#include "format/test_bytes.h"

#include <gtest/gtest.h>
#include <filesystem>
#include <string>
#include <vector>

namespace bitnet {
namespace {

namespace fs = std::filesystem;
using testing::expect_error;
using testing::safetensors;

constexpr auto kArgument = ErrorCode::kInvalidArgument;
constexpr auto kInvalid = ErrorCode::kInvalidInput;

std::vector<std::byte> counting_bytes(size_t n, int first = 0) {
  std::vector<std::byte> bytes(n);
  for (size_t i = 0; i < n; ++i) bytes[i] = std::byte(first + int(i) * 3);
  return bytes;
}

TEST(SafetensorsWriter, BytesAreThoseOfTheDocument) {
  const testing::TemporaryFolder folder;
  auto writer = SafetensorsWriter::create(folder.file("t.safetensors"));
  ASSERT_TRUE(writer);
  ASSERT_TRUE(writer->add_metadata("format", "pt"));
  ASSERT_TRUE(writer->add_tensor("w", DType::kU8, {2, 3}));
  ASSERT_TRUE(writer->begin_data());
  ASSERT_TRUE(writer->write_data(counting_bytes(6)));
  ASSERT_TRUE(writer->finish());
  std::string header = R"({"__metadata__":{"format":"pt"},"w":{"dtype":"U8","shape":[2,3],"data_offsets":[0,6]}})";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  EXPECT_EQ(*read_file(folder.file("t.safetensors")),
            safetensors(header).raw(std::string_view("\x00\x03\x06\x09\x0c\x0f", 6)).text());
}

TEST(SafetensorsWriter, TensorsOfEveryTypeComeBack) {
  const testing::TemporaryFolder folder;
  const std::string path = folder.file("t.safetensors");
  const DType types[] = {DType::kF64,  DType::kI64, DType::kU64, DType::kF32, DType::kI32, DType::kU32, DType::kF16,
                         DType::kBF16, DType::kI16, DType::kU16, DType::kI8,  DType::kU8,  DType::kBool};
  auto writer = SafetensorsWriter::create(path);
  ASSERT_TRUE(writer->add_metadata("a \"key\"\n", "a \\ value \xe2\x96\x81"));
  ASSERT_TRUE(writer->add_tensor("empty.first", DType::kF64, {0, 3}));
  for (const DType type : types) {
    ASSERT_TRUE(writer->add_tensor("t." + std::string(dtype_info(type).name), type, {3, 2}));
  }
  ASSERT_TRUE(writer->add_tensor("scalar \"quoted\"", DType::kU8, {}));
  ASSERT_TRUE(writer->add_tensor("empty.last", DType::kU8, {0}));
  ASSERT_TRUE(writer->begin_data());
  for (const DType type : types) {
    const auto data = counting_bytes(size_t(6 * dtype_info(type).block_bytes), int(type));
    ASSERT_TRUE(writer->write_data(std::span(data).first(4)));
    ASSERT_TRUE(writer->write_data(std::span(data).subspan(4)));
  }
  ASSERT_TRUE(writer->write_data(counting_bytes(1, 99)));
  ASSERT_TRUE(writer->finish());

  const auto file = SafetensorsFile::open(path);
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(file->metadata().at("a \"key\"\n"), "a \\ value \xe2\x96\x81");
  EXPECT_EQ(file->tensors().size(), std::size(types) + 3);
  for (const DType type : types) {
    const StoredTensor* tensor = file->find("t." + std::string(dtype_info(type).name));
    ASSERT_NE(tensor, nullptr);
    EXPECT_EQ(tensor->dtype, type);
    EXPECT_EQ(tensor->shape, (Shape{3, 2}));
    EXPECT_EQ(tensor->offset_bytes % uint64_t(dtype_info(type).block_bytes), 0u);
    EXPECT_EQ(*file->read(*tensor), counting_bytes(size_t(6 * dtype_info(type).block_bytes), int(type)));
  }
  EXPECT_EQ(*file->read(*file->find("scalar \"quoted\"")), counting_bytes(1, 99));
  EXPECT_EQ(file->read(*file->find("empty.first"))->size(), 0u);
  std::byte byte{};
  expect_error(file->read(*file->find("t.U8"), 6, std::span(&byte, 1)), kArgument, "1 bytes from byte 6 of tensor");
}

TEST(SafetensorsWriter, MistakesAreRefusedAndLeaveNoFile) {
  const testing::TemporaryFolder folder;
  {
    auto writer = SafetensorsWriter::create(folder.file("t.safetensors"));
    ASSERT_TRUE(writer->add_metadata("k", "v"));
    expect_error(writer->add_metadata("k", "w"), kArgument, "\"k\" is there already");
    expect_error(writer->add_metadata("u", "\xff"), kArgument, "not UTF-8");
    for (const char* name : {"", "__metadata__", "\xff"}) {
      expect_error(writer->add_tensor(name, DType::kU8, {1}), kArgument, "cannot be a tensor's name");
    }
    expect_error(writer->add_tensor("q", DType::kI2_S, {128}), ErrorCode::kUnsupported, "safetensors cannot hold");
    expect_error(writer->add_tensor("n", DType::kU8, {-1}), kArgument, "tensor \"n\"");
    expect_error(writer->add_tensor("n", DType::kU8, Shape(17, 1)), kArgument, "17 dimensions");
    ASSERT_TRUE(writer->add_tensor("t", DType::kU8, {3}));
    expect_error(writer->add_tensor("t", DType::kU8, {3}), kArgument, "\"t\" is there already");
    expect_error(writer->add_tensor("f", DType::kF32, {3}), kArgument, "tensors of wide elements first");
    expect_error(writer->write_data(counting_bytes(1)), kArgument, "outside the data section");
    ASSERT_TRUE(writer->begin_data());
    expect_error(writer->add_tensor("z", DType::kU8, {3}), kArgument, "written already");
    expect_error(writer->write_data(counting_bytes(4)), kArgument, "4 bytes of data for tensor \"t\", which takes 3");
    expect_error(writer->finish(), kArgument, "tensor \"t\" has 0 of its 3 bytes");
    ASSERT_TRUE(writer->write_data(counting_bytes(3)));
    expect_error(writer->write_data(counting_bytes(1)), kArgument, "after the last tensor");
  }
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

// Two shards, the first with tensor "a" and the second with "b".
class Shards : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_.write("one.safetensors", shard("a", 1));
    folder_.write("two.safetensors", shard("b", 2));
  }
  static std::string shard(const std::string& name, uint8_t value) {
    return safetensors("{\"" + name + R"(":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})").u8(value).text();
  }
  void index(const std::string& weight_map) const {
    folder_.write("model.safetensors.index.json", R"({"metadata":{"total_size":2},"weight_map":)" + weight_map + "}");
  }
  Result<SafetensorsFolder> open() const { return SafetensorsFolder::open(folder_.path()); }
  testing::TemporaryFolder folder_;
};

TEST_F(Shards, AreReadAsOne) {
  index(R"({"b":"two.safetensors","a":"one.safetensors"})");
  const auto folder = open();
  ASSERT_TRUE(folder) << folder.error().message;
  ASSERT_EQ(folder->tensors().size(), 2u);
  const auto* b = folder->find("b");
  ASSERT_NE(b, nullptr);
  EXPECT_EQ((*b->file->read(*b->tensor))[0], std::byte{2});
  EXPECT_EQ(folder->find("c"), nullptr);
  EXPECT_EQ(folder->size_bytes(), shard("a", 1).size() + shard("b", 2).size());
}

TEST_F(Shards, ASingleFileComesFirst) {
  index(R"({"b":"two.safetensors","a":"one.safetensors"})");
  folder_.write("model.safetensors", shard("c", 3));
  const auto folder = open();
  ASSERT_TRUE(folder);
  EXPECT_EQ(folder->tensors().size(), 1u);
  EXPECT_NE(folder->find("c"), nullptr);
}

TEST_F(Shards, ST24NamesWithPathsAreRefused) {
  for (const char* name : {"../../etc/passwd", "/etc/passwd", "..", ".", "", "x/one.safetensors",
                           "..\\\\one.safetensors", "one.safetensors\\u0000.txt"}) {
    index(std::string(R"({"a":")") + name + R"("})");
    expect_error(open(), kInvalid, "expected a name without a path");
  }
}

TEST_F(Shards, ST24LinksOutOfTheFolderAreRefused) {
  const testing::TemporaryFolder outside;
  outside.write("x.safetensors", shard("a", 1));
  fs::create_symlink(outside.file("x.safetensors"), folder_.file("link.safetensors"));
  index(R"({"a":"link.safetensors"})");
  expect_error(open(), kInvalid, "outside the folder");
  fs::remove(folder_.file("link.safetensors"));
  fs::create_symlink("one.safetensors", folder_.file("link.safetensors"));
  EXPECT_TRUE(open());
  fs::remove(folder_.file("link.safetensors"));
  fs::create_symlink("link.safetensors", folder_.file("link.safetensors"));
  expect_error(open(), kInvalid, "cannot be opened");
}

TEST_F(Shards, LinksIntoTheBlobsOfAHuggingFaceCacheAreFollowed) {
  const fs::path model = folder_.file("models--x");
  fs::create_directories(model / "blobs");
  fs::create_directories(model / "snapshots" / "1234");
  folder_.write("models--x/blobs/abcd", shard("a", 1));
  fs::create_symlink("../../blobs/abcd", model / "snapshots" / "1234" / "s.safetensors");
  folder_.write("models--x/snapshots/1234/model.safetensors.index.json", R"({"weight_map":{"a":"s.safetensors"}})");
  const auto cached = SafetensorsFolder::open((model / "snapshots" / "1234").string());
  ASSERT_TRUE(cached) << cached.error().message;
  EXPECT_NE(cached->find("a"), nullptr);
}

TEST_F(Shards, ST24ContradictionsAreRefused) {
  index(R"({"a":"three.safetensors"})");
  expect_error(open(), kInvalid, "\"three.safetensors\", which cannot be opened");
  index(R"({"a":"one.safetensors","b":"one.safetensors"})");
  expect_error(open(), kInvalid, "tensor \"b\" is in \"one.safetensors\", which does not have it");
  folder_.write("three.safetensors", shard("a", 3));
  index(R"({"a":"one.safetensors","b":"two.safetensors","a2":"three.safetensors"})");
  expect_error(open(), kInvalid, "tensor \"a2\"");
  folder_.write("three.safetensors", safetensors(R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},)"
                                                 R"("c":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})")
                                         .text());
  index(R"({"a":"one.safetensors","c":"three.safetensors"})");
  expect_error(open(), kInvalid, "the tensor \"a\" is both in");
  index(R"({"a":"one.safetensors","a":"two.safetensors"})");
  expect_error(open(), kInvalid, "\"a\" appears twice");
  index(R"({"a":1})");
  expect_error(open(), kInvalid, "no file name for tensor \"a\"");
  index("[]");
  expect_error(open(), kInvalid, "\"weight_map\" is missing or not an object");
  folder_.write("model.safetensors.index.json", "[]");
  expect_error(open(), kInvalid, "\"weight_map\" is missing or not an object");
}

TEST_F(Shards, FoldersWithoutAModelAreRefused) {
  expect_error(open(), kInvalid, "has neither model.safetensors nor model.safetensors.index.json");
  expect_error(SafetensorsFolder::open(folder_.file("none")), kInvalid, "is not a folder");
  expect_error(SafetensorsFolder::open(folder_.file("one.safetensors")), kInvalid, "is not a folder");
}

}  // namespace
}  // namespace bitnet
