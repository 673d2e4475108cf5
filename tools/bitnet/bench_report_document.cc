// What `bitnet bench report` says, as a document with plots and as a table for the terminal.
#include "bench_report.h"
#include "report/chart.h"
#include "report/row_chart.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

namespace bitnet::cli {
namespace {

constexpr double kSmallPhase = 0.015;  // of the time: drawn together
constexpr double kFarApart = 5;        // values further apart than this are drawn on a logarithmic scale

std::string threads_text(int n) { return fmt::format("{} thread{}", n, n == 1 ? "" : "s"); }
std::string percent(double share) { return fmt::format("{:.0f}%", 100 * share); }
std::string signed_percent(double ratio) { return fmt::format("{:+.1f}%", 100 * (ratio - 1)); }
std::string interval_text(const Interval& interval) {
  return fmt::format("{} to {}", human_rate(interval.low), human_rate(interval.high));
}

ChartRow row_of(std::string label, const std::vector<double>& values, std::string color = "var(--line-1)") {
  const Summary s = summarize(values);
  ChartRow row;
  row.label = std::move(label);
  row.value = s.p50;
  row.text = human_rate(s.p50);
  row.sure = s.median_interval;
  row.reach = Interval{s.p5, s.p95};
  row.color = std::move(color);
  return row;
}

ReportFigure figure_of(const RowChart& chart) { return {chart.title, chart.note, row_chart_svg(chart)}; }

// The tokens/s that the machine's limit allowed, in the median round.
std::optional<double> limit_of(const Measurement& m) {
  if (m.shares.size() != m.speeds.size() || m.shares.empty()) return std::nullopt;
  std::vector<double> limits;
  for (size_t i = 0; i < m.shares.size(); ++i) limits.push_back(m.speeds[i] / m.shares[i]);
  return median(limits);
}

// A limit far away would press everything else together.
void add_mark(ChartRow& row, const Measurement& m) {
  const std::optional<double> limit = limit_of(m);
  if (limit && *limit < 3 * row.value) row.mark = limit;
}

std::string size_of_test(const Measurement& m) {  // "512 tokens", "64 tokens after 448"
  const size_t depth = m.test.find(" @ d");
  const std::string n = m.test.substr(2, depth == std::string::npos ? depth : depth - 2);
  return n + " tokens" + (depth == std::string::npos ? "" : " after " + m.test.substr(depth + 4));
}

RowChart speed_chart(const ModelSpeed& model, bool prompt) {
  RowChart chart;
  chart.title = prompt ? "Reading a prompt" : "Writing";
  chart.note = "tokens/s, " + model.info.kernels;
  for (const Measurement& m : model.measurements) {
    if (m.prompt != prompt || m.kernels != model.info.kernels) continue;
    chart.rows.push_back(row_of(size_of_test(m) + ", " + threads_text(m.n_threads), m.speeds));
    add_mark(chart.rows.back(), m);
  }
  return chart;
}

// The instruction sets beside each other, in the test that all of them ran.
RowChart isa_chart(const ModelSpeed& model, bool prompt) {
  RowChart chart;
  const auto is_variant = [&](const Measurement& m) { return m.prompt == prompt && m.kernels != model.info.kernels; };
  const auto first = std::find_if(model.measurements.begin(), model.measurements.end(), is_variant);
  if (first == model.measurements.end()) return chart;
  chart.title = prompt ? "Reading, by instruction set" : "Writing, by instruction set";
  chart.note = size_of_test(*first) + ", " + threads_text(first->n_threads) + ", tokens/s";
  for (const Measurement& m : model.measurements) {
    if (m.test != first->test || m.n_threads != first->n_threads) continue;
    chart.rows.push_back(
        row_of(m.kernels, m.speeds, m.kernels == model.info.kernels ? "var(--line-1)" : "var(--line-3)"));
  }
  return chart;
}

RowChart phase_chart(const ModelSpeed& model, const SpeedReport& report, bool prompt) {
  RowChart chart;
  chart.title = prompt ? "Where a prompt token's time goes" : "Where a written token's time goes";
  chart.note = "microseconds, " + threads_text(model.phase_threads);
  double read = 0;
  for (const Ceiling& ceiling : report.ceilings) {
    if (ceiling.n_threads == model.phase_threads) read = median(ceiling.read_gb_per_s);
  }
  const std::vector<TimedBackend::Phase>& phases = prompt ? model.prompt_phases : model.generate_phases;
  double all_us = 0, small_us = 0;
  for (const TimedBackend::Phase& phase : phases) all_us += phase.seconds * 1e6;
  for (const TimedBackend::Phase& phase : phases) {
    if (phase.seconds * 1e6 < kSmallPhase * all_us) {
      small_us += phase.seconds * 1e6;
      continue;
    }
    ChartRow row;
    row.label = phase.name;
    row.value = phase.seconds * 1e6;
    row.text = human_rate(row.value);
    const double bound = read > 0 ? double(phase.weight_bytes) / read / 1e3 : 0;
    if (!prompt && bound > 0) row.mark = bound;
    chart.rows.push_back(std::move(row));
  }
  std::stable_sort(chart.rows.begin(), chart.rows.end(),
                   [](const ChartRow& a, const ChartRow& b) { return a.value > b.value; });
  if (small_us > 0) chart.rows.push_back({.label = "the rest", .value = small_us, .text = human_rate(small_us)});
  return chart;
}

// Each round beside the median: what the machine was like meanwhile.
ReportFigure rounds_figure(const ModelSpeed& model) {
  Chart chart;
  chart.title = "From round to round";
  chart.note = "share of the median; reading orange, writing blue";
  chart.width = 360;
  chart.height = 210;
  chart.percent = true;
  chart.whole_x = true;
  double least = 1, most = 1;  // of the shares
  for (const Measurement& m : model.measurements) {
    if (m.kernels != model.info.kernels) continue;
    ChartLine line;
    line.color = m.prompt ? "var(--line-2)" : "var(--line-1)";
    const double middle = median(m.speeds);
    for (size_t i = 0; i < m.speeds.size(); ++i) {
      line.x.push_back(double(i + 1));
      line.y.push_back(m.speeds[i] / middle);
      least = std::min(least, line.y.back());
      most = std::max(most, line.y.back());
    }
    chart.lines.push_back(std::move(line));
  }
  chart.log_scale = most > kFarApart * least;
  return {chart.title, chart.note, chart_svg(chart)};
}

ReportTable measurement_table(const ModelSpeed& model, bool energy) {
  ReportTable table;
  table.n_words = 2;
  table.rows = {{"test", "kernels", "threads", "p5", "median", "p95", "95% of the median", "of the ceiling"}};
  if (energy) table.rows[0].push_back("J/token");
  for (const Measurement& m : model.measurements) {
    const Summary s = summarize(m.speeds);
    table.rows.push_back({m.test, m.kernels, fmt::format("{}", m.n_threads), human_rate(s.p5), human_rate(s.p50),
                          human_rate(s.p95), interval_text(s.median_interval),
                          m.shares.empty() ? "unknown" : percent(median(m.shares))});
    if (energy) table.rows.back().push_back(m.joules.empty() ? "" : fmt::format("{:.3g}", median(m.joules)));
  }
  return table;
}

// Figures of a machine that works for others too mean less than they look.
std::string busy_text(const SpeedReport& report) {
  const double load = std::atof(report.machine.load.c_str());
  if (report.machine.n_processors == 0 || load < 0.5 * report.machine.n_processors) return {};
  return fmt::format(
      "This machine was busy: when it began, {:.1f} other processes wanted its {} processors. The "
      "intervals are wide, and what runs on all processors is much slower than on an idle machine.",
      load, report.machine.n_processors);
}

ReportSection model_section(const ModelSpeed& model, const SpeedReport& report) {
  ReportSection section;
  section.title = model.name;
  section.paragraphs.push_back(fmt::format(
      "{}, {} parameters, file {}, {} in memory ({}). All runs of a test gave the same logits, bit for bit, whatever "
      "the round, the threads and the instructions.",
      model.info.architecture, human_count(uint64_t(model.info.n_parameters)), human_bytes(model.info.file_bytes),
      human_bytes(model.info.memory_bytes), model.info.weight_types));
  if (const std::string busy = busy_text(report); !busy.empty()) section.paragraphs.push_back(busy);
  for (const bool prompt : {false, true}) section.figures.push_back(figure_of(speed_chart(model, prompt)));
  for (const bool prompt : {false, true}) {
    if (const RowChart chart = isa_chart(model, prompt); !chart.rows.empty())
      section.figures.push_back(figure_of(chart));
  }
  for (const bool prompt : {false, true}) {
    const RowChart chart = phase_chart(model, report, prompt);
    if (!chart.rows.empty()) section.figures.push_back(figure_of(chart));
  }
  section.figures.push_back(rounds_figure(model));
  const bool energy = std::any_of(model.measurements.begin(), model.measurements.end(),
                                  [](const Measurement& m) { return !m.joules.empty(); });
  section.table = measurement_table(model, energy);
  return section;
}

ReportSection how_to_read(const SpeedReport& report) {
  ReportSection section;
  section.title = "How to read this";
  section.paragraphs = {
      fmt::format("Everything ran {} times, in turn, after a round that warmed up. A dot is the median, the broad band "
                  "its 95% confidence interval (bootstrap), the thin line goes from the 5th to the 95th percentile. "
                  "Tests: pp512 reads a prompt of 512 tokens, tg64 writes 64 tokens, @ d448 with 448 tokens before "
                  "them.",
                  report.ceilings.empty() ? 0 : report.ceilings.front().read_gb_per_s.size()),
      "An orange stroke is the ceiling, measured in the same rounds: writing cannot be faster than reading the "
      "weights from memory, reading a prompt not faster than the processor's 8-bit multiplications. More than 100% of "
      "the ceiling means that the weights stayed in the processor's cache. Ceilings more than three times away are "
      "left out of the plots."};
  return section;
}

ReportSection ceiling_section(const SpeedReport& report) {
  ReportSection section;
  section.title = "What the machine can do";
  RowChart read, int8;
  read.title = "Reading memory";
  read.note = "GB/s";
  int8.title = "8-bit multiplications and additions";
  int8.note = "billions a second";
  section.table.rows = {{"threads", "p5", "GB/s read", "p95", "p5", "int8 GOP/s", "p95"}};
  for (const Ceiling& ceiling : report.ceilings) {
    read.rows.push_back(row_of(threads_text(ceiling.n_threads), ceiling.read_gb_per_s));
    int8.rows.push_back(row_of(threads_text(ceiling.n_threads), ceiling.int8_gops_per_s));
    const Summary r = summarize(ceiling.read_gb_per_s), i = summarize(ceiling.int8_gops_per_s);
    section.table.rows.push_back({fmt::format("{}", ceiling.n_threads), human_rate(r.p5), human_rate(r.p50),
                                  human_rate(r.p95), human_rate(i.p5), human_rate(i.p50), human_rate(i.p95)});
  }
  section.figures = {figure_of(read), figure_of(int8)};
  return section;
}

std::string verdict_text(const PairedComparison& r) {
  switch (r.verdict) {
    case Verdict::kFaster: return fmt::format("faster by {:.1f}%", 100 * (r.ratio - 1));
    case Verdict::kSlower: return fmt::format("slower by {:.1f}% ({})", 100 * (1 - r.ratio), severity_name(r.ratio));
    case Verdict::kNoDifference: return fmt::format("no difference detectable at {:.1f}%", 100 * r.detectable);
    case Verdict::kTooFewPairs: return "too few pairs";
  }
  return {};
}

std::string overall_verdict(const SpeedReport& report) {
  const auto any = [&](Verdict verdict) {
    return std::any_of(report.pairs.begin(), report.pairs.end(),
                       [&](const PairedRuns& runs) { return runs.result.verdict == verdict; });
  };
  if (any(Verdict::kSlower)) return any(Verdict::kFaster) ? "slower in some, faster in others" : "slower";
  return any(Verdict::kFaster) ? "faster" : "no difference";
}

ReportSection against_section(const SpeedReport& report) {
  ReportSection section;
  section.title = fmt::format("Against {}: {}", report.against, overall_verdict(report));
  section.paragraphs = {
      fmt::format("Both binaries ran in turn, {} pairs, each first in every other pair. The ratio is this binary's "
                  "speed by the other's: Hodges-Lehmann estimate and the exact interval of Wilcoxon's signed-rank "
                  "test of the logarithms, wide enough that all verdicts together are wrong for equal binaries in at "
                  "most {:.0f}% of sessions. Above 1 this one is faster.",
                  report.pairs.front().result.n_pairs, 100 * kFamilyError)};
  RowChart chart;
  chart.title = "Speed by the other's";
  chart.note = "1: the same";
  chart.reference = 1;
  section.table.n_words = 3;
  section.table.rows = {
      {"model", "test", "verdict", "threads", "ratio", "interval", "p (signed rank)", "p (sign)", "same logits"}};
  for (const PairedRuns& runs : report.pairs) {
    const PairedComparison& r = runs.result;
    ChartRow row;
    row.label = runs.test + ", " + runs.model;
    row.value = r.ratio;
    row.text = signed_percent(r.ratio);
    row.sure = r.ratio_interval;
    row.color = r.verdict == Verdict::kSlower   ? "var(--bad)"
                : r.verdict == Verdict::kFaster ? "var(--line-3)"
                                                : "var(--line-1)";
    chart.rows.push_back(row);
    section.table.rows.push_back(
        {runs.model, runs.test, verdict_text(r), fmt::format("{}", runs.n_threads), fmt::format("{:.3f}", r.ratio),
         fmt::format("{:.3f} to {:.3f}", r.ratio_interval.low, r.ratio_interval.high),
         fmt::format("{:.2g}", r.signed_rank_p), fmt::format("{:.2g}", r.sign_p), runs.same_logits ? "yes" : "no"});
  }
  section.figures = {figure_of(chart)};
  return section;
}

ReportSection baseline_section(const SpeedReport& report) {
  ReportSection section;
  section.title = "Beside the saved " + report.baseline;
  section.paragraphs = {fmt::format(
      "Commit {} on {}. A hint, not a verdict: between two sessions a shared machine changes by more than most changes "
      "of a program do. Where it does, the ratio of the shares of the ceilings says more; --against decides.{}",
      report.baseline_commit, report.baseline_machine,
      report.baseline_machine == report.machine.cpu ? "" : " It was another machine.")};
  RowChart chart;
  chart.title = "Now by then";
  chart.note = "1: the same; 95% intervals";
  chart.reference = 1;
  section.table.n_words = 3;
  section.table.rows = {{"model", "test", "kernels", "threads", "then", "now", "ratio", "95%", "ratio of shares"}};
  for (const BaselineChange& change : report.changes) {
    ChartRow row;
    row.label = fmt::format("{}, {}, {}", change.test, threads_text(change.n_threads), change.kernels);
    row.value = change.now / change.before;
    row.text = signed_percent(row.value);
    row.sure = change.ratio;
    chart.rows.push_back(row);
    section.table.rows.push_back({change.model, change.test, change.kernels, fmt::format("{}", change.n_threads),
                                  human_rate(change.before), human_rate(change.now), fmt::format("{:.3f}", row.value),
                                  fmt::format("{:.3f} to {:.3f}", change.ratio.low, change.ratio.high),
                                  change.share_ratio > 0 ? fmt::format("{:.3f}", change.share_ratio) : "unknown"});
  }
  section.figures = {figure_of(chart)};
  return section;
}

std::string caches_text(const MachineFacts& machine) {
  std::string text;
  for (const MachineFacts::Cache& cache : machine.caches) {
    const char* const type = cache.type == "Data" ? "data " : cache.type == "Instruction" ? "code " : "";
    text += fmt::format("{}L{} {}{} KiB", text.empty() ? "" : ", ", cache.level, type, cache.size_bytes >> 10);
    if (!cache.shared_by.empty()) text += " (processors " + cache.shared_by + ")";
  }
  return text;
}

ReportSection machine_section(const SpeedReport& report, const std::string& command) {
  const MachineFacts& m = report.machine;
  ReportSection section;
  section.title = "The machine and the build";
  section.table.n_words = 2;
  const auto add = [&](const char* name, const std::string& value) {
    section.table.rows.push_back({name, value.empty() ? "not told by this machine" : value});
  };
  section.table.rows = {{"", ""}};
  add("processor", m.cpu);
  add("processors", fmt::format("{} of {} cores, {} usable here{}", m.n_processors, m.n_cores, report.n_threads,
                                m.virtual_machine ? ", in a virtual machine" : ""));
  add("caches", caches_text(m));
  add("memory", m.memory_bytes > 0 ? human_bytes(m.memory_bytes) : "");
  add("instruction sets", fmt::format("{}", fmt::join(report.isas, ", ")));
  add("frequency governor", m.governor);
  add("energy", report.energy);
  add("system", m.kernel);
  add("load at the start", m.load);
  add("compiler", report.compiler);
  add("flags", report.flags);
  add("commit", report.commit);
  add("date", report.date);
  section.code = command;
  return section;
}

// The best median of a kind, with the instruction set that is chosen by itself.
const Measurement* best(const ModelSpeed& model, bool prompt) {
  const Measurement* found = nullptr;
  for (const Measurement& m : model.measurements) {
    if (m.prompt != prompt || m.kernels != model.info.kernels) continue;
    if (found == nullptr || median(m.speeds) > median(found->speeds)) found = &m;
  }
  return found;
}

void add_tiles(const SpeedReport& report, ReportDocument& document) {
  for (const ModelSpeed& model : report.models) {
    for (const bool prompt : {false, true}) {
      const Measurement* const m = best(model, prompt);
      if (m == nullptr) continue;
      document.tiles.push_back(
          {human_rate(median(m->speeds)) + " tokens/s",
           std::string(prompt ? "Reading" : "Writing") + (report.models.size() > 1 ? ", " + model.name : ""),
           m->test + ", " + threads_text(m->n_threads)});
    }
  }
  if (!report.ceilings.empty()) {
    const Ceiling& most = report.ceilings.back();
    document.tiles.push_back(
        {human_rate(median(most.read_gb_per_s)) + " GB/s", "Memory reads", threads_text(most.n_threads)});
  }
  if (!report.pairs.empty()) document.tiles.push_back({overall_verdict(report), "Against " + report.against, ""});
}

}  // namespace

ReportDocument to_document(const SpeedReport& report, const std::string& command) {
  ReportDocument document;
  document.title = "Speed of bitnet";
  for (size_t i = 0; i < report.models.size(); ++i) {
    document.title += (i == 0 ? ": " : ", ") + report.models[i].name;
  }
  document.subtitle = report.date + ", " + report.machine.cpu;
  add_tiles(report, document);
  if (!report.pairs.empty()) document.sections.push_back(against_section(report));
  if (!report.changes.empty()) document.sections.push_back(baseline_section(report));
  for (const ModelSpeed& model : report.models) document.sections.push_back(model_section(model, report));
  if (!report.ceilings.empty()) {
    document.sections.push_back(how_to_read(report));
    document.sections.push_back(ceiling_section(report));
  }
  document.sections.push_back(machine_section(report, command));
  return document;
}

std::string for_people(const SpeedReport& report) {
  std::string text;
  for (const ModelSpeed& model : report.models) {
    std::vector<std::vector<std::string>> rows = measurement_table(model, false).rows;
    rows[0][0] = model.name;
    text += table(rows) + "\n";
  }
  for (const BaselineChange& change : report.changes) {
    text += fmt::format("{}, {}, {}, {}: {} of the saved report's speed ({:.3f} to {:.3f})\n", change.model,
                        change.test, threads_text(change.n_threads), change.kernels,
                        percent(change.now / change.before), change.ratio.low, change.ratio.high);
  }
  for (const PairedRuns& runs : report.pairs) {
    text += fmt::format("against {}: {}, {}: {}; ratio {:.3f} ({:.3f} to {:.3f})\n", report.against, runs.model,
                        runs.test, verdict_text(runs.result), runs.result.ratio, runs.result.ratio_interval.low,
                        runs.result.ratio_interval.high);
  }
  return text;
}

}  // namespace bitnet::cli
