#include "tokenizer/jinja/testing.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <ctime>
#include <fstream>

namespace bitnet::jinja {
namespace {

TEST(Jinja, SnippetsWriteWhatJinja2Writes) {
  const auto goldens = nlohmann::json::parse(std::ifstream(BITNET_SOURCE_DIR "/tests/data/chat_goldens.json"));
  ASSERT_GE(goldens["snippets"].size(), 100u);
  for (const auto& snippet : goldens["snippets"]) {
    const auto source = snippet[0].get<std::string>();
    const std::string rendered = render_text(source);
    if (snippet[1].is_null()) {
      EXPECT_TRUE(is_error(rendered)) << source << "\n=> " << rendered;
    } else {
      EXPECT_EQ(rendered, snippet[1].get<std::string>()) << source;
    }
  }
}

TEST(Jinja, ErrorsNameTheLine) {
  const auto expect = [](const std::string& source, const std::string& message) {
    EXPECT_EQ(render_text(source), "error: the chat template of T, line " + message) << source;
  };
  expect("\n{{ 1 / 0 }}", "2: division by zero");
  expect("\n\n{% if 1 > 'a' %}{% endif %}", "3: a int and a str have no order");
  expect("\n{{ x.y }}", "2: 'x' is undefined");
  expect("{{ [1][7].y }}", "1: '7' of a list is undefined");
  expect("{{ 'a' | nosuch }}", "1: there is no filter 'nosuch'");
  expect("\n{{ 1 is nosuch }}", "2: there is no test 'nosuch'");
  expect("\n{% nosuch %}", "2: there is no tag 'nosuch'");
  expect("{{ 'a'.nosuch() }}", "1: 'nosuch' of a str is undefined");
  expect("{{ lipsum() }}", "1: 'lipsum' is undefined");
  expect("{% if x %}\n\n", "2: a tag is never closed: {% endif %} is missing");
  expect("{{ 'a\n", "1: a string has no closing quote");
  expect("a {{ 1 +\n\n }}", "3: unexpected }}");
  expect("{% for m in [1] %}{% break %}{% endfor %}{% break %}", "1: 'break' outside of a loop");
  expect("{{ 9223372036854775807 + 1 }}", "1: 9223372036854775807 + 1 does not fit 64 bits");
  expect("{{ 'x' | replace(1) }}", "1: 'replace' needs its argument 'new'");
  expect("{{ range(1, b=2) }}", "1: 'range' has no argument 'b'");
  expect("{% include 'a' %}", "1: there is no tag 'include'");
}

TEST(Jinja, NothingOfPythonCanBeReached) {
  for (const char* name : {"lipsum", "cycler", "joiner", "self", "config", "__builtins__", "popen", "request"}) {
    EXPECT_EQ(render_text(std::string("[{{ ") + name + " }}]"), "[]") << name;
  }
  for (const char* source :
       {"{{ ''.__class__.__mro__[1].__subclasses__() }}", "{{ lipsum.__globals__['os'].popen('id').read() }}",
        "{{ range.__globals__.os }}", "{{ namespace().__init__.__globals__ }}", "{{ messages.__class__.x }}",
        "{{ raise_exception.__globals__['sys'] }}", "{{ [].append(1) }}", "{{ {}.update({}) }}", "{{ ''.format(1) }}",
        "{% for x in [1] %}{{ loop.__class__.x }}{% endfor %}"}) {
    EXPECT_TRUE(is_error(render_text(source))) << source;
  }
}

TEST(Jinja, StrftimeNowKnowsTheDate) {
  const std::time_t now = std::time(nullptr);
  char year[8];
  std::strftime(year, sizeof(year), "%Y", std::localtime(&now));
  EXPECT_EQ(render_text("{{ strftime_now('<%Y>%%') }}"), "<" + std::string(year) + ">%");
  EXPECT_EQ(render_text("{{ strftime_now('%d %b %Y') | length }}"), "11");
  EXPECT_TRUE(is_error(render_text("{{ strftime_now('%99999999d') }}")));
  EXPECT_TRUE(is_error(render_text("{{ strftime_now('%') }}")));
}

TEST(Jinja, MacrosSeeOuterNamesAndKeepTheirOwn) {
  EXPECT_EQ(
      render_text("{% set n = 1 %}{% macro m(n) %}{% set k = n * 2 %}{{ k }}{% endmacro %}{{ m(4) }}{{ n }}{{ k }}"),
      "81");
}

TEST(Jinja, LoopsAndNamespacesCannotFormCycles) {
  EXPECT_TRUE(is_error(render_text("{% set a = namespace() %}{% set a.b = a %}")));
  EXPECT_TRUE(is_error(render_text("{% set a = namespace() %}{% set a.b = [[a]] %}")));
  EXPECT_TRUE(is_error(render_text("{% set a = namespace() %}{% for x in [1] %}{% set a.b = loop %}{% endfor %}")));
  EXPECT_TRUE(is_error(render_text("{% set a = namespace(b=namespace()) %}")));
  EXPECT_EQ(render_text("{% set a = namespace() %}{{ [a] | length }}{{ (a, a) == (a, a) }}"), "1True");
}

TEST(Jinja, SortFailsCleanlyHalfway) {
  EXPECT_EQ(render_text("{{ [3, 1, 'a', 2, none] | sort }}").substr(0, 6), "error:");
  EXPECT_EQ(render_text("{% set x = range(200) | list | sort(reverse=true) %}{{ x[0] }} {{ x[199] }}"), "199 0");
}

// Expected texts are Jinja2's.
TEST(Jinja, DictsortByKeyOrValue) {
  const std::string d = "{% set d = {'b': 1, 'A': 3, 'c': 2} %}";
  EXPECT_EQ(render_text(d + "{{ d | dictsort }}"), "[('A', 3), ('b', 1), ('c', 2)]");
  EXPECT_EQ(render_text(d + "{{ d | dictsort(true) }}"), "[('A', 3), ('b', 1), ('c', 2)]");
  EXPECT_EQ(render_text("{{ {'b': 1, 'A': 3, 'B': 2} | dictsort(case_sensitive=true) }}"),
            "[('A', 3), ('B', 2), ('b', 1)]");
  EXPECT_EQ(render_text(d + "{{ d | dictsort(by='value') }}"), "[('b', 1), ('c', 2), ('A', 3)]");
  EXPECT_EQ(render_text(d + "{{ d | dictsort(false, 'value', true) }}"), "[('A', 3), ('c', 2), ('b', 1)]");
  EXPECT_EQ(render_text(d + "{% for k, v in d | dictsort %}{{ k }}{{ v }}{% endfor %}"), "A3b1c2");
  for (const char* source : {"{{ 1 | dictsort }}", "{{ {} | dictsort(by='x') }}", "{{ {1: 1, 'a': 2} | dictsort }}"}) {
    EXPECT_TRUE(is_error(render_text(source))) << source;
  }
}

TEST(JinjaText, SpansFollowTheirBytes) {
  Text text("ab");
  text.append("CD", 5);
  text.append("EF", 5);
  text.append("GH", 6);
  text.append("ij");
  ASSERT_EQ(text.spans().size(), 2u);
  EXPECT_EQ(text.spans()[0].begin, 2u);
  EXPECT_EQ(text.spans()[0].end, 6u);
  const Text part = text.substr(3, 9);
  EXPECT_EQ(part.bytes(), "DEFGHi");
  ASSERT_EQ(part.spans().size(), 2u);
  EXPECT_EQ(part.spans()[0].begin, 0u);
  EXPECT_EQ(part.spans()[0].end, 3u);
  EXPECT_EQ(part.spans()[1].end, 5u);
  const Origin expected[] = {5, 5, 5, 6, 6, 0};
  for (size_t i = 0; i < 6; ++i) EXPECT_EQ(part.origin_at(i), expected[i]) << i;
}

TEST(JinjaText, SearchIsExactForLongNeedles) {
  const std::string needle = "abababababababababab";  // above the size that the library's search takes
  const std::string text = "abababababababababac" + needle + "x" + needle + "ab";
  EXPECT_EQ(find_text(text, needle, 0), text.find(needle));
  EXPECT_EQ(find_text(text, needle, 21), text.find(needle, 21));
  EXPECT_EQ(rfind_text(text, needle), text.rfind(needle));
  EXPECT_EQ(find_text(text, needle + "z", 0), std::string::npos);
  EXPECT_EQ(rfind_text(text, needle + "z"), std::string::npos);
  EXPECT_EQ(find_text("a", needle, 5), std::string::npos);
}

TEST(JinjaText, InvalidUtf8CountsByteByByte) {
  EXPECT_EQ(count_chars("\xff\xc3\xa9\xe4\xbd"), 4u);
  EXPECT_EQ(count_chars("\xed\xa0\x80"), 3u);  // a surrogate is no character
  EXPECT_EQ(strip_range("\xa0 x \xc2\xa0", true, true), (std::pair<size_t, size_t>{0, 3}));
  EXPECT_EQ(render_text("{{ '\xff\xc3\xa9'[::-1] }}"), "\xc3\xa9\xff");
}

}  // namespace
}  // namespace bitnet::jinja
