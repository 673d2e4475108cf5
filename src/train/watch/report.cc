#include "train/watch/report.h"

#include "report/chart.h"
#include "report/page.h"
#include "report/statistics.h"
#include "train/watch/metrics_log.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

namespace bitnet {
namespace {

constexpr size_t kMaxSamples = 12;
constexpr size_t kTableRows = 20;
constexpr double kLossStart = 0.03;  // of the steps: the fall from the start would hide all that follows
constexpr double kLogRatio = 30;     // values further apart than this are drawn on a logarithmic scale

using Series = RunHistory::Series;

const Series* find(const RunHistory& history, std::string_view name) {
  const auto found = history.series.find(std::string(name));
  return found == history.series.end() ? nullptr : &found->second;
}

std::vector<double> finite_values(const Series& series) {
  std::vector<double> values;
  std::copy_if(series.values.begin(), series.values.end(), std::back_inserter(values),
               [](double value) { return std::isfinite(value); });
  return values;
}

ChartLine line_of(const Series& series, std::string label, std::string color) {
  return {std::move(label), std::move(color), series.steps, series.values};
}

bool is_far_apart(const Series& series) {
  const std::vector<double> values = finite_values(series);
  if (values.empty()) return false;
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  return *low > 0 && *high > kLogRatio * *low;
}

std::string duration(double seconds) {
  const int64_t s = int64_t(seconds + 0.5);
  if (s < 120) return fmt::format("{} s", s);
  if (s < 7200) return fmt::format("{} min {} s", s / 60, s % 60);
  return fmt::format("{} h {} min", s / 3600, s / 60 % 60);
}

// A step's own loss says little: the mean of the last few.
std::string training_loss_tile(const Series& series) {
  const std::vector<double> values = finite_values(series);
  if (values.empty()) return tile_html("none", "Training loss", "no value is finite");
  const size_t n = std::max<size_t>(1, values.size() / 50);
  const double sum = std::accumulate(values.end() - ptrdiff_t(n), values.end(), 0.0);
  return tile_html(fmt::format("{:.4f}", sum / double(n)), "Training loss",
                   n == 1 ? std::string("at the end") : fmt::format("mean of the last {}", n));
}

std::string validation_loss_tile(const Series& series) {
  const std::vector<double> values = finite_values(series);
  if (values.empty()) return tile_html("none", "Validation loss", "no value is finite");
  size_t best = 0;
  for (size_t i = 0; i < series.values.size(); ++i) {
    if (!std::isfinite(series.values[best]) || series.values[i] < series.values[best]) best = i;
  }
  return tile_html(fmt::format("{:.4f}", values.back()), "Validation loss",
                   fmt::format("best {:.4f} at step {:.0f}", series.values[best], series.steps[best]));
}

std::string tiles_html(const RunHistory& history) {
  std::string html = tile_html(fmt::format("{}", history.last_step), "Steps",
                               "in " + duration(history.last_time_s - history.first_time_s));
  if (const Series* loss = find(history, metric::kLoss)) html += training_loss_tile(*loss);
  if (const Series* loss = find(history, metric::kValidLoss)) html += validation_loss_tile(*loss);
  if (const Series* speed = find(history, metric::kTokensPerSecond)) {
    const std::vector<double> values = finite_values(*speed);
    if (!values.empty()) html += tile_html(short_number(median(values)), "Tokens a second", "median");
  }
  if (const Series* zeros = find(history, metric::kZeroShare)) {
    const std::vector<double> values = finite_values(*zeros);
    if (!values.empty()) html += tile_html(short_number(values.back(), true), "Codes that are zero", "at the end");
  }
  return "<div class=\"tiles\">\n" + html + "</div>\n";
}

std::string loss_chart(const RunHistory& history) {
  Chart chart{.title = "Loss", .note = "nats a token", .lines = {}, .width = 1070, .height = 330};
  if (const Series* loss = find(history, metric::kLoss))
    chart.lines.push_back(line_of(*loss, "training", "var(--line-1)"));
  if (const Series* loss = find(history, metric::kValidLoss)) {
    chart.lines.push_back(line_of(*loss, "validation", "var(--line-2)"));
  }
  chart.legend = chart.lines.size() > 1;
  chart.hidden_start = kLossStart;
  return chart.lines.empty() ? "" : "<div class=\"wide\">" + chart_html(chart) + "</div>\n";
}

struct KnownChart {
  std::string_view metric;
  const char* title;
  const char* note;
  bool percent;
};
constexpr KnownChart kKnownCharts[] = {
    {metric::kLearningRate, "Learning rate", "", false},
    {metric::kGradientNorm, "Gradient norm", "before clipping", false},
    {metric::kFlippedShare, "Flipped codes", "share of ternary codes that changed", true},
    {metric::kZeroShare, "Zero codes", "share of ternary codes that are 0", true},
    {metric::kTokensPerSecond, "Speed", "tokens a second", false},
    {metric::kMfu, "Model FLOPs utilisation", "share of the machine's peak", true},
};

std::string plain_chart(const Series& series, const std::string& title, const std::string& note, bool percent) {
  Chart chart{.title = title, .note = note, .lines = {line_of(series, title, "var(--line-1)")}};
  chart.percent = percent;
  chart.log_scale = !percent && is_far_apart(series);
  if (chart.log_scale) chart.note += chart.note.empty() ? "logarithmic" : ", logarithmic";
  return chart_html(chart);
}

// "scale/layers.3.q_proj": layer 3, "q_proj". Names without a number are a chart of their own.
struct ScaleName {
  int64_t layer = -1;
  std::string matrix;
};
ScaleName scale_name(std::string_view name) {
  name.remove_prefix(metric::kScalePrefix.size());
  const size_t digits = name.find_first_of("0123456789");
  if (digits == std::string_view::npos || digits == 0 || name[digits - 1] != '.') return {-1, std::string(name)};
  const size_t end = std::min(name.find_first_not_of("0123456789", digits), name.size());
  const std::string matrix(name.substr(std::min(end + 1, name.size())));
  return {std::stoll(std::string(name.substr(digits, std::min<size_t>(end - digits, 9)))),
          matrix.empty() ? std::string(name.substr(0, digits - 1)) : matrix};
}

// In the order that a layer uses them, then the others by name.
size_t matrix_rank(std::string_view matrix) {
  static constexpr std::string_view kOrder[] = {"q_proj",    "k_proj",  "v_proj",   "o_proj",
                                                "gate_proj", "up_proj", "down_proj"};
  return size_t(std::find_if(std::begin(kOrder), std::end(kOrder),
                             [&](std::string_view name) { return matrix.ends_with(name); }) -
                std::begin(kOrder));
}

// A chart for each kind of matrix, a line for each layer, coloured from the first layer to the last.
std::string scale_charts(const RunHistory& history) {
  std::map<std::pair<size_t, std::string>, std::map<int64_t, const Series*>> matrices;
  for (const auto& [name, series] : history.series) {
    if (!name.starts_with(metric::kScalePrefix)) continue;
    const ScaleName parts = scale_name(name);
    matrices[{matrix_rank(parts.matrix), parts.matrix}][parts.layer] = &series;
  }
  if (matrices.empty()) return "";
  std::string html =
      "<h2>Scales <span class=\"soft\">mean |w| of each matrix; from the first layer"
      "<span class=\"ramp\" style=\"background:linear-gradient(to right, hsl(205 75% 55%), hsl(335 75% 55%))\"></span>"
      "to the last</span></h2>\n<div class=\"charts small\">\n";
  for (const auto& [matrix, layers] : matrices) {
    Chart chart{.title = matrix.second,
                .note = fmt::format("{} layer{}", layers.size(), layers.size() == 1 ? "" : "s"),
                .lines = {},
                .width = 370,
                .height = 210};
    const double last = std::max<double>(1, double(layers.rbegin()->first));
    for (const auto& [layer, series] : layers) {
      chart.lines.push_back(
          line_of(*series, fmt::format("layer {}", layer),
                  fmt::format("hsl({:.0f} 75% 55%)", 205 + 130 * std::max<double>(0, double(layer)) / last)));
    }
    html += chart_html(chart);
  }
  return html + "</div>\n";
}

std::string other_charts(const RunHistory& history) {
  std::string html;
  for (const auto& [name, series] : history.series) {
    const bool known =
        name == metric::kLoss || name == metric::kValidLoss || name.starts_with(metric::kScalePrefix) ||
        std::any_of(std::begin(kKnownCharts), std::end(kKnownCharts),
                    [&, &metric_name = name](const KnownChart& chart) { return chart.metric == metric_name; });
    if (!known) html += plain_chart(series, name, "", false);
  }
  return html.empty() ? "" : "<h2>Other metrics</h2>\n<div class=\"charts\">\n" + html + "</div>\n";
}

// For those who want numbers: the losses at a few steps.
std::string loss_table(const RunHistory& history) {
  const Series* train = find(history, metric::kLoss);
  const Series* valid = find(history, metric::kValidLoss);
  std::set<double> steps;
  for (const Series* series : {train, valid}) {
    if (series == nullptr || series->steps.empty()) continue;
    for (size_t i = 0; i <= kTableRows; ++i) steps.insert(series->steps[i * (series->steps.size() - 1) / kTableRows]);
  }
  if (steps.empty()) return "";
  const auto cell = [](const Series* series, double step) -> std::string {
    if (series == nullptr) return "";
    const auto at = std::lower_bound(series->steps.begin(), series->steps.end(), step);
    if (at == series->steps.end() || *at != step) return "";
    const double value = series->values[size_t(at - series->steps.begin())];
    return std::isfinite(value) ? fmt::format("{:.4f}", value) : "not finite";
  };
  std::string html =
      "<details><summary>Losses as "
      "numbers</summary>\n<table><tr><th>step</th><th>training</th><th>validation</th></tr>\n";
  for (const double step : steps) {
    html += fmt::format("<tr><td>{:.0f}</td><td>{}</td><td>{}</td></tr>\n", step, cell(train, step), cell(valid, step));
  }
  return html + "</table></details>\n";
}

std::string samples_html(const RunHistory& history) {
  if (history.samples.empty()) return "";
  std::string html = "<h2>What the model wrote</h2>\n";
  const size_t n = std::min(history.samples.size(), kMaxSamples);
  for (size_t i = 0; i < n; ++i) {  // newest first, the others spread over the run
    const size_t index = n == 1 ? 0 : (n - 1 - i) * (history.samples.size() - 1) / (n - 1);
    const RunHistory::Sample& sample = history.samples[index];
    html += fmt::format("<div class=\"sample\"><span class=\"soft\">step {}{}</span><p>{}</p></div>\n", sample.step,
                        sample.name.empty() ? "" : ", " + escaped_html(sample.name), escaped_html(sample.text));
  }
  return html;
}

}  // namespace

std::string run_report_html(const RunHistory& history, const std::string& title, const std::string& config) {
  std::string charts = loss_chart(history);
  for (const KnownChart& known : kKnownCharts) {
    if (const Series* series = find(history, known.metric)) {
      charts += plain_chart(*series, known.title, known.note, known.percent);
    }
  }
  std::string html = "<div class=\"soft\">A training run</div>\n";
  html += tiles_html(history);
  html += "<div class=\"charts\">\n" + charts + "</div>\n";
  html += loss_table(history) + scale_charts(history) + other_charts(history) + samples_html(history);
  if (!config.empty()) {
    html += "<details><summary>Configuration</summary><pre>" + escaped_html(config) + "</pre></details>\n";
  }
  return page_html(title, html);
}

}  // namespace bitnet
