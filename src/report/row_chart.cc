#include "report/row_chart.h"

#include "report/page.h"
#include "report/ticks.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace bitnet {
namespace {

constexpr double kRowHeight = 40, kTop = 4, kBottom = 24, kSide = 8;
constexpr double kBar = 9;  // thickness

struct Scale {
  double low, high, width;
  double operator()(double value) const { return kSide + (value - low) / (high - low) * (width - 2 * kSide); }
};

Scale scale_of(const RowChart& chart) {
  double low = chart.reference.value_or(0), high = low;
  for (const ChartRow& row : chart.rows) {
    for (const double value : {row.value, row.mark.value_or(row.value), row.reach ? row.reach->low : row.value,
                               row.reach ? row.reach->high : row.value, row.sure ? row.sure->low : row.value,
                               row.sure ? row.sure->high : row.value}) {
      low = std::min(low, value);
      high = std::max(high, value);
    }
  }
  // The least range that numbers of this size can tell apart.
  const double least = std::max(1e-6 * std::max(std::abs(low), std::abs(high)), 1e-12);
  const double pad = std::max(0.04 * (high - low), least);
  return {chart.reference || low < 0 ? low - pad : 0, high + pad, chart.width};
}

std::string row_svg(const ChartRow& row, const Scale& x, double top, bool percent) {
  const double middle = top + 26;
  std::string svg = fmt::format(
      "<text class=\"row\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>"
      "<text class=\"row value\" x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>\n",
      kSide, top + 13, escaped_html(row.label), x.width - kSide, top + 13,
      escaped_html(row.text.empty() ? short_number(row.value, percent) : row.text));
  if (row.sure || row.reach) {
    if (row.reach) {
      svg += fmt::format(
          "<path class=\"reach\" stroke=\"{0}\" d=\"M{1:.1f} {3:.1f}V{4:.1f}M{1:.1f} {5:.1f}H{2:.1f}M{2:.1f} "
          "{3:.1f}V{4:.1f}\"/>\n",
          row.color, x(row.reach->low), x(row.reach->high), middle - 4, middle + 4, middle);
    }
    if (row.sure) {
      svg += fmt::format(
          "<rect class=\"sure\" fill=\"{}\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" rx=\"3\"/>\n",
          row.color, x(row.sure->low), middle - kBar / 2, std::max(1.0, x(row.sure->high) - x(row.sure->low)), kBar);
    }
    svg +=
        fmt::format("<circle fill=\"{}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3.6\"/>\n", row.color, x(row.value), middle);
  } else {
    const double begin = std::min(x(0), x(row.value)), end = std::max(x(0), x(row.value));
    svg += fmt::format("<rect fill=\"{}\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" rx=\"2\"/>\n",
                       row.color, begin, middle - kBar / 2, std::max(1.0, end - begin), kBar);
  }
  if (row.mark) {
    svg += fmt::format("<path class=\"mark\" d=\"M{:.1f} {:.1f}V{:.1f}\"/>\n", x(*row.mark), middle - 7, middle + 7);
  }
  return svg;
}

}  // namespace

std::string row_chart_svg(const RowChart& chart) {
  const Scale x = scale_of(chart);
  const double bottom = kTop + kRowHeight * double(chart.rows.size()) + 2;
  std::string svg;
  for (const double value : round_ticks(x.low, x.high, 4)) {
    const double at = x(value);
    const char* const anchor = at < 20 ? "start" : at > chart.width - 20 ? "end" : "middle";
    svg += fmt::format(
        "<path class=\"grid\" d=\"M{0:.1f} {1:.1f}V{2:.1f}\"/><text class=\"tick\" x=\"{0:.1f}\" y=\"{3:.1f}\" "
        "text-anchor=\"{4}\">{5}</text>\n",
        at, kTop, bottom, bottom + 16, anchor, short_number(value, chart.percent));
  }
  if (chart.reference) {
    svg += fmt::format("<path class=\"axis\" d=\"M{:.1f} {:.1f}V{:.1f}\"/>\n", x(*chart.reference), kTop, bottom);
  }
  for (size_t i = 0; i < chart.rows.size(); ++i) {
    svg += row_svg(chart.rows[i], x, kTop + kRowHeight * double(i), chart.percent);
  }
  return svg_element(chart.title, chart.width, bottom + kBottom, svg);
}

std::string row_chart_html(const RowChart& chart) {
  return figure_html(chart.title, chart.note, "", row_chart_svg(chart));
}

}  // namespace bitnet
