#include "format/gguf.h"
#include "format/test_bytes.h"

#include <gtest/gtest.h>
#include <string>
#include <vector>

// Damaged and hostile headers up to the end of the metadata; the numbers are those of docs/formats/gguf.md.
namespace bitnet {
namespace {

using namespace std::string_literals;
using testing::Bytes;
using testing::gguf_info;
using testing::gguf_key;
using testing::gguf_u32;
using testing::GgufParts;
using testing::MalformedCase;

constexpr uint64_t k2_40 = uint64_t{1} << 40, k2_61 = uint64_t{1} << 61, k2_63 = uint64_t{1} << 63;
constexpr auto kInvalid = ErrorCode::kInvalidInput;
constexpr auto kUnsupported = ErrorCode::kUnsupported;

Bytes with_magic(const std::string& magic) { return Bytes(magic).zeros(60); }
Bytes with_version(uint32_t version) { return GgufParts{.version = version}.file(); }
Bytes with_key(const Bytes& key) { return GgufParts{.keys = {key}}.file(); }
Bytes with_name_of_key(const std::string& name) { return with_key(gguf_u32(name, 1)); }
// The value has this type number and these bytes.
Bytes with_value(uint32_t type, const Bytes& value) { return with_key(gguf_key("some.key", type, value)); }
Bytes with_array(uint32_t type, uint64_t count, const Bytes& rest) {
  return with_value(9, Bytes().u32(type).u64(count).raw(rest.text()));
}
Bytes with_alignment(uint32_t value) { return with_key(gguf_u32("general.alignment", value)); }
Bytes with_name_of_tensor(const std::string& name) {
  return GgufParts{.infos = {gguf_info(name, {4}, 0, 0)}, .data = Bytes().zeros(32)}.file();
}
Bytes nested_arrays(size_t depth) {
  Bytes value;
  for (size_t i = 0; i < depth; ++i) value.u32(9).u64(1);
  return with_value(9, value.u32(0).u64(1).u8(7));
}

const std::vector<MalformedCase>& cases() {
  static const std::vector<MalformedCase> kCases = {
      {"G01", Bytes(), kInvalid, "is empty"},
      {"G02_1_byte", Bytes("G"), kInvalid, "not a GGUF file"},
      {"G02_3_bytes", Bytes("GGU"), kInvalid, "not a GGUF file"},
      {"G02_4_bytes", Bytes("GGUF"), kInvalid, "byte 4: the version needs 4 bytes"},
      {"G02_8_bytes", Bytes("GGUF").u32(3), kInvalid, "byte 8: the number of tensors"},
      {"G02_23_bytes", Bytes("GGUF").u32(3).u64(0).zeros(7), kInvalid, "byte 16: the number of metadata keys"},
      {"G03_reversed", with_magic("FUGG"), kInvalid, "bytes reversed"},
      {"G03_ggml", with_magic("GGML"), kInvalid, "GGML file of 2023"},
      {"G03_ggjt", with_magic("tjgg"), kInvalid, "ggjt"},
      {"G03_ggjt_forward", with_magic("ggjt"), kInvalid, "ggjt"},
      {"G03_html", with_magic("<!DOCTYPE html><html>"), kInvalid, "HTML"},
      {"G03_lfs", Bytes("version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n"), kInvalid, "git-LFS"},
      {"G03_gzip", with_magic("\x1f\x8b\x08"), kInvalid, "gzip"},
      {"G03_safetensors", testing::safetensors("{}", 0), kInvalid, "a safetensors file"},
      {"G03_unknown", with_magic("abcd"), kInvalid, "byte 0: is not a GGUF file"},
      {"G04_0", with_version(0), kInvalid, "version 0"},
      {"G04_1", with_version(1), kUnsupported, "version 1"},
      {"G04_4", with_version(4), kUnsupported, "version 4, only 2 and 3"},
      {"G04_max", with_version(0xffffffff), kUnsupported, "version 4294967295"},
      {"G05", with_version(0x03000000), kUnsupported, "big-endian"},
      {"G06_max", GgufParts{.n_tensors = ~uint64_t{0}}.file(), kInvalid, "announces 18446744073709551615 tensors"},
      {"G06_2_63", GgufParts{.n_tensors = k2_63}.file(), kInvalid, "tensors, whose table does not fit"},
      {"G06_2_40", GgufParts{.n_tensors = k2_40}.file(), kInvalid, "tensors, whose table does not fit"},
      {"G06_one_more",
       GgufParts{.n_tensors = 2, .infos = {gguf_info("a", {4}, 0, 0)}, .data = Bytes().zeros(32)}.file(), kInvalid,
       "byte 57: the tensor name \"\" is empty"},
      {"G07_max", GgufParts{.n_keys = ~uint64_t{0}}.file(), kInvalid, "announces 18446744073709551615 metadata keys"},
      {"G07_2_63", GgufParts{.n_keys = k2_63}.file(), kInvalid, "metadata keys, which do not fit"},
      {"G07_2_40", GgufParts{.n_keys = k2_40}.file(), kInvalid, "metadata keys, which do not fit"},
      {"G07_one_more", GgufParts{.n_keys = 2, .keys = {gguf_u32("a.long.enough.key", 1)}}.file(), kInvalid,
       "byte 57: a metadata key needs 8 bytes"},
      {"G08_last",
       GgufParts{
           .n_tensors = 1, .infos = {gguf_info("a", {4}, 0, 0), gguf_info("b", {4}, 0, 32)}, .data = Bytes().zeros(64)}
           .file(),
       kInvalid, "follow the end of the last tensor"},
      {"G08_all", GgufParts{.n_tensors = 0, .infos = {gguf_info("a", {4}, 0, 0)}, .data = Bytes().zeros(32)}.file(),
       kInvalid, "the header does not belong to the data"},
      {"G10_max", with_key(Bytes().u64(~uint64_t{0}).raw("abcdefgh")), kInvalid, "a metadata key needs"},
      {"G10_2_63", with_key(Bytes().u64(k2_63).raw("abcdefgh")), kInvalid, "a metadata key needs"},
      {"G10_2_40", with_key(Bytes().u64(k2_40).raw("abcdefgh")), kInvalid, "a metadata key needs"},
      {"G10_one_more", with_key(Bytes().u64(9).raw("abcdefgh")), kInvalid, "a metadata key needs 9 bytes"},
      {"G11", with_name_of_key(""), kInvalid, "is empty"},
      {"G12_nul", with_name_of_key("a\0b"s), kInvalid, "has a NUL byte inside"},
      {"G12_utf8", with_name_of_key("a\xc0\x80"), kInvalid, "not valid UTF-8"},
      {"G12_long", with_name_of_key(std::string(65536, 'a')), kInvalid, "more than the limit of 65535"},
      {"G13", GgufParts{.keys = {gguf_u32("k", 1), gguf_u32("k", 1)}}.file(), kInvalid, "\"k\" appears twice"},
      {"G14_13", with_value(13, Bytes().u64(0)), kInvalid, "value type 13 is unknown"},
      {"G14_255", with_value(255, Bytes().u64(0)), kInvalid, "value type 255 is unknown"},
      {"G14_minus_1", with_value(0xffffffff, Bytes().u64(0)), kInvalid, "value type 4294967295 is unknown"},
      {"G14_in_array", with_array(13, 1, Bytes().u64(0)), kInvalid, "value type 13 is unknown"},
      {"G15_max", with_value(8, Bytes().u64(~uint64_t{0}).raw("ab")), kInvalid, "(metadata key \"some.key\")"},
      {"G15_one_more", with_value(8, Bytes().u64(3).raw("ab")), kInvalid, "a string needs 3 bytes"},
      {"G16_max", with_array(0, ~uint64_t{0}, Bytes().u64(0)), kInvalid, "does not fit in the 8 bytes left"},
      {"G16_2_63", with_array(4, k2_63, Bytes().u64(0)), kInvalid, "does not fit in the 8 bytes left"},
      {"G16_2_61", with_array(10, k2_61, Bytes().u64(0)), kInvalid, "an array of 2305843009213693952 elements"},
      {"G16_one_more", with_array(10, 2, Bytes().u64(0)), kInvalid, "an array of 2 elements"},
      {"G16_bools", with_array(7, 9, Bytes().u64(0)), kInvalid, "an array of 9 elements"},
      {"G17_2", nested_arrays(2), kUnsupported, "array of arrays"},
      {"G17_10000", nested_arrays(10000), kUnsupported, "array of arrays"},
      {"G18", with_array(8, uint64_t{1} << 32, Bytes().zeros(1000)), kInvalid, "an array of 4294967296 elements"},
      {"G19_2", with_value(7, Bytes().u8(2)), kInvalid, "a bool is 2, expected 0 or 1 (metadata key \"some.key\")"},
      {"G19_255", with_value(7, Bytes().u8(255)), kInvalid, "a bool is 255"},
      {"G19_in_array", with_array(7, 3, Bytes().u8(0).u8(1).u8(2)), kInvalid, "a bool is 2"},
      {"G20_0", with_alignment(0), kInvalid, "\"general.alignment\" is 0, expected a power of two"},
      {"G20_3", with_alignment(3), kInvalid, "\"general.alignment\" is 3"},
      {"G20_13", with_alignment(13), kInvalid, "\"general.alignment\" is 13"},
      {"G20_2_31", with_alignment(uint32_t{1} << 31), kInvalid, "\"general.alignment\" is 2147483648"},
      {"G20_max", with_alignment(0xffffffff), kInvalid, "\"general.alignment\" is 4294967295"},
      {"G20_2_21", with_alignment(uint32_t{1} << 21), kInvalid, "up to 1048576"},
      {"G20_i32", with_key(gguf_key("general.alignment", 5, Bytes().u32(32))), kInvalid, "has the type i32"},
      {"G20_u64", with_key(gguf_key("general.alignment", 10, Bytes().u64(32))), kInvalid, "has the type u64"},
      {"G20_string", with_key(gguf_key("general.alignment", 8, Bytes().string("32"))), kInvalid, "has the type string"},
      {"G20_twice", GgufParts{.keys = {gguf_u32("general.alignment", 32), gguf_u32("general.alignment", 32)}}.file(),
       kInvalid, "\"general.alignment\" appears twice"},
      {"G22_empty", with_name_of_tensor(""), kInvalid, "is empty"},
      {"G22_65", with_name_of_tensor(std::string(65, 'a')), kInvalid, "has 65 bytes, more than 64"},
      {"G22_2_20", with_name_of_tensor(std::string(1 << 20, 'a')), kInvalid, "has 1048576 bytes, more than 64"},
      {"G22_nul", with_name_of_tensor("a\0b"s), kInvalid, "has a NUL byte inside"},
      {"G22_utf8", with_name_of_tensor("\xff"), kInvalid, "tensor name \"\\xff\" is not valid UTF-8"},
      {"M21_split",
       GgufParts{.keys = {gguf_key("split.no", 2, Bytes().number(uint16_t{1})),
                          gguf_key("split.count", 2, Bytes().number(uint16_t{65535}))}}
           .file(),
       kUnsupported, "one of 65535 parts"},
      {"M21_string", with_key(gguf_key("split.count", 8, Bytes().string("../x"))), kInvalid,
       "\"split.count\" has the type string"},
  };
  return kCases;
}

class Malformed : public ::testing::TestWithParam<MalformedCase> {};

TEST_P(Malformed, IsRefusedInMemoryAndOnDisk) {
  const MalformedCase& c = GetParam();
  testing::expect_error(GgufFile::parse(c.file.span(), "bad.gguf"), c.code, c.part);
  testing::expect_error(GgufFile::parse(c.file.span(), "bad.gguf"), c.code, "bad.gguf: ");
  const testing::TemporaryFolder folder;
  const std::string path = folder.write("bad.gguf", c.file.text());
  testing::expect_error(GgufFile::open(path), c.code, c.part);
}
INSTANTIATE_TEST_SUITE_P(Gguf, Malformed, ::testing::ValuesIn(cases()), testing::id_of_case);

TEST(GgufMalformed, G21AlignmentsOtherThan32AreRead) {
  for (const uint32_t alignment : {1u, 2u, 64u, 1u << 20}) {
    GgufParts parts{.keys = {gguf_u32("general.alignment", alignment)},
                    .infos = {gguf_info("a", {4}, 0, 0)},
                    .alignment = alignment,
                    .data = Bytes().number(1.5f).zeros(12)};
    const Bytes file = parts.file();
    const auto gguf = GgufFile::parse(file.span(), "good.gguf");
    ASSERT_TRUE(gguf) << gguf.error().message;
    EXPECT_EQ(gguf->alignment(), alignment);
    EXPECT_EQ(gguf->tensors()[0].offset_bytes, file.text().size() - 16);
  }
}

TEST(GgufMalformed, G22NamesOf64BytesAreRead) {
  const Bytes file = with_name_of_tensor(std::string(64, 'n'));
  const auto gguf = GgufFile::parse(file.span(), "good.gguf");
  ASSERT_TRUE(gguf) << gguf.error().message;
  EXPECT_NE(gguf->find(std::string(64, 'n')), nullptr);
}

TEST(GgufMalformed, G09EveryCutOfTheHeaderIsRefused) {
  const Bytes key_array = gguf_key("tokens", 9, Bytes().u32(8).u64(2).string("ab").string("c"));
  GgufParts parts{.keys = {gguf_u32("a", 1), gguf_key("s", 8, Bytes().string("text")), key_array,
                           gguf_key("b", 7, Bytes().u8(1)), gguf_key("f", 12, Bytes().number(0.5))},
                  .infos = {gguf_info("t", {32, 2}, 0, 0), gguf_info("u", {4}, 0, 256)}};
  const size_t header_bytes = parts.file().text().size();
  parts.data.zeros(256 + 16);
  const std::string whole = parts.file().text();
  ASSERT_TRUE(GgufFile::parse(std::as_bytes(std::span(whole)), "whole.gguf"));
  for (size_t n = 0; n < whole.size(); ++n) {
    const std::string cut = whole.substr(0, n);
    const auto gguf = GgufFile::parse(std::as_bytes(std::span(cut)), "cut.gguf");
    ASSERT_FALSE(gguf) << "cut to " << n << " of " << whole.size() << " bytes, header " << header_bytes;
    EXPECT_EQ(gguf.error().code, kInvalid);
    // In the data, the message tells where the file ends.
    const std::string part = n >= header_bytes ? "end of the file at byte " + std::to_string(n) : "cut.gguf: ";
    EXPECT_NE(gguf.error().message.find(part), std::string::npos) << gguf.error().message;
  }
}

TEST(GgufMalformed, LimitsAreObserved) {
  const Bytes file = GgufParts{.keys = {gguf_key("k", 8, Bytes().string("12345"))},
                               .infos = {gguf_info("ab", {4}, 0, 0)},
                               .data = Bytes().zeros(16)}
                         .file();
  EXPECT_TRUE(GgufFile::parse(file.span(), "f"));
  testing::expect_error(GgufFile::parse(file.span(), "f", {.max_string_bytes = 4}), kInvalid, "limit of 4");
  testing::expect_error(GgufFile::parse(file.span(), "f", {.max_name_bytes = 1}), kInvalid, "more than 1");
  testing::expect_error(GgufFile::parse(file.span(), "f", {.max_keys = 0}), kUnsupported, "more than the limit of 0");
  testing::expect_error(GgufFile::parse(file.span(), "f", {.max_tensors = 0}), kUnsupported, "limit of 0");
  const Bytes two = gguf_key("a", 9, Bytes().u32(8).u64(2).string("x").string("y"));
  const Bytes one = gguf_key("b", 9, Bytes().u32(8).u64(1).string("z"));
  const Bytes arrays = GgufParts{.keys = {two, one}}.file();
  EXPECT_TRUE(GgufFile::parse(arrays.span(), "f", {.max_array_strings = 3}));
  testing::expect_error(GgufFile::parse(arrays.span(), "f", {.max_array_strings = 2}), kUnsupported,
                        "an array of 1 strings, more than the limit of 2 in all arrays (metadata key \"b\")");
}

}  // namespace
}  // namespace bitnet
