#include "format/npy.h"

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

TEST(Npy, ReadsWhatNumpySaves) {
  EXPECT_EQ(*npy_ids(npy("<i4", "(3,)", {1, 0, 0, 0, 0, 1, 0, 0, 7, 0, 0, 0}), "x"), (std::vector<int32_t>{1, 256, 7}));
  EXPECT_EQ(*npy_ids(npy("<i8", "(1, 1)", {9, 0, 0, 0, 0, 0, 0, 0}), "x"), (std::vector<int32_t>{9}));
  EXPECT_EQ(*npy_floats(npy("<f2", "(2,)", {0, 0x3c, 0, 0xc0}), "x"), (std::vector<float>{1.0f, -2.0f}));
  EXPECT_EQ(*npy_floats(npy("<f4", "()", {0, 0, 0x20, 0x40}), "x"), (std::vector<float>{2.5f}));
  EXPECT_EQ(parse_npy(npy("|u1", "(2, 3)", {1, 2, 3, 4, 5, 6}), "x")->shape, (std::vector<int64_t>{2, 3}));
  EXPECT_TRUE(npy_ids(npy("<i4", "(0,)", {}), "x")->empty());
}

TEST(Npy, RefusesWhatItCannotTrust) {
  EXPECT_FALSE(parse_npy({}, "x"));
  EXPECT_FALSE(npy_ids(npy("<i4", "(2,)", {1, 0, 0, 0}), "x"));
  EXPECT_FALSE(npy_ids(npy("<i4", "(9223372036854775807, 8)", {1, 0, 0, 0}), "x"));
  EXPECT_FALSE(npy_ids(npy("<f4", "(1,)", {0, 0, 0, 0}), "x"));
  EXPECT_FALSE(npy_ids(npy("<i4", "(1,)", {255, 255, 255, 255}), "x"));
  EXPECT_FALSE(npy_floats(npy(">f4", "(1,)", {0, 0, 0, 0}), "x"));
  EXPECT_FALSE(npy_floats(npy("<f4", "(1, 1)", {0, 0, 0, 0}, "True"), "x"));
  EXPECT_FALSE(npy_floats(npy("<f4", "(x,)", {0, 0, 0, 0}), "x"));
  auto cut = npy("<f4", "(1,)", {0, 0, 0, 0});
  for (size_t n = 0; n < cut.size(); ++n) EXPECT_FALSE(npy_floats(std::span(cut).first(n), "x")) << n;
}

}  // namespace
}  // namespace bitnet
