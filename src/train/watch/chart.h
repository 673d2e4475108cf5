#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace bitnet {

// A line of a chart. More points than pixels become their mean, with the range between the least and the greatest as a
// band behind it. Points that are not finite leave a gap and a mark at the upper edge.
struct ChartLine {
  std::string label;
  std::string color;  // CSS: "var(--line-1)", "hsl(210 70% 55%)"
  std::vector<double> x, y;
};

struct Chart {
  std::string title;
  std::string note;  // a few words behind the title: what the unit is
  std::vector<ChartLine> lines;
  double width = 520, height = 250;  // of the drawing; it scales with the page
  bool percent = false;              // values are shares
  bool log_scale = false;            // where all values are positive and far apart
  bool legend = false;
  double hidden_start = 0;  // the values of this first share of the steps may lie outside the picture
};

// <figure> with an SVG that takes its colours from the page's CSS variables.
std::string chart_html(const Chart& chart);

std::string escaped_html(std::string_view text);
// "1.203", "1.5e-04", "12,345", "33.1%": about four digits.
std::string short_number(double value, bool percent = false);

}  // namespace bitnet
