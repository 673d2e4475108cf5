#include "format/json.h"
#include "format/test_bytes.h"
#include "format/text.h"

#include <gtest/gtest.h>
#include <string>

namespace bitnet {
namespace {

using namespace std::string_literals;
using testing::expect_error;
constexpr auto kInvalid = ErrorCode::kInvalidInput;

TEST(Json, ValuesOfEveryKind) {
  const auto json = parse_json(
      R"( {"a": [1, -2, 2.5, true, false, null, [], {}], "s": "é\u00e9\n", "u": 18446744073709551615, "n": {"a": -0}} )",
      "f");
  ASSERT_TRUE(json) << json.error().message;
  const auto& a = json->at("a");
  ASSERT_EQ(a.size(), 8u);
  EXPECT_EQ(a[0], 1);
  EXPECT_EQ(a[1], -2);
  EXPECT_EQ(a[2], 2.5);
  EXPECT_EQ(a[3], true);
  EXPECT_EQ(a[4], false);
  EXPECT_TRUE(a[5].is_null() && a[6].is_array() && a[7].is_object());
  EXPECT_EQ(json->at("s"), "éé\n");
  EXPECT_EQ(json->at("u").get<uint64_t>(), UINT64_MAX);
  EXPECT_EQ(json->at("n").at("a"), 0);
  EXPECT_EQ(*parse_json("7", "f"), 7);
  EXPECT_EQ(parse_json("[[1],[2,[3]],{\"x\":[4]}]", "f")->dump(), "[[1],[2,[3]],{\"x\":[4]}]");
}

TEST(Json, MalformedTextsAreRefusedWithTheByte) {
  const struct {
    std::string text, part;
  } cases[] = {
      {"", "byte 0: not valid JSON"},
      {"  ", "not valid JSON"},
      {"{", "f.json: byte 1: not valid JSON"},
      {"{} {}", "byte 4: not valid JSON"},
      {"[1,]", "byte 4: not valid JSON"},
      {"01", "not valid JSON"},
      {"NaN", "not valid JSON"},
      {"1E400", "number overflow"},
      {"-1E400", "number overflow"},
      {std::string(400, '9'), "number overflow"},
      {"[1, \"a\xff\"]", "invalid string: ill-formed UTF-8 byte"},
      {"\"\xed\xa0\x80\"", "ill-formed UTF-8"},
      {"\"\xc0\x80\"", "ill-formed UTF-8"},
      {R"("\ud800")", "not valid JSON"},
      {R"("\udc00\ud800")", "not valid JSON"},
      {"\"a\nb\"", "control character"},
      {"\xef\xbb\xbf{}", "byte order mark"},
      {"{}\0"s, "byte 2: has a NUL byte"},
      {"{}\0 anything"s, "byte 2: has a NUL byte"},
      {R"({"a":1,"a":2})", "byte 10: the key \"a\" appears twice"},
      {R"([{"x":{"k":1,"k":2}}])", "the key \"k\" appears twice"},
      {R"({"a":1,"\u0061":2})", "the key \"a\" appears twice"},
      {std::string(100000, '['), "byte 65: is nested deeper than 64 levels"},
      {[] {
         std::string deep;
         for (int i = 0; i < 100000; ++i) deep += "{\"a\":";
         return deep;
       }(),
       "is nested deeper than 64 levels"},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.text.substr(0, 40));
    expect_error(parse_json(c.text, "f.json"), kInvalid, c.part);
  }
}

TEST(Json, LimitsAreObserved) {
  EXPECT_TRUE(parse_json(std::string(64, '[') + std::string(64, ']'), "f"));
  EXPECT_FALSE(parse_json(std::string(65, '[') + std::string(65, ']'), "f"));
  EXPECT_TRUE(parse_json("[[1]]", "f", {.max_depth = 2}));
  expect_error(parse_json("[[1]]", "f", {.max_depth = 1}), kInvalid, "deeper than 1 levels");
  expect_error(parse_json("[1,2]", "f", {.max_bytes = 4}), kInvalid, "5 bytes of JSON, more than the limit of 4");
}

TEST(Json, ErrorsShowNoControlCharactersAndStayShort) {
  const auto error = parse_json("[\"\x1b[31m" + std::string(1 << 20, 'x'), "f").error();
  EXPECT_LT(error.message.size(), 300u);
  EXPECT_EQ(error.message.find('\x1b'), std::string::npos);
  EXPECT_EQ(quote_name("a\x1b\"\xff\n\xc2\x9bZ\xc3\xa9"), "\"a\\x1b\"\\xff\\x0a\\xc2\\x9bZ\xc3\xa9\"");
  EXPECT_LT(quote_name(std::string(1 << 20, 'x')).size(), 120u);
}

TEST(Json, TypedAccessNamesFileAndKey) {
  const Json object = *parse_json(R"({"i": 5, "big": 18446744073709551615, "f": 0.5, "s": "x", "t": 5.0})", "c");
  EXPECT_EQ(*json_int(object, "i", "c", 5, 5), 5);
  EXPECT_EQ(*json_number(object, "i", "c"), 5.0);
  EXPECT_EQ(*json_number(object, "f", "c"), 0.5);
  EXPECT_EQ(*json_string(object, "s", "c"), "x");
  expect_error(json_int(object, "s", "c.json", 0, 9), kInvalid, "c.json: \"s\" is a string, expected a whole number");
  expect_error(json_int(object, "t", "c", 0, 9), kInvalid, "\"t\" is 5, expected a whole number");
  expect_error(json_int(object, "i", "c", 6, 9), kInvalid, "\"i\" is 5, expected 6 to 9");
  expect_error(json_int(object, "big", "c", INT64_MIN, INT64_MAX), kInvalid, "\"big\" is 18446744073709551615");
  expect_error(json_int(object, "none", "c", 0, 9), kInvalid, "\"none\" is missing");
  expect_error(json_number(object, "s", "c"), kInvalid, "\"s\" is a string, expected a number");
  expect_error(json_string(object, "i", "c"), kInvalid, "\"i\" is 5, expected a string");
  expect_error(json_string(Json::array(), "i", "c"), kInvalid, "c: is an array, expected an object");
}

TEST(Utf8, WellFormedAndNot) {
  for (const char* good : {"", "a", "\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xee\x80\x80",
                           "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf"}) {
    EXPECT_TRUE(is_utf8(good)) << good;
  }
  for (const char* bad : {"\x80", "\xc1\xbf", "\xc2",
                          "\xc2"
                          "a",
                          "\xe0\x9f\xbf", "\xed\xa0\x80", "\xef\xbf", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80",
                          "\xf5\x80\x80\x80", "\xff"}) {
    EXPECT_FALSE(is_utf8(bad)) << quote_name(bad);
  }
}

}  // namespace
}  // namespace bitnet
