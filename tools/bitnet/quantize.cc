// bitnet quantize: any checkpoint to a GGUF file with its weights in the schemes that are named, and what that costs.
#include "model/quantize_model.h"

#include "base/file.h"
#include "interrupt.h"
#include "model/find_model.h"
#include "options.h"
#include "output.h"
#include "progress.h"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <memory>

namespace bitnet::cli {
namespace {

struct QuantizeFlags {
  std::string source, output;
  std::string scheme = "absmean", embed_scheme = "keep", plan, report, i2s_layout = "x86", pre;
};

constexpr size_t kShownWeights = 12;

Result<QuantizeOptions> quantize_options(const QuantizeFlags& flags) {
  QuantizeOptions options;
  BN_ASSIGN_OR_RETURN(options.linears, parse_scheme(flags.scheme));
  BN_ASSIGN_OR_RETURN(options.tables, parse_scheme(flags.embed_scheme));
  if (!flags.plan.empty()) {
    BN_ASSIGN_OR_RETURN(const std::string text, read_file(flags.plan, uint64_t{64} << 20));
    BN_ASSIGN_OR_RETURN(options.plan, parse_quant_plan(text, flags.plan));
  }
  options.i2s_arm64 = flags.i2s_layout == "arm64";
  options.pre_tokenizer = flags.pre;
  return options;
}

double bits_a_weight(const WeightReport& weight) {
  const auto count = element_count(weight.shape);
  return count && *count > 0 ? 8.0 * double(weight.bytes) / double(*count) : 0.0;
}

OrderedJson weight_json(const WeightReport& weight) {
  OrderedJson json = {{"name", weight.name},   {"scheme", weight.scheme}, {"type", weight.type},
                      {"shape", weight.shape}, {"bytes", weight.bytes},   {"bits_a_weight", bits_a_weight(weight)}};
  if (weight.error.n == 0) return json;
  json["mse"] = weight.error.mse;
  json["rmse"] = weight.error.rmse;
  json["max_error"] = weight.error.max_error;
  json["sqnr_db"] = weight.error.sqnr_db;
  json["cosine"] = weight.error.cosine;
  json["zeros"] = weight.zeros;
  return json;
}

OrderedJson report_json(const QuantizeFlags& flags, const QuantizeReport& report) {
  OrderedJson weights = OrderedJson::array();
  for (const WeightReport& weight : report.weights) weights.push_back(weight_json(weight));
  return {{"source", flags.source},
          {"output", flags.output},
          {"source_bytes", report.file.source_bytes},
          {"output_bytes", report.file.output_bytes},
          {"notices", report.file.notices},
          {"weights", std::move(weights)}};
}

// The weights that lost most.
std::string worst_weights(const QuantizeReport& report) {
  std::vector<const WeightReport*> order;
  for (const WeightReport& weight : report.weights) {
    if (weight.error.n > 0) order.push_back(&weight);
  }
  if (order.empty()) return "every weight kept its values\n";
  std::stable_sort(order.begin(), order.end(), [](auto* a, auto* b) { return a->error.sqnr_db < b->error.sqnr_db; });
  std::vector<std::vector<std::string>> rows = {{"weight", "scheme", "type", "bits", "SQNR dB", "cosine", "zeros"}};
  for (size_t i = 0; i < std::min(order.size(), kShownWeights); ++i) {
    const WeightReport& w = *order[i];
    rows.push_back({w.name, w.scheme, w.type, fmt::format("{:.3f}", bits_a_weight(w)),
                    fmt::format("{:.2f}", w.error.sqnr_db), fmt::format("{:.5f}", w.error.cosine),
                    fmt::format("{:.1f}%", 100 * w.zeros)});
  }
  std::string text = table(rows);
  if (order.size() > kShownWeights)
    text += fmt::format("... and {} more that lost less\n", order.size() - kShownWeights);
  return text;
}

Result<int> run(const Invocation& invocation, const QuantizeFlags& flags) {
  BN_ASSIGN_OR_RETURN(const std::string source, find_model(flags.source));
  BN_ASSIGN_OR_RETURN(QuantizeOptions options, quantize_options(flags));
  const Result<QuantizeReport> report = [&] {
    const InterruptScope scope;
    Progress progress("Quantising " + flags.source);
    options.on_progress = [&](double done) {
      progress.update(done);
      return !interrupted();
    };
    return quantize_model(source, flags.output, options);
  }();
  if (!report) return report.error();
  const OrderedJson document = report_json(flags, *report);
  if (!flags.report.empty()) BN_RETURN_IF_ERROR(write_file_atomically(flags.report, document.dump(1) + "\n"));
  if (invocation.json) {
    print_json(document);
    return 0;
  }
  for (const std::string& notice : report->file.notices) print_note(invocation, notice);
  print(worst_weights(*report));
  print_report(fmt::format("{}: {} from {}", flags.output, human_bytes(report->file.output_bytes),
                           human_bytes(report->file.source_bytes)));
  return 0;
}

}  // namespace

void add_quantize(CLI::App& app, Invocation& invocation) {
  auto flags = std::make_shared<QuantizeFlags>();
  CLI::App* command = app.add_subcommand("quantize", "Store a model's weights in fewer bits and report the error");
  command->add_option("SOURCE", flags->source, "Hugging Face folder or GGUF file")->required();
  command->add_option("-o,--output", flags->output, "GGUF file; replaced when complete")->required();
  command
      ->add_option(
          "--scheme", flags->scheme,
          "For linear layers: absmean, absmedian, lsq, twn, learned (ternary; :per=row, :group=64, :store=TYPE), "
          "q1_0, q2_k, q3_k, q4_0, q4_1, q4_k, q5_0, q5_1, q5_k, q6_k, q8_0, f16, bf16, f32, int1 to int8, or keep")
      ->capture_default_str();
  command->add_option("--embed-scheme", flags->embed_scheme, "The same for embedding and head")->capture_default_str();
  command->add_option("--plan", flags->plan, "A plan of 'bitnet plan': a scheme for each weight it names");
  command->add_option("--report", flags->report, "Write every weight's error to this JSON file");
  add_i2s_layout_flag(*command, flags->i2s_layout);
  command->add_option("--pre", flags->pre, "Pre-tokenizer to write instead of the one that the vocabulary names");
  define(*command, invocation, "bitnet quantize my-model/ -o my-model.gguf --scheme lsq:group=64 --embed-scheme q6_k",
         [flags](const Invocation& self) { return run(self, *flags); });
}

}  // namespace bitnet::cli
