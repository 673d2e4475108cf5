#include "report/chart.h"

#include "report/page.h"
#include "report/ticks.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace bitnet {
namespace {

constexpr double kLeft = 52, kRight = 62, kTop = 10, kBottom = 26;  // margins around the plot
constexpr double kLabelGap = 13;                                    // between the values at the lines' ends

struct Range {
  double low = std::numeric_limits<double>::infinity(), high = -std::numeric_limits<double>::infinity();
  void add(double value) {
    if (!std::isfinite(value)) return;
    low = std::min(low, value);
    high = std::max(high, value);
  }
  bool empty() const { return !(low <= high); }
};

// Maps values to places on the drawing.
struct Axis {
  double low, high;   // of the values; logarithms on a logarithmic axis
  double begin, end;  // on the drawing
  bool logarithmic = false;
  double operator()(double value) const {
    if (logarithmic) value = std::log10(value);
    return begin + (value - low) / (high - low) * (end - begin);
  }
};

std::vector<double> ticks(const Axis& axis, int n) {
  if (axis.logarithmic) {
    std::vector<double> values;
    const bool few = axis.high - axis.low < 2.5;  // powers of ten alone would be too few
    const double stride = std::max(1.0, std::ceil((axis.high - axis.low) / 6));
    for (double power = std::floor(axis.low); power <= axis.high; power += stride) {
      for (const double digit : {1.0, 2.0, 5.0}) {
        const double value = digit * std::pow(10, power);
        const bool inside = std::log10(value) >= axis.low && std::log10(value) <= axis.high;
        if (inside && (few || digit == 1)) values.push_back(value);
      }
    }
    return values;
  }
  return round_ticks(axis.low, axis.high, n);
}

// The points that fall on one column of the drawing.
struct Column {
  double x = 0, mean = 0, low = 0, high = 0;
  bool gap_before = false;
};

struct Drawn {
  std::vector<Column> columns;
  std::vector<double> broken;  // x of values that are not finite
  bool has_band = false;
};

Drawn drawn_line(const ChartLine& line, double first, double last, size_t n_columns) {
  Drawn drawn;
  drawn.has_band = line.x.size() > n_columns;
  const double width = last > first ? (last - first) / double(n_columns) : 1;
  bool gap = false;
  for (size_t i = 0; i < line.x.size();) {
    const auto column_of = [&](double x) { return std::min(std::floor((x - first) / width), double(n_columns - 1)); };
    const double column = column_of(line.x[i]);
    Range range;
    double sum = 0, sum_x = 0;
    int n = 0;
    do {
      if (std::isfinite(line.y[i])) {
        range.add(line.y[i]);
        sum += line.y[i];
        sum_x += line.x[i];
        ++n;
      } else {
        drawn.broken.push_back(line.x[i]);
        gap = true;
      }
      ++i;
    } while (drawn.has_band && i < line.x.size() && column_of(line.x[i]) == column);
    if (n == 0) continue;
    drawn.columns.push_back({sum_x / n, sum / n, range.low, range.high, gap && !drawn.columns.empty()});
    gap = false;
  }
  return drawn;
}

std::string path_of(const std::vector<Column>& columns, const Axis& x, const Axis& y) {
  std::string path;
  for (size_t i = 0; i < columns.size(); ++i) {
    path += fmt::format("{}{:.1f} {:.1f}", i == 0 || columns[i].gap_before ? "M" : "L", x(columns[i].x),
                        y(columns[i].mean));
  }
  return path;
}

std::string band_of(const std::vector<Column>& columns, const Axis& x, const Axis& y) {
  std::string path;
  for (size_t begin = 0; begin < columns.size();) {
    size_t end = begin + 1;
    while (end < columns.size() && !columns[end].gap_before) ++end;
    for (size_t i = begin; i < end; ++i) {
      path += fmt::format("{}{:.1f} {:.1f}", i == begin ? "M" : "L", x(columns[i].x), y(columns[i].high));
    }
    for (size_t i = end; i-- > begin;) path += fmt::format("L{:.1f} {:.1f}", x(columns[i].x), y(columns[i].low));
    path += "Z";
    begin = end;
  }
  return path;
}

std::string grid(const Chart& chart, const Axis& x, const Axis& y) {
  std::string svg;
  for (const double value : ticks(y, 5)) {
    svg += fmt::format(
        "<path class=\"grid\" d=\"M{:.1f} {:.1f}H{:.1f}\"/><text class=\"tick\" x=\"{:.1f}\" y=\"{:.1f}\" "
        "text-anchor=\"end\">{}</text>\n",
        x.begin, y(value), x.end, x.begin - 7, y(value) + 4, short_number(value, chart.percent));
  }
  for (const double value : ticks(x, chart.width > 700 ? 8 : 5)) {
    if (chart.whole_x && value != std::round(value)) continue;
    svg += fmt::format("<text class=\"tick\" x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{}</text>\n", x(value),
                       y.begin + 19, short_number(value));
  }
  return svg + fmt::format("<path class=\"axis\" d=\"M{:.1f} {:.1f}H{:.1f}\"/>\n", x.begin, y.begin, x.end);
}

// The last value of each line, kept apart from the others.
std::string end_labels(const Chart& chart, const std::vector<Drawn>& drawn, const Axis& x, const Axis& y) {
  struct Label {
    double at;
    std::string text, color;
  };
  std::vector<Label> labels;
  std::string svg;
  for (size_t i = 0; i < drawn.size(); ++i) {
    if (drawn[i].columns.empty()) continue;
    const Column& last = drawn[i].columns.back();
    const std::string& color = chart.lines[i].color;
    svg += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\" fill=\"{}\"/>\n", x(last.x), y(last.mean), color);
    labels.push_back({y(last.mean), short_number(last.mean, chart.percent), color});
  }
  std::sort(labels.begin(), labels.end(), [](const Label& a, const Label& b) { return a.at < b.at; });
  for (size_t i = 1; i < labels.size(); ++i) labels[i].at = std::max(labels[i].at, labels[i - 1].at + kLabelGap);
  for (const Label& label : labels) {
    svg += fmt::format("<text class=\"value\" x=\"{:.1f}\" y=\"{:.1f}\" fill=\"{}\">{}</text>\n", x.end + 8,
                       label.at + 4, label.color, label.text);
  }
  return svg;
}

std::string legend_html(const Chart& chart) {
  std::string html;
  for (const ChartLine& line : chart.lines) {
    html += fmt::format("<span class=\"key\"><i style=\"background:{}\"></i>{}</span>", line.color,
                        escaped_html(line.label));
  }
  return html;
}

Range y_range(const Chart& chart, const std::vector<Drawn>& drawn, double first_step) {
  Range range;
  for (const Drawn& line : drawn) {
    for (const Column& column : line.columns) {
      if (column.x < first_step) continue;
      range.add(column.low);
      range.add(column.high);
    }
  }
  if (range.empty()) range = {0, 1};
  if (chart.log_scale) {
    range = {std::log10(range.low), std::log10(range.high)};
  } else if (range.low > 0 && range.low < 0.4 * range.high && chart.hidden_start == 0) {
    range.low = 0;
  }
  const double pad =
      range.high > range.low ? 0.05 * (range.high - range.low) : std::max(std::abs(range.high) * 0.1, 1e-9);
  const bool at_zero = !chart.log_scale && range.low == 0 && range.high > 0;
  return {at_zero ? 0 : range.low - pad, range.high + pad};
}

}  // namespace

std::string chart_svg(const Chart& chart) {
  Range steps;
  for (const ChartLine& line : chart.lines) {
    for (const double x : line.x) steps.add(x);
  }
  if (steps.empty()) steps = {0, 1};
  if (steps.low == steps.high) steps.high = steps.low + 1;
  std::vector<Drawn> drawn;
  for (const ChartLine& line : chart.lines) {
    drawn.push_back(drawn_line(line, steps.low, steps.high, size_t(chart.width / 2)));
  }
  const Range values = y_range(chart, drawn, steps.low + chart.hidden_start * (steps.high - steps.low));
  const Axis x{steps.low, steps.high, kLeft, chart.width - kRight};
  const Axis y{values.low, values.high, chart.height - kBottom, kTop, chart.log_scale};
  // An inner <svg> cuts off what lies outside the plot.
  std::string svg = grid(chart, x, y) + fmt::format(
                                            "<svg x=\"0\" y=\"{0:.0f}\" width=\"{1:.0f}\" height=\"{2:.0f}\" "
                                            "viewBox=\"0 {0:.0f} {1:.0f} {2:.0f}\">\n",
                                            kTop - 4, chart.width, chart.height - kBottom - kTop + 6);
  for (size_t i = 0; i < drawn.size(); ++i) {
    if (!drawn[i].has_band) continue;
    svg += fmt::format("<path class=\"band\" fill=\"{}\" d=\"{}\"/>\n", chart.lines[i].color,
                       band_of(drawn[i].columns, x, y));
  }
  for (size_t i = 0; i < drawn.size(); ++i) {
    svg += fmt::format("<path class=\"line\" stroke=\"{}\" d=\"{}\"/>\n", chart.lines[i].color,
                       path_of(drawn[i].columns, x, y));
  }
  svg += "</svg>\n";
  for (const Drawn& line : drawn) {
    for (const double broken : line.broken) {
      svg += fmt::format("<text class=\"broken\" x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">\u00d7</text>\n",
                         x(broken), kTop + 6);
    }
  }
  if (chart.lines.size() <= 3) svg += end_labels(chart, drawn, x, y);
  return svg_element(chart.title, chart.width, chart.height, svg);
}

std::string chart_html(const Chart& chart) {
  return figure_html(chart.title, chart.note, chart.legend ? legend_html(chart) : "", chart_svg(chart));
}

}  // namespace bitnet
