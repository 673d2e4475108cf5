#include "train/watch/report.h"

#include "report/test_html.h"
#include "train/test_folder.h"
#include "train/watch/log_lines.h"
#include "train/watch/metrics_log.h"

#include <cmath>

namespace bitnet {
namespace {

using testing::count_of;
using testing::expect_error;
using testing::expect_well_formed;
using testing::TemporaryFolder;

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
