#include "report/chart.h"

#include "report/page.h"
#include "report/row_chart.h"
#include "report/test_html.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <regex>

namespace bitnet {
namespace {

using testing::count_of;
using testing::expect_well_formed;

TEST(ShortNumber, HasAboutFourDigits) {
  EXPECT_EQ(short_number(0), "0");
  EXPECT_EQ(short_number(1.20349), "1.203");
  EXPECT_EQ(short_number(3000), "3000");
  EXPECT_EQ(short_number(18234.5), "18.23k");
  EXPECT_EQ(short_number(2.5e6), "2.5M");
  EXPECT_EQ(short_number(1.5e-5), "1.5e-05");
  EXPECT_EQ(short_number(0.331, true), "33.1%");
  EXPECT_EQ(short_number(0.00072, true), "0.072%");
  EXPECT_EQ(short_number(51.2, true), "5120%");
}

TEST(Chart, ShowsTheExtremesOfManyPoints) {
  ChartLine line{"loss", "red", {}, {}};
  for (int i = 0; i < 100'000; ++i) {
    line.x.push_back(i);
    line.y.push_back(i == 54'321 ? 9 : 1);
  }
  Chart chart{.title = "Loss", .note = "", .lines = {line}};
  const std::string html = chart_html(chart);
  EXPECT_LT(html.size(), 30'000u);
  EXPECT_EQ(count_of(html, "class=\"band\""), 1u);
  EXPECT_NE(html.find(">8<"), std::string::npos) << "the axis reaches up to the spike";
  expect_well_formed(html);
}

TEST(Chart, MarksValuesThatAreNotFinite) {
  Chart chart{.title = "<Loss>", .note = "", .lines = {{"a", "red", {1, 2, 3, 4}, {1, std::nan(""), 2, 3}}}};
  const std::string html = chart_html(chart);
  EXPECT_EQ(count_of(html, "class=\"broken\""), 1u);
  std::smatch path;
  ASSERT_TRUE(std::regex_search(html, path, std::regex("class=\"line\"[^>]* d=\"([^\"]*)\"")));
  EXPECT_EQ(count_of(path[1], "M"), 2u) << "a gap";
  EXPECT_NE(html.find("&lt;Loss&gt;"), std::string::npos);
  expect_well_formed(html);
}

TEST(Chart, DrawsWhateverItGets) {
  const double inf = std::numeric_limits<double>::infinity();
  for (const std::vector<double>& y :
       {std::vector<double>{}, {5}, {5, 5}, {0, 0}, {-1, 1}, {inf, -inf}, {1e-300, 1e300}}) {
    for (const bool log_scale : {false, true}) {
      std::vector<double> x(y.size());
      for (size_t i = 0; i < x.size(); ++i) x[i] = double(i);
      const bool positive = std::all_of(y.begin(), y.end(), [](double v) { return v > 0 && std::isfinite(v); });
      Chart chart{.title = "t", .note = "", .lines = {{"a", "red", x, y}}};
      chart.log_scale = log_scale && positive && !y.empty();
      const std::string html = chart_html(chart);
      expect_well_formed(html);
      EXPECT_EQ(html.find("nan"), std::string::npos);
      EXPECT_LT(html.size(), 20'000u);
    }
  }
}

// The circles of a row chart, by their place.
std::vector<double> dots(const std::string& svg) {
  std::vector<double> places;
  const std::regex dot("<circle[^>]* cx=\"([0-9.]+)\"");
  for (std::sregex_iterator match(svg.begin(), svg.end(), dot), end; match != end; ++match) {
    places.push_back(std::stod((*match)[1]));
  }
  return places;
}

TEST(RowChart, PutsValuesOnOneScale) {
  RowChart chart{.title = "Speed", .note = "tokens/s", .rows = {}};
  for (const double value : {10.0, 20.0, 30.0}) {
    ChartRow row{.label = "<row>", .value = value, .text = ""};
    row.sure = Interval{value - 1, value + 1};
    row.reach = Interval{value - 2, value + 2};
    row.mark = 40;
    chart.rows.push_back(row);
  }
  const std::string html = row_chart_html(chart);
  expect_well_formed(html);
  const std::vector<double> places = dots(html);
  ASSERT_EQ(places.size(), 3u);
  EXPECT_NEAR(places[1] - places[0], places[2] - places[1], 0.11);
  EXPECT_GT(places[1] - places[0], 60) << "a quarter of the width up to the mark at 40";
  EXPECT_EQ(count_of(html, "class=\"mark\""), 3u);
  EXPECT_EQ(count_of(html, "&lt;row&gt;"), 3u);
}

TEST(RowChart, BarsBeginAtZero) {
  const RowChart chart{.title = "t",
                       .note = "",
                       .rows = {{.label = "a", .value = 50, .text = ""}, {.label = "b", .value = 100, .text = ""}}};
  const std::string svg = row_chart_svg(chart);
  std::vector<double> widths;
  const std::regex bar("<rect[^>]* width=\"([0-9.]+)\"");
  for (std::sregex_iterator match(svg.begin(), svg.end(), bar), end; match != end; ++match) {
    widths.push_back(std::stod((*match)[1]));
  }
  ASSERT_EQ(widths.size(), 2u);
  EXPECT_NEAR(widths[1], 2 * widths[0], 0.2);
}

TEST(RowChart, DrawsWhateverItGets) {
  for (const double value : {0.0, 1.0, -3.0, 1e-300, 1e300}) {
    for (const bool referenced : {false, true}) {
      RowChart chart{.title = "t", .note = "", .rows = {{.label = "a", .value = value, .text = ""}}};
      if (referenced) chart.reference = 1;
      for (const std::string& html : {row_chart_html(chart), row_chart_html({.title = "", .note = "", .rows = {}})}) {
        expect_well_formed(html);
        EXPECT_EQ(html.find("nan"), std::string::npos);
        EXPECT_EQ(html.find("inf"), std::string::npos);
        EXPECT_LT(html.size(), 10'000u);
      }
    }
  }
}

// The encoded ends of "<svg" and "</svg>" by hand from the table of RFC 4648, at each length modulo 3.
TEST(Page, AddressOfADrawing) {
  EXPECT_EQ(svg_data_address("no tag"), "");
  std::vector<size_t> paddings;
  for (const char* content : {"", "x", "xy"}) {
    const std::string address = svg_data_address(svg_element("t", 1, 1, content));
    EXPECT_TRUE(address.starts_with("data:image/svg+xml;base64,PHN2Zy")) << "\"<svg\"";
    const std::string digits = address.substr(address.find(',') + 1);
    EXPECT_EQ(digits.size() % 4, 0u);
    EXPECT_EQ(digits.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="),
              std::string::npos);
    paddings.push_back(count_of(digits, "="));
    EXPECT_TRUE(address.ends_with("c3ZnPg==") || address.ends_with("L3N2Zz4=") || address.ends_with("PC9zdmc+"))
        << "\"</svg>\" at each place in a group: " << address.substr(address.size() - 12);
  }
  std::sort(paddings.begin(), paddings.end());
  EXPECT_EQ(paddings, (std::vector<size_t>{0, 1, 2}));
}

}  // namespace
}  // namespace bitnet
