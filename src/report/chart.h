#pragma once

#include <string>
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
  bool whole_x = false;     // no marks between whole numbers
  double hidden_start = 0;  // the values of this first share of the steps may lie outside the picture
};

// The drawing alone, and in a <figure> with its title; both take their colours from the page's CSS variables (page.h).
std::string chart_svg(const Chart& chart);
std::string chart_html(const Chart& chart);

}  // namespace bitnet
