#include "format/torch_archive.h"

#include "format/test_torch_archive.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

// What is read. Refusals: torch_archive_malformed_test.cc.
namespace bitnet {
namespace {

using namespace testing;

std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

std::vector<std::byte> read_all(const TorchArchive& archive, const std::string& name) {
  const StoredTensor* tensor = archive.find(name);
  if (tensor == nullptr) {
    ADD_FAILURE() << name << " is not there";
    return {};
  }
  std::vector<std::byte> out(tensor->size_bytes);
  const Status status = archive.read(*tensor, 0, out);
  EXPECT_TRUE(status) << status.error().message;
  return out;
}

std::vector<ArchiveTensor> one_of_each_type() {
  std::vector<ArchiveTensor> tensors;
  for (const DType type : {DType::kBF16, DType::kF32, DType::kF16, DType::kI8, DType::kU8, DType::kI32, DType::kI64}) {
    const auto n = size_t(6 * dtype_info(type).block_bytes);
    tensors.push_back(
        {"t." + std::string(dtype_info(type).name), type, {2, 3}, counting_bytes(n, int(tensors.size()))});
  }
  return tensors;
}

void expect_all(const TorchArchive& archive, const std::vector<ArchiveTensor>& tensors) {
  ASSERT_EQ(archive.tensors().size(), tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    const StoredTensor& found = archive.tensors()[i];
    EXPECT_EQ(found.name, tensors[i].name);
    EXPECT_EQ(found.dtype, tensors[i].dtype);
    EXPECT_EQ(found.shape, tensors[i].shape);
    EXPECT_EQ(archive.find(found.name), &found);
    EXPECT_EQ(read_all(archive, found.name), tensors[i].data) << found.name;
  }
}

TEST(TorchArchiveTest, EveryTypeInMemoryAndFromAFile) {
  const auto tensors = one_of_each_type();
  const std::string file = torch_parts(tensors).file();
  const auto parsed = TorchArchive::parse(bytes_of(file), "m.pt");
  ASSERT_TRUE(parsed) << parsed.error().message;
  expect_all(*parsed, tensors);
  EXPECT_EQ(parsed->file(), nullptr);
  const TemporaryFolder folder;
  const auto opened = TorchArchive::open(folder.write("m.pt", file));
  ASSERT_TRUE(opened) << opened.error().message;
  expect_all(*opened, tensors);
  EXPECT_EQ(opened->size_bytes(), file.size());
  EXPECT_TRUE(is_zip_archive(folder.file("m.pt")));
  EXPECT_FALSE(is_zip_archive(folder.write("short", "PK")));
  EXPECT_FALSE(is_zip_archive(folder.path()));
  std::byte byte{};
  EXPECT_FALSE(opened->read(opened->tensors()[0], 12, std::span(&byte, 1)));
}

TEST(TorchArchiveTest, EveryWayToWriteAZip) {
  const auto tensors = one_of_each_type();
  const auto check = [&](const char* what, auto change) {
    SCOPED_TRACE(what);
    ZipParts zip = torch_parts(tensors);
    change(zip);
    const std::string file = zip.file();
    const auto parsed = TorchArchive::parse(bytes_of(file), "m.pt");
    ASSERT_TRUE(parsed) << parsed.error().message;
    expect_all(*parsed, tensors);
  };
  check("plain", [](ZipParts& zip) { zip.zip64 = false; });
  check("comment", [](ZipParts& zip) { zip.comment = "PK\x05\x06 is no end, nor is " + std::string(30, 'x'); });
  check("64 bits", [](ZipParts& zip) {
    for (ZipPart& part : zip.parts) part.in_zip64 = true;
  });
  check("descriptor", [](ZipParts& zip) {
    for (ZipPart& part : zip.parts) {
      part.flags = 8;
      part.behind = std::string("PK\x07\x08") + std::string(12, '\0');
    }
  });
  check("other entries", [](ZipParts& zip) { zip.parts.push_back({"elsewhere/data/9", "x"}); });
  check("no byte order", [](ZipParts& zip) { zip.parts.erase(zip.parts.begin() + 1); });
  check("another order", [](ZipParts& zip) { std::reverse(zip.parts.begin(), zip.parts.end()); });
}

TEST(TorchArchiveTest, ViewsOfOneStorage) {
  const std::vector<std::byte> data = counting_bytes(24);
  Pickle pickle;
  pickle.raw("}(").text("whole").tensor("FloatStorage", "0", 6, 0, {2, 3}, {3, 1});
  pickle.text("row").tensor("FloatStorage", "0", 6, 3, {1, 3}, {77, 1});  // the stride of one row is never used
  pickle.text("column").tensor("FloatStorage", "0", 6, 1, {2, 1}, {1, 2});
  pickle.text("scalar").tensor("FloatStorage", "0", 6, 5, {}, {});
  pickle.text("empty").tensor("FloatStorage", "0", 6, 6, {0, 3}, {0, 0});
  ZipParts zip;
  zip.parts = {{"m/data.pkl", pickle.raw("u.").bytes()}, {"m/data/0", std::string(24, '\0')}};
  std::memcpy(zip.parts[1].data.data(), data.data(), 24);
  const std::string file = zip.file();
  const auto archive = TorchArchive::parse(bytes_of(file), "m.pt");
  ASSERT_TRUE(archive) << archive.error().message;
  EXPECT_EQ(read_all(*archive, "whole"), data);
  EXPECT_EQ(read_all(*archive, "row"), std::vector<std::byte>(data.begin() + 12, data.end()));
  EXPECT_EQ(read_all(*archive, "column"), std::vector<std::byte>(data.begin() + 4, data.begin() + 12));
  EXPECT_EQ(read_all(*archive, "scalar"), std::vector<std::byte>(data.begin() + 20, data.end()));
  EXPECT_TRUE(read_all(*archive, "empty").empty());
}

// collections.OrderedDict with attributes, as Module.state_dict() gives it; lists and None inside of those.
TEST(TorchArchiveTest, StateDictOfAModule) {
  Pickle pickle;
  pickle.global("collections", "OrderedDict").raw("q\x01)Rq\x02(").text("w");
  pickle.tensor("ByteStorage", "0", 2, 0, {2}, {1}).raw("u}").text("_metadata").raw("h\x01)R");
  pickle.text("list")
      .raw(
          "](K\x01M\x02\x03NeK\x05"
          "as")
      .raw("sb.");
  ZipParts zip;
  zip.parts = {{"m/data.pkl", pickle.bytes()}, {"m/data/0", "ab"}};
  const std::string file = zip.file();
  const auto archive = TorchArchive::parse(bytes_of(file), "m.pt");
  ASSERT_TRUE(archive) << archive.error().message;
  EXPECT_EQ(read_all(*archive, "w"), (std::vector<std::byte>{std::byte('a'), std::byte('b')}));
}

// Written by PyTorch 2.11 (tests/golden/make_microsoft_golden.py).
TEST(TorchArchiveTest, AFileOfPyTorch) {
  const auto archive = TorchArchive::open(BITNET_SOURCE_DIR "/tests/data/microsoft/tiny/model_state_int2.pt");
  ASSERT_TRUE(archive) << archive.error().message;
  ASSERT_EQ(archive->tensors().size(), 15u);
  const StoredTensor* qkv = archive->find("layers.0.attention.wqkv.weight");
  ASSERT_NE(qkv, nullptr);
  EXPECT_EQ(qkv->dtype, DType::kI8);
  EXPECT_EQ(qkv->shape, (Shape{512, 64}));
  EXPECT_EQ(archive->find("layers.0.attention.wqkv.weight_scale")->dtype, DType::kBF16);
  EXPECT_EQ(read_all(*archive, "tok_embeddings.weight"), read_all(*archive, "output.weight"));
}

// model_state_fp16.pt of BitNet b1.58 2B4T has 4.8 GB: offsets that take more than 32 bits.
TEST(ZipArchiveTest, BeyondFourGigabytes) {
  ZipParts zip;
  zip.in_front = (uint64_t{5} << 30) + 7;
  zip.parts = {{"a", "first"}, {"b", "second"}};
  for (ZipPart& part : zip.parts) part.in_zip64 = true;
  const std::string end = zip.file();
  const ReadBytes read = [&](uint64_t offset, std::span<std::byte> out) -> Status {
    EXPECT_LE(offset + out.size(), zip.in_front + end.size());
    for (std::byte& byte : out) {
      byte = offset < zip.in_front ? std::byte{} : std::byte(end[size_t(offset - zip.in_front)]);
      ++offset;
    }
    return ok();
  };
  const auto entries = read_zip_directory("big.pt", zip.in_front + end.size(), read);
  ASSERT_TRUE(entries) << entries.error().message;
  ASSERT_EQ(entries->size(), 2u);
  EXPECT_EQ((*entries)[1].name, "b");
  EXPECT_EQ((*entries)[1].offset_bytes, zip.in_front + end.find("second"));
  EXPECT_EQ((*entries)[1].size_bytes, 6u);
}

// Cut or spoilt anywhere, an archive gives an error or tensors that lie inside of it.
TEST(TorchArchiveTest, CutAndSpoiltAnywhere) {
  const std::string whole =
      torch_parts({{"a", DType::kF32, {2}, counting_bytes(8)}, {"b", DType::kI8, {3}, counting_bytes(3)}}).file();
  for (size_t n = 0; n < whole.size(); ++n) {
    const std::string cut = whole.substr(0, n);
    EXPECT_FALSE(TorchArchive::parse(bytes_of(cut), "m.pt")) << n << " bytes";
  }
  for (size_t i = 0; i < whole.size() * 8; ++i) {
    std::string spoilt = whole;
    spoilt[i / 8] = char(spoilt[i / 8] ^ 1 << i % 8);
    const auto archive = TorchArchive::parse(bytes_of(spoilt), "m.pt");
    if (!archive) {
      EXPECT_EQ(archive.error().message.find("m.pt: "), 0u);
      continue;
    }
    for (const StoredTensor& tensor : archive->tensors()) {
      EXPECT_LE(tensor.offset_bytes + tensor.size_bytes, spoilt.size());
      std::vector<std::byte> out(tensor.size_bytes);
      EXPECT_TRUE(archive->read(tensor, 0, out));
    }
  }
}

}  // namespace
}  // namespace bitnet
