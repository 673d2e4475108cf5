#include "model/quantize_model.h"

#include "format/json.h"
#include "model/export.h"

#include <filesystem>
#include <system_error>
#include <utility>

namespace bitnet {
namespace {

Status check_names(const QuantPlan& plan, const Checkpoint& checkpoint) {
  for (const auto& [name, scheme] : plan) {
    bool known = false;
    for (const WeightSpec& spec : checkpoint.weights()) {
      known |= spec.gguf_name == name && spec.kind != WeightKind::kVector;
    }
    if (!known) {
      return invalid_argument("{} has no weight \"{}\" that could be quantised, which the plan names",
                              checkpoint.path(), name);
    }
  }
  return ok();
}

// What most of the linears' bytes are, for general.file_type.
DType commonest_type(const ExportPlan& plan) {
  std::map<DType, int64_t> counts;
  for (const ExportWeight& weight : plan.weights) {
    if (weight.spec->kind == WeightKind::kLinear) counts[weight.dtype] += weight.spec->n_values();
  }
  DType best = DType::kF32;
  int64_t most = 0;
  for (const auto& [type, count] : counts) {
    if (count > most) {
      most = count;
      best = type;
    }
  }
  return best;
}

}  // namespace

Result<QuantizeReport> quantize_model(const std::string& source, const std::string& output,
                                      const QuantizeOptions& options) {
  BN_RETURN_IF_ERROR(check_output(source, output, false));
  CheckpointOptions reading;
  reading.i2s_arm64 = options.i2s_arm64;
  reading.pre_tokenizer = options.pre_tokenizer;
  reading.widen = false;
  reading.keep_latent = true;
  BN_ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::open(source, reading));
  BN_RETURN_IF_ERROR(check_names(options.plan, checkpoint));
  const SchemeOf scheme_of = [&options](const WeightSpec& spec) {
    const auto planned = options.plan.find(spec.gguf_name);
    if (planned != options.plan.end()) return planned->second;
    return spec.kind == WeightKind::kTable ? options.tables : options.linears;
  };
  ConvertOptions converting;
  converting.on_progress = options.on_progress;
  Progress progress(options.on_progress, count_export_steps(checkpoint.weights()));
  BN_ASSIGN_OR_RETURN(ExportPlan plan, plan_export(checkpoint, converting, progress, scheme_of));
  QuantizeReport report;
  plan.reports = &report.weights;
  converting.linear_type = commonest_type(plan);
  BN_RETURN_IF_ERROR(export_gguf(checkpoint, plan, converting, output, progress));
  std::error_code error;
  report.file.source_bytes = checkpoint.file_bytes();
  report.file.output_bytes = std::filesystem::file_size(output, error);
  report.file.n_tensors = int64_t(plan.weights.size());
  report.file.notices = checkpoint.notices();
  report.file.notices.insert(report.file.notices.end(), plan.notices.begin(), plan.notices.end());
  return report;
}

Result<QuantPlan> parse_quant_plan(std::string_view json, const std::string& name) {
  BN_ASSIGN_OR_RETURN(const Json document, parse_json(json, name));
  if (!document.is_object() || !document.contains("weights") || !document["weights"].is_object()) {
    return invalid_input("{}: expected an object with \"weights\", an object of schemes by weight", name);
  }
  QuantPlan plan;
  for (const auto& [weight, text] : document["weights"].items()) {
    if (!text.is_string()) return invalid_input("{}: the scheme of {} is no string", name, weight);
    auto scheme = parse_scheme(text.get<std::string>());
    if (!scheme) {
      scheme.error().add_context(fmt::format("of {} in {}", weight, name));
      return std::move(scheme.error());
    }
    plan.emplace(weight, *std::move(scheme));
  }
  return plan;
}

}  // namespace bitnet
