#include "train/watch/report.h"

#include "train/test_folder.h"
#include "train/watch/chart.h"
#include "train/watch/log_lines.h"
#include "train/watch/metrics_log.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <regex>

namespace bitnet {
namespace {

using testing::expect_error;
using testing::TemporaryFolder;

size_t count_of(const std::string& text, const std::string& part) {
  size_t n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) ++n;
  return n;
}

// Every element that is opened is closed, in order.
void expect_well_formed(const std::string& html) {
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

TEST(ShortNumber, HasAboutFourDigits) {
  EXPECT_EQ(short_number(0), "0");
  EXPECT_EQ(short_number(1.20349), "1.203");
  EXPECT_EQ(short_number(3000), "3000");
  EXPECT_EQ(short_number(18234.5), "18.23k");
  EXPECT_EQ(short_number(2.5e6), "2.5M");
  EXPECT_EQ(short_number(1.5e-5), "1.5e-05");
  EXPECT_EQ(short_number(0.331, true), "33.1%");
  EXPECT_EQ(short_number(0.00072, true), "0.072%");
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

TEST(Report, ShowsEveryMetricAndSample) {
  TemporaryFolder folder;
  {
    auto log = MetricsLog::open(folder.path(), -1);
    ASSERT_TRUE(log);
    for (int step = 1; step <= 100; ++step) {
      const double t = step / 100.0;
      const Metric metrics[] = {{metric::kLoss, 6 - 4 * t},
                                {metric::kLearningRate, 1e-3 * (1 - t)},
                                {metric::kGradientNorm, 100 * std::exp(-9 * t)},
                                {metric::kTokensPerSecond, 1000},
                                {metric::kMfu, 0.3},
                                {metric::kFlippedShare, 0.01},
                                {metric::kZeroShare, 0.33},
                                {"scale/layers.0.q_proj", 0.02},
                                {"scale/layers.1.q_proj", 0.03},
                                {"scale/layers.1.up_proj", 0.03},
                                {"scale/head", 0.5},
                                {"my_own<metric>", t}};
      ASSERT_TRUE(log->log(step, metrics));
      const Metric valid[] = {{metric::kValidLoss, 6.1 - 4 * t}};
      ASSERT_TRUE(step % 25 != 0 || log->log(step, valid));
    }
    for (int step = 1; step <= 40; ++step) ASSERT_TRUE(log->log_text(step, "sample", fmt::format("text <{}>", step)));
  }
  const auto history = read_run_history(folder.path());
  ASSERT_TRUE(history) << history.error().message;
  EXPECT_EQ(history->last_step, 100);
  EXPECT_EQ(history->series.at("loss").steps.size(), 100u);
  EXPECT_EQ(history->series.at("valid_loss").values.back(), 6.1 - 4);
  EXPECT_EQ(history->samples.size(), 40u);
  const std::string html = run_report_html(*history, "My & run", "[model]\nname = \"<x>\"\n");
  expect_well_formed(html);
  EXPECT_EQ(count_of(html, "<figure>"), 1u + 6 + 3 + 1);  // losses, known ones, scales by matrix, the own one
  for (const char* part :
       {"My &amp; run", "my_own&lt;metric&gt;", "text &lt;40&gt;", "text &lt;1&gt;", "2.1000",
        "best 2.1000 at step 100", "name = &quot;&lt;x&gt;&quot;", "2 layers", "prefers-color-scheme"}) {
    EXPECT_NE(html.find(part), std::string::npos) << part;
  }
  EXPECT_EQ(count_of(html, "class=\"sample\""), 12u);
  EXPECT_EQ(html.find("://"), std::string::npos) << "nothing is fetched";
}

TEST(Report, RefusesFoldersThatAreNoRun) {
  TemporaryFolder folder;
  expect_error(read_run_history(folder.path()), ErrorCode::kInvalidInput, "metrics.jsonl");
  folder.write(kMetricsFile, "{\"step\": 1, \"time_s\": 5, \"loss\": 1}\n{\"step\": 2, \"loss\": 1}\n");
  expect_error(read_run_history(folder.path()), ErrorCode::kInvalidInput, "line 2");
  folder.write(kMetricsFile, "{\"step\": 1, \"time_s\": 5, \"loss\": 1}\n{\"step\": 2, \"lo");
  const auto history = read_run_history(folder.path());
  ASSERT_TRUE(history);
  EXPECT_EQ(history->last_step, 1);
}

}  // namespace
}  // namespace bitnet
