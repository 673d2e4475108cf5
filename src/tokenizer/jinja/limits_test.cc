// Templates that want more time, memory or stack than they may have: an error each, at once.

#include "tokenizer/jinja/testing.h"

#include <gtest/gtest.h>

namespace bitnet::jinja {
namespace {

std::string repeat(const std::string& s, int n) {
  std::string out;
  for (int i = 0; i < n; ++i) out += s;
  return out;
}

void expect_error(const std::string& source, const std::string& part) {
  const std::string rendered = render_text(source);
  EXPECT_TRUE(is_error(rendered)) << source.substr(0, 100) << "\n=> " << rendered.substr(0, 100);
  EXPECT_NE(rendered.find(part), std::string::npos) << source.substr(0, 100) << "\n=> " << rendered.substr(0, 200);
}

TEST(JinjaLimits, Source) {
  EXPECT_EQ(render_text(std::string(kMaxSourceBytes, 'x')).size(), kMaxSourceBytes);
  expect_error(std::string(kMaxSourceBytes + 1, 'x'), "more than 1048576");
  expect_error(repeat("{{ 1 }}", 100000), "more than 100000 parts");
}

TEST(JinjaLimits, Nesting) {
  const std::pair<const char*, const char*> kPairs[] = {{"(", ")"},   {"[", "]"},  {"{1:", "}"},
                                                        {"not ", ""}, {"- ", ""},  {"1 if 1 else ", ""},
                                                        {"x(", ")"},  {"x[", "]"}, {"'a' | replace(", ")"}};
  for (const auto& [open, close] : kPairs) {
    SCOPED_TRACE(open);
    expect_error("{{ " + repeat(open, 10000) + "1" + repeat(close, 10000) + " }}", "nested more than 128 deep");
    expect_error("{{ " + repeat(open, 10000), "has no end }}");
  }
  for (const char* open : {"{% if 1 %}", "{% for x in [1] %}", "{% set x %}", "{% generation %}", "{% filter upper %}",
                           "{% macro m() %}", "{% if 0 %}{% else %}", "{% with %}"}) {
    SCOPED_TRACE(open);
    expect_error(repeat(open, 10000), "nested more than 128 deep");
  }
  for (const char* link : {" + 1", " - 1", ".a", "[0]", "()", " | trim", " * 2", " ** 1"}) {
    SCOPED_TRACE(link);
    expect_error("{{ 1" + repeat(link, 10000) + " }}", "more than 200 operations deep");
  }
  EXPECT_EQ(render_text("{{ " + repeat("(", 120) + "1" + repeat(")", 120) + " }}"), "1");
  EXPECT_EQ(render_text("{{ 1" + repeat(" + 1", 150) + " }}"), "151");
  EXPECT_EQ(render_text("{{ 1" + repeat(" ~ 1", 5000) + " }}").size(), 5001u);
  EXPECT_EQ(render_text("{{ 1" + repeat(" and 1", 5000) + " }}"), "1");
  EXPECT_EQ(render_text("{% if 0 %}" + repeat("{% elif 0 %}", 5000) + "{% else %}x{% endif %}"), "x");
}

TEST(JinjaLimits, Steps) {
  expect_error("{% for i in range(10 ** 9) %}{% endfor %}", "more than 1000000 steps");
  expect_error("{{ range(9223372036854775807) }}", "more than 1000000 steps");
  expect_error("{{ range(-9223372036854775807, 9223372036854775807, 3) }}", "more than 1000000 steps");
  expect_error("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}", "steps");
  expect_error("{{ [0] * 10 ** 9 }}", "repeated a list");
  expect_error("{{ '' * 9223372036854775807 ~ 'x' * 9223372036854775807 }}", "steps");
  expect_error(
      "{% set x = range(1000) | list %}{% for i in x %}{{ x in [x, i] }}{{ (x + x) | unique | list }}{% endfor %}",
      "steps");
  expect_error(
      "{% set ns = namespace(x=[]) %}{% for i in range(30) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}"
      "{{ ns.x == ns.x[0] }}{{ ns.x }}",
      "steps");
  expect_error(
      "{% set s = 'ab' * 1000000 %}{{ (s + 'c') in s }}{% for i in range(1000) %}{{ s.find(s + 'c') }}{% endfor %}",
      "steps");
  expect_error(
      "{% set s = 'a' * 4000000 %}{{ [s, s, s] | map('upper') | list | sort | length }}"
      "{{ range(4000) | map('string') | list | length }}{% for i in range(900) %}{{ s == s + '' }}{% endfor %}",
      "steps");
  expect_error("{{ ('x' * 4000000) | list }}", "steps");
}

TEST(JinjaLimits, Text) {
  expect_error("{% set x = 'abc' %}" + repeat("{% set x = x + x %}", 64), "a text of more than 4194304 bytes");
  expect_error("{% set x = 'abc' %}" + repeat("{% set x = x ~ x %}", 64), "a text of more than 4194304 bytes");
  expect_error("{% set ns = namespace(x=['a']) %}" + repeat("{% set ns.x = ns.x + ns.x %}", 64), "steps");
  expect_error("{% for i in range(100) %}{{ 'x' * 100000 }}{% endfor %}", "a text of more than 4194304 bytes");
  expect_error("{% set x = 'x' * 100000 %}{{ x.replace('x', x) }}", "a text of more than 4194304 bytes");
  expect_error("{% set x = 'x' * 100000 %}{{ [x, x, x, x] | join(x * 20) }}", "a text of more than 4194304 bytes");
  expect_error("{% set x %}{% for i in range(60) %}{{ 'x' * 100000 }}{% endfor %}{% endset %}", "4194304");
  expect_error("{{ ('\\n' * 100000) | indent(100, true, true) }}", "4194304");
  EXPECT_EQ(render_text("{{ ('x' * 4194304) | length }}"), "4194304");
}

TEST(JinjaLimits, Calls) {
  expect_error("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "more than 64 macro calls");
  expect_error("{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}", "more than 64");
  expect_error("{% macro m(x=m()) %}{% endmacro %}{{ m() }}", "more than 64 macro calls");
  // Each call of this macro takes many levels of its own.
  expect_error("{% macro m() %}{{ " + repeat("[", 100) + "m()" + repeat("]", 100) + " }}{% endmacro %}{{ m() }}",
               "more than 300 operations within each other");
  expect_error("{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}", "steps");
}

TEST(JinjaLimits, NestedValues) {
  expect_error("{% set ns = namespace(x=[]) %}{% for i in range(100000) %}{% set ns.x = [ns.x] %}{% endfor %}",
               "nested lists more than 32 deep");
  expect_error("{% set x = [] %}" + repeat("{% set x = [x] %}", 70), "nested lists more than 64 deep");
  expect_error("{% set x = {} %}" + repeat("{% set x = {'k': x} %}", 70), "nested dicts more than 64 deep");
}

}  // namespace
}  // namespace bitnet::jinja
