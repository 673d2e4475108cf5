#pragma once

#include "report/statistics.h"

#include <optional>
#include <string>
#include <vector>

namespace bitnet {

// One line of a row chart. Without intervals it is a bar from 0; with them a dot, the median's interval as a broad
// band, and the reach of the values as a thin line with ends.
struct ChartRow {
  std::string label;
  double value = 0;
  std::string text;               // behind the value's place: "212 tokens/s"; empty: the value
  std::optional<Interval> sure;   // of the median
  std::optional<Interval> reach;  // of the values
  std::optional<double> mark;     // a limit, as a stroke across
  std::string color = "var(--line-1)";
};

// Named values below each other, on one scale: fits a phone. Values must be finite.
struct RowChart {
  std::string title;
  std::string note;  // a few words behind the title: what the unit is
  std::vector<ChartRow> rows;
  double width = 360;               // of the drawing; it scales with the page
  std::optional<double> reference;  // a line through all rows, such as the ratio 1; the scale is then around it
  bool percent = false;
};

// As chart_svg and chart_html.
std::string row_chart_svg(const RowChart& chart);
std::string row_chart_html(const RowChart& chart);

}  // namespace bitnet
