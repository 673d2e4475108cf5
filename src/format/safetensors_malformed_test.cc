#include "format/safetensors.h"
#include "format/test_bytes.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <string>
#include <vector>

// Damaged and hostile .safetensors files, and unusual ones that are read; the numbers are those of
// docs/formats/safetensors.md.
namespace bitnet {
namespace {

using namespace std::string_literals;
using testing::Bytes;
using testing::MalformedCase;
using testing::safetensors;

constexpr auto kInvalid = ErrorCode::kInvalidInput;
constexpr auto kUnsupported = ErrorCode::kUnsupported;

std::string entry(const std::string& name, const std::string& dtype, const std::string& shape,
                  const std::string& offsets) {
  return fmt::format(R"("{}":{{"dtype":{},"shape":{},"data_offsets":{}}})", name, dtype, shape, offsets);
}
// One tensor "t" that is well but for the part given.
Bytes with_dtype(const std::string& dtype) { return safetensors("{" + entry("t", dtype, "[2]", "[0,8]") + "}", 8); }
Bytes with_shape(const std::string& shape) { return safetensors("{" + entry("t", "\"U8\"", shape, "[0,8]") + "}", 8); }
Bytes with_offsets(const std::string& offsets, size_t data_bytes = 8) {
  return safetensors("{" + entry("t", "\"F32\"", "[2]", offsets) + "}", data_bytes);
}
Bytes with_name(const std::string& name) { return safetensors("{" + entry(name, "\"U8\"", "[8]", "[0,8]") + "}", 8); }
std::string ten_tensors_at_one_place() {
  std::string header = "{";
  for (int i = 0; i < 10; ++i)
    header += (i == 0 ? "" : ",") + entry("t" + std::to_string(i), "\"U8\"", "[16]", "[0,16]");
  return header + "}";
}
const std::string kGood = "{" + entry("t", "\"F32\"", "[2]", "[0,8]") + "}";

const std::vector<MalformedCase>& cases() {
  static const std::vector<MalformedCase> kCases = {
      {"ST01_0", Bytes(), kInvalid, "has 0 bytes, too few"},
      {"ST01_7", Bytes("abcdefg"), kInvalid, "has 7 bytes, too few"},
      {"ST02_0", Bytes().u64(0), kInvalid, "not valid JSON"},
      {"ST02_1", Bytes().u64(1).raw("{"), kInvalid, "header: byte 1: not valid JSON"},
      {"ST02_max", Bytes().u64(~uint64_t{0}).raw("{}"), kInvalid, "the header's length is 18446744073709551615, more"},
      {"ST02_2_63", Bytes().u64(uint64_t{1} << 63).raw("{}"), kInvalid, "more than the limit of 100000000"},
      {"ST02_limit", Bytes().u64(100000001).raw("{}"), kInvalid, "100000001, more than the limit"},
      {"ST02_file", Bytes().u64(3).raw("{}"), kInvalid, "the header's length is 3, but 2 bytes follow"},
      {"ST02_lfs", Bytes("version https://git-lfs.github.com/spec/v1\n"), kInvalid, "git-LFS pointer"},
      {"ST02_gguf", Bytes("GGUF").u32(3).zeros(100), kInvalid, "it looks like a GGUF file"},
      {"ST03_cut", safetensors(kGood.substr(0, 20)), kInvalid, "not valid JSON"},
      {"ST03_utf8", with_name("\xff\xfe"), kInvalid, "ill-formed UTF-8"},
      {"ST03_bom", safetensors("\xef\xbb\xbf{}"), kInvalid, "byte order mark"},
      {"ST03_array", safetensors("[]"), kInvalid, "the header is an array, expected an object"},
      {"ST03_string", safetensors("\"x\""), kInvalid, "the header is the string \"x\", expected an object"},
      {"ST03_number", safetensors("1"), kInvalid, "the header is the number 1, expected an object"},
      {"ST04_nul", safetensors(kGood + "\0"s, 8), kInvalid, "NUL byte"},
      {"ST05", safetensors(kGood + "{}", 8), kInvalid, "not valid JSON"},
      {"ST06_tensor",
       safetensors("{" + entry("t", "\"U8\"", "[4]", "[0,4]") + "," + entry("t", "\"U8\"", "[4]", "[4,8]") + "}", 8),
       kInvalid, "the tensor \"t\" appears twice"},
      {"ST06_dtype", safetensors(R"({"t":{"dtype":"U8","dtype":"I8","shape":[0],"data_offsets":[0,0]}})"), kInvalid,
       "the key \"dtype\" appears twice (tensor \"t\")"},
      {"ST06_metadata", safetensors(R"({"__metadata__":{},"__metadata__":{}})"), kInvalid,
       "\"__metadata__\" appears twice"},
      {"ST06_metadata_key", safetensors(R"({"__metadata__":{"a":"1","a":"2"}})"), kInvalid, "\"a\" of"},
      {"ST07_array", safetensors(R"({"__metadata__":[]})"), kInvalid, "\"__metadata__\" is an array"},
      {"ST07_number", safetensors(R"({"__metadata__":{"a":1}})"), kInvalid,
       "\"a\" in \"__metadata__\" is the number 1"},
      {"ST07_object", safetensors(R"({"__metadata__":{"a":{}}})"), kInvalid, "is an object, expected a string"},
      {"ST07_10_mb", safetensors(fmt::format(R"({{"__metadata__":{{"a":"{}"}}}})", std::string(10 << 20, 'x'))),
       kInvalid, "10485760 bytes, more than the limit"},
      {"ST08_unknown", with_dtype("\"Q8\""), kInvalid, "the \"dtype\" \"Q8\" is unknown (tensor \"t\")"},
      {"ST08_lower", with_dtype("\"f32\""), kInvalid, "\"f32\" is unknown"},
      {"ST08_number", with_dtype("32"), kInvalid, "\"dtype\" is the number 32, expected a string"},
      {"ST08_missing", safetensors(R"({"t":{"shape":[0],"data_offsets":[0,0]}})"), kInvalid, "\"dtype\" is missing"},
      {"ST08_f8", with_dtype("\"F8_E4M3\""), kUnsupported, "\"F8_E4M3\" is not supported"},
      {"ST08_ggml", with_dtype("\"Q8_0\""), kInvalid, "\"Q8_0\" is unknown"},
      {"ST09_missing", safetensors(R"({"t":{"dtype":"U8","data_offsets":[0,0]}})"), kInvalid, "\"shape\" is missing"},
      {"ST09_string", with_shape("\"8\""), kInvalid, "\"shape\" is the string \"8\", expected an array"},
      {"ST09_negative", with_shape("[-1]"), kInvalid, "\"shape\" is the number -1"},
      {"ST09_fraction", with_shape("[1.5]"), kInvalid, "\"shape\" is the number 1.5"},
      {"ST09_exponent", with_shape("[1e3]"), kInvalid, "\"shape\" is the number 1000"},
      {"ST09_bool", with_shape("[true]"), kInvalid, "\"shape\" is true"},
      {"ST09_2_64", with_shape("[18446744073709551616]"), kInvalid, "\"shape\" is the number 1.84467"},
      {"ST09_nested", with_shape("[[8]]"), kInvalid, "deeper than 3 levels"},
      {"ST09_10000",
       with_shape("[1" +
                  [] {
                    std::string s;
                    for (int i = 1; i < 10000; ++i) s += ",1";
                    return s;
                  }() +
                  "]"),
       kInvalid, "more than 16 dimensions"},
      {"ST10_minus_2", with_shape("[2,18446744073709551614]"), kInvalid,
       "\"shape\" is the number 18446744073709551614"},
      {"ST10_wrap", with_shape("[2,9223372036854775807]"), kInvalid, "more bytes than a file can have"},
      {"ST11", safetensors("{" + entry("t", "\"F32\"", "[4294967296,4294967296]", "[0,1000000000000]") + "}", 8),
       kInvalid, "more values than 64 bits can count"},
      {"ST12_1", with_offsets("[0]"), kInvalid, "\"data_offsets\" has 1 numbers, expected 2"},
      {"ST12_0", with_offsets("[]"), kInvalid, "\"data_offsets\" has 0 numbers"},
      {"ST12_3", with_offsets("[0,8,8]"), kInvalid, "more than 2 numbers"},
      {"ST12_negative", with_offsets("[-8,0]"), kInvalid, "\"data_offsets\" is the number -8"},
      {"ST12_fraction", with_offsets("[0.0,8]"), kInvalid, "\"data_offsets\" is the number 0"},
      {"ST12_reversed", with_offsets("[8,0]"), kInvalid, "begin at 8 and end before, at 0"},
      {"ST12_max", with_offsets("[0,18446744073709551615]"), kInvalid, "\"data_offsets\" is the number 184467"},
      {"ST12_missing", safetensors(R"({"t":{"dtype":"U8","shape":[0]}})"), kInvalid, "\"data_offsets\" is missing"},
      {"ST12_extra", safetensors(R"({"t":{"dtype":"U8","shape":[0],"data_offsets":[0,0],"x":1}})"), kInvalid,
       "the key \"x\" is none of"},
      {"ST13_long", with_offsets("[0,12]", 12), kInvalid, "span 12 bytes, but F32 [2] takes 8"},
      {"ST13_short", with_offsets("[0,4]", 4), kInvalid, "span 4 bytes, but F32 [2] takes 8"},
      {"ST14", safetensors(ten_tensors_at_one_place(), 16), kInvalid, "overlaps the tensor before"},
      {"ST15_first", with_offsets("[8,16]", 16), kInvalid, "begin at 8, expected 0: there is a hole"},
      {"ST15_hole",
       safetensors("{" + entry("a", "\"U8\"", "[4]", "[0,4]") + "," + entry("b", "\"U8\"", "[4]", "[5,9]") + "}", 9),
       kInvalid, "tensor \"b\" begin at 5, expected 4: there is a hole"},
      {"ST16", safetensors(kGood, 9), kInvalid, "1 bytes follow the last tensor"},
      {"ST16_empty", safetensors("{}", 3), kInvalid, "3 bytes follow the last tensor"},
      {"ST17", safetensors(kGood, 6), kInvalid, "tensor \"t\" end at 8, but the file has 6 bytes of data"},
      {"ST19", with_dtype("\"F4\""), kUnsupported, "\"F4\" is not supported"},
      {"ST21_nul", with_name(R"(a\u0000b)"), kInvalid, "has a NUL inside"},
      {"ST21_1_mb", with_name(std::string(1 << 20, 'n')), kInvalid, "name has 1048576 bytes, expected 1 to 4096"},
      {"ST21_empty", with_name(""), kInvalid, "name has 0 bytes"},
      {"ST21_surrogate", with_name(R"(\ud800)"), kInvalid, "not valid JSON"},
      {"ST22", safetensors(std::string(100000, '[')), kInvalid, "the header is an array"},
      {"ST22_inside", with_shape(std::string(100000, '[')), kInvalid, "deeper than 3 levels"},
      {"ST23_overflow", with_shape("[1E400]"), kInvalid, "number overflow"},
      {"ST23_minus_0", with_shape("[-0]"), kInvalid, "\"shape\" is the number 0"},
      {"ST23_leading_0", with_shape("[01]"), kInvalid, "not valid JSON"},
      {"ST23_400_digits", with_shape("[" + std::string(400, '1') + "]"), kInvalid, "number overflow"},
      {"ST29", safetensors("{" + entry("t", "\"BF16\"", "[4]", "[0,7]") + "}", 7), kInvalid,
       "span 7 bytes, but BF16 [4] takes 8"},
  };
  return kCases;
}

class MalformedSafetensors : public ::testing::TestWithParam<MalformedCase> {};

TEST_P(MalformedSafetensors, IsRefusedInMemoryAndOnDisk) {
  const MalformedCase& c = GetParam();
  testing::expect_error(SafetensorsFile::parse(c.file.span(), "bad.safetensors"), c.code, c.part);
  testing::expect_error(SafetensorsFile::parse(c.file.span(), "bad.safetensors"), c.code, "bad.safetensors: ");
  const testing::TemporaryFolder folder;
  testing::expect_error(SafetensorsFile::open(folder.write("bad", c.file.text())), c.code, c.part);
}
INSTANTIATE_TEST_SUITE_P(Files, MalformedSafetensors, ::testing::ValuesIn(cases()), testing::id_of_case);

void expect_read(const Bytes& file, size_t n_tensors) {
  const auto result = SafetensorsFile::parse(file.span(), "good.safetensors");
  ASSERT_TRUE(result) << result.error().message;
  EXPECT_EQ(result->tensors().size(), n_tensors);
}

TEST(SafetensorsUnusual, ST04SpacesAroundTheHeaderAreRead) {
  expect_read(safetensors("   \n\t" + kGood, 8), 1);
  expect_read(safetensors(kGood + "   ", 8), 1);
  expect_read(safetensors("{}"), 0);
}

TEST(SafetensorsUnusual, ST18EmptyTensorsAndScalarsAreRead) {
  const std::string header = "{" + entry("e", "\"F32\"", "[2,0]", "[4,4]") + "," +
                             entry("s", "\"F32\"", "[]", "[0,4]") + "," + entry("z", "\"U8\"", "[0]", "[0,0]") + "}";
  const Bytes file = safetensors(header, 4);
  expect_read(file, 3);
  const auto result = SafetensorsFile::parse(file.span(), "f");
  EXPECT_EQ(result->find("s")->shape, Shape{});
  EXPECT_EQ(result->find("s")->size_bytes, 4u);
  EXPECT_EQ(result->find("e")->size_bytes, 0u);
  EXPECT_EQ(result->tensors()[0].name, "z");
}

TEST(SafetensorsUnusual, ST20ManyTensorsAreRead) {
  std::string header = "{";
  constexpr int kMany = 100000;
  for (int i = 0; i < kMany; ++i) {
    header += (i == 0 ? "" : ",") +
              entry(fmt::format("tensor.{}", i), "\"F32\"", "[1]", fmt::format("[{},{}]", 4 * i, 4 * i + 4));
  }
  const Bytes file = safetensors(header + "}", 4 * kMany);
  expect_read(file, kMany);
  const auto result = SafetensorsFile::parse(file.span(), "f");
  EXPECT_EQ(result->find("tensor.77777")->offset_bytes, file.text().size() - 4 * (kMany - 77777));
}

TEST(SafetensorsUnusual, ST26AHeaderOfSpacesIsAnsweredFast) {
  testing::expect_error(SafetensorsFile::parse(safetensors(std::string(99900000, ' ')).span(), "f"), kInvalid,
                        "not valid JSON");
  expect_read(safetensors(kGood + std::string(99900000, ' '), 8), 1);
}

TEST(SafetensorsUnusual, ST30PickleInAStringIsJustAString) {
  const Bytes file = safetensors(R"({"__metadata__":{"p":"\u0080\u0004cos\nsystem\n(S'x'\ntR."}})");
  expect_read(file, 0);
  const auto result = SafetensorsFile::parse(file.span(), "f");
  EXPECT_EQ(result->metadata().at("p"), "\xc2\x80\x04"s + "cos\nsystem\n(S'x'\ntR.");
}

TEST(SafetensorsUnusual, EveryCutIsRefused) {
  const std::string whole = safetensors(kGood, 8).text();
  for (size_t n = 0; n < whole.size(); ++n) {
    const std::string cut = whole.substr(0, n);
    EXPECT_FALSE(SafetensorsFile::parse(std::as_bytes(std::span(cut)), "f")) << "cut to " << n << " bytes";
  }
}

}  // namespace
}  // namespace bitnet
