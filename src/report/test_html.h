#pragma once

#include <gtest/gtest.h>

#include <regex>
#include <string>
#include <vector>

// Looks at pages of HTML, for tests.
namespace bitnet::testing {

inline size_t count_of(const std::string& text, const std::string& part) {
  size_t n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) ++n;
  return n;
}

// Every element that is opened is closed, in order.
inline void expect_well_formed(const std::string& html) {
  const std::regex tag(R"(<(/?)([a-zA-Z0-9]+)([^<>]*)>)");
  std::vector<std::string> open;
  for (std::sregex_iterator match(html.begin(), html.end(), tag), end; match != end; ++match) {
    const std::string name = (*match)[2], rest = (*match)[3];
    if (name == "meta" || rest.ends_with('/')) continue;
    if ((*match)[1].length() == 0) {
      open.push_back(name);
    } else {
      ASSERT_FALSE(open.empty()) << name;
      ASSERT_EQ(open.back(), name);
      open.pop_back();
    }
  }
  EXPECT_TRUE(open.empty());
}

}  // namespace bitnet::testing
