// The JSON of `bitnet bench report`: what --json prints, --save writes and --baseline reads.
#include "bench_report.h"

namespace bitnet::cli {
namespace {

OrderedJson to_json(const Interval& interval) { return {interval.low, interval.high}; }

OrderedJson summary_json(const std::vector<double>& samples) {
  const Summary s = summarize(samples);
  return {{"n", s.n},
          {"mean", s.mean},
          {"stddev", s.deviation},
          {"p5", s.p5},
          {"p50", s.p50},
          {"p95", s.p95},
          {"median_interval", to_json(s.median_interval)},
          {"samples", samples}};
}

OrderedJson machine_json(const SpeedReport& report) {
  const MachineFacts& m = report.machine;
  OrderedJson caches = OrderedJson::array(), ceilings = OrderedJson::array();
  for (const MachineFacts::Cache& cache : m.caches) {
    caches.push_back(
        {{"level", cache.level}, {"type", cache.type}, {"bytes", cache.size_bytes}, {"shared_by", cache.shared_by}});
  }
  for (const Ceiling& ceiling : report.ceilings) {
    ceilings.push_back({{"threads", ceiling.n_threads},
                        {"read_gb_per_s", summary_json(ceiling.read_gb_per_s)},
                        {"int8_gops_per_s", summary_json(ceiling.int8_gops_per_s)}});
  }
  return {{"cpu", m.cpu},
          {"processors", m.n_processors},
          {"cores", m.n_cores},
          {"usable_threads", report.n_threads},
          {"virtual", m.virtual_machine},
          {"caches", caches},
          {"memory_bytes", m.memory_bytes},
          {"isas", report.isas},
          {"kernel", m.kernel},
          {"governor", m.governor},
          {"load", m.load},
          {"energy", report.energy},
          {"ceilings", ceilings}};
}

OrderedJson phases_json(const std::vector<TimedBackend::Phase>& phases) {
  OrderedJson list = OrderedJson::array();
  for (const TimedBackend::Phase& phase : phases) {
    list.push_back(
        {{"name", phase.name}, {"us_per_token", phase.seconds * 1e6}, {"weight_bytes_per_token", phase.weight_bytes}});
  }
  return list;
}

OrderedJson model_json(const ModelSpeed& model) {
  OrderedJson measurements = OrderedJson::array();
  for (const Measurement& m : model.measurements) {
    OrderedJson entry = {{"test", m.test},
                         {"threads", m.n_threads},
                         {"kernels", m.kernels},
                         {"tokens_per_s", summary_json(m.speeds)},
                         {"share_of_ceiling", nullptr},
                         {"joules_per_token", nullptr}};
    if (!m.shares.empty()) entry["share_of_ceiling"] = median(m.shares);
    if (!m.joules.empty()) entry["joules_per_token"] = summary_json(m.joules);
    if (!m.prompt) entry["bytes_per_token"] = m.bytes_per_token;
    measurements.push_back(std::move(entry));
  }
  return {{"name", model.name},
          {"n_parameters", model.info.n_parameters},
          {"weight_types", model.info.weight_types},
          {"file_bytes", model.info.file_bytes},
          {"memory_bytes", model.info.memory_bytes},
          {"kernels", model.info.kernels},
          {"measurements", measurements},
          {"prompt_phases", phases_json(model.prompt_phases)},
          {"generation_phases", phases_json(model.generate_phases)}};
}

}  // namespace

OrderedJson to_json(const SpeedReport& report) {
  OrderedJson models = OrderedJson::array();
  for (const ModelSpeed& model : report.models) models.push_back(model_json(model));
  OrderedJson document = {
      {"format", "bitnet-bench-report"},
      {"version", 1},
      {"date", report.date},
      {"build", {{"commit", report.commit}, {"compiler", report.compiler}, {"flags", report.flags}}},
      {"machine", machine_json(report)},
      {"models", models}};
  for (const BaselineChange& change : report.changes) {
    document["baseline"].push_back({{"model", change.model},
                                    {"test", change.test},
                                    {"threads", change.n_threads},
                                    {"kernels", change.kernels},
                                    {"before", change.before},
                                    {"now", change.now},
                                    {"ratio", change.now / change.before},
                                    {"ratio_interval", to_json(change.ratio)},
                                    {"share_ratio", change.share_ratio}});
  }
  for (const PairedRuns& runs : report.pairs) {
    const PairedComparison& r = runs.result;
    OrderedJson entry = {{"model", runs.model},
                         {"test", runs.test},
                         {"threads", runs.n_threads},
                         {"pairs", r.n_pairs},
                         {"ratio", r.ratio},
                         {"ratio_interval", to_json(r.ratio_interval)},
                         {"verdict", verdict_name(r.verdict)},
                         {"severity", nullptr},
                         {"detectable", r.detectable},
                         {"signed_rank_p", r.signed_rank_p},
                         {"sign_p", r.sign_p},
                         {"same_logits", runs.same_logits},
                         {"own", runs.own},
                         {"other", runs.other}};
    if (r.verdict == Verdict::kSlower) entry["severity"] = severity_name(r.ratio);
    document["against"].push_back(std::move(entry));
  }
  return document;
}

}  // namespace bitnet::cli
