#include "format/npy.h"

#include "base/file.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>

namespace bitnet {
namespace {

// As numpy.save writes it: the header padded with spaces to a multiple of 64 and ended by a line feed.
std::vector<std::byte> npy(const std::string& descr, const std::string& shape, const std::vector<unsigned char>& data,
                           const std::string& order = "False") {
  std::string header = "{'descr': '" + descr + "', 'fortran_order': " + order + ", 'shape': " + shape + ", }";
  while ((10 + header.size() + 1) % 64 != 0) header += ' ';
  header += '\n';
  std::string file = std::string("\x93NUMPY\x01", 7) + std::string(1, '\0') + char(header.size() & 255) +
                     char(header.size() >> 8) + header;
  file.append(data.begin(), data.end());
  std::vector<std::byte> bytes(file.size());
  std::memcpy(bytes.data(), file.data(), file.size());
  return bytes;
}

Result<std::vector<float>> floats(std::span<const std::byte> file) {
  BN_ASSIGN_OR_RETURN(const Tensor tensor, parse_npy(file, "x"));
  return to_vector<float>(tensor);
}

TEST(Npy, ReadsWhatNumpySaves) {
  EXPECT_EQ(*npy_ids(npy("<i4", "(3,)", {1, 0, 0, 0, 0, 1, 0, 0, 7, 0, 0, 0}), "x"), (std::vector<int32_t>{1, 256, 7}));
  EXPECT_EQ(*npy_ids(npy("<i8", "(1, 1)", {9, 0, 0, 0, 0, 0, 0, 0}), "x"), (std::vector<int32_t>{9}));
  EXPECT_EQ(*npy_ids(npy("|i1", "(2,)", {9, 127}), "x"), (std::vector<int32_t>{9, 127}));
  EXPECT_EQ(*floats(npy("<f2", "(2,)", {0, 0x3c, 0, 0xc0})), (std::vector<float>{1.0f, -2.0f}));
  EXPECT_EQ(*floats(npy("<f4", "()", {0, 0, 0x20, 0x40})), (std::vector<float>{2.5f}));
  EXPECT_EQ(parse_npy(npy("|u1", "(2, 3)", {1, 2, 3, 4, 5, 6}), "x")->shape(), (Shape{2, 3}));
  EXPECT_TRUE(npy_ids(npy("<i4", "(0,)", {}), "x")->empty());
  // Columns one after another.
  const Tensor turned = *parse_npy(npy("|u1", "(2, 3)", {1, 2, 3, 4, 5, 6}, "True"), "x");
  EXPECT_EQ(turned.shape(), (Shape{2, 3}));
  EXPECT_EQ(*to_vector<int32_t>(turned), (std::vector<int32_t>{1, 3, 5, 2, 4, 6}));
}

TEST(Npy, RefusesWhatItCannotTrust) {
  EXPECT_FALSE(parse_npy({}, "x"));
  EXPECT_FALSE(npy_ids(npy("<i4", "(2,)", {1, 0, 0, 0}), "x"));
  EXPECT_FALSE(npy_ids(npy("<i4", "(9223372036854775807, 8)", {1, 0, 0, 0}), "x"));
  EXPECT_FALSE(npy_ids(npy("<f4", "(1,)", {0, 0, 0, 0}), "x"));
  EXPECT_FALSE(npy_ids(npy("<i4", "(1,)", {255, 255, 255, 255}), "x"));
  EXPECT_FALSE(npy_ids(npy("|b1", "(1,)", {1}), "x"));
  EXPECT_FALSE(parse_npy(npy("|b1", "(2,)", {1, 2}), "x"));
  EXPECT_FALSE(floats(npy(">f4", "(1,)", {0, 0, 0, 0})));
  EXPECT_FALSE(floats(npy("<f4", "(1, 1)", {0, 0, 0, 0}, "Maybe")));
  EXPECT_FALSE(floats(npy("<f4", "(x,)", {0, 0, 0, 0})));
  auto cut = npy("<f4", "(1,)", {0, 0, 0, 0});
  for (size_t n = 0; n < cut.size(); ++n) EXPECT_FALSE(floats(std::span(cut).first(n))) << n;
}

TEST(Npy, WritesWhatItReads) {
  const std::string path = testing::TempDir() + "npy_test.npy";
  for (const DType type : {DType::kF32, DType::kF64, DType::kF16, DType::kI8, DType::kI16, DType::kI32, DType::kI64,
                           DType::kU8, DType::kU16, DType::kU32, DType::kU64, DType::kBool}) {
    for (const Shape& shape : {Shape{}, Shape{3}, Shape{0, 2}, Shape{2, 3, 5}}) {
      const Tensor values = *cast(*Tensor::normal(DType::kF32, shape, 1), type);
      const TensorView view = shape.size() > 1 ? *values.view().transpose() : values.view();
      ASSERT_TRUE(write_npy(path, view));
      const auto back = read_npy(path);
      ASSERT_TRUE(back) << back.error().message;
      EXPECT_EQ(back->dtype(), type);
      EXPECT_EQ(back->shape(), view.shape());
      EXPECT_EQ(*to_vector<double>(*back), *to_vector<double>(view));
    }
  }
  // Byte for byte what numpy.save writes.
  ASSERT_TRUE(write_npy(path, *Tensor::arange(DType::kU8, 1, 7)));
  const std::string file = *read_file(path);
  const auto expected = npy("|u1", "(6,)", {1, 2, 3, 4, 5, 6});
  EXPECT_EQ(file, std::string(reinterpret_cast<const char*>(expected.data()), expected.size()));
  EXPECT_EQ(write_npy(path, *Tensor::zeros(DType::kBF16, {1})).error().suggestion, "cast the values to F32 first");
}

}  // namespace
}  // namespace bitnet
