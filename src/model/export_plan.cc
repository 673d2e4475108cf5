#include "base/half.h"
#include "model/checkpoint_state.h"
#include "model/export.h"
#include "quant/ternary.h"

#include <algorithm>
#include <utility>

namespace bitnet {
namespace {

bool is_plain_float(DType type) { return type == DType::kF32 || type == DType::kF16 || type == DType::kBF16; }

class Planner {
 public:
  Planner(const Checkpoint& checkpoint, const ConvertOptions& options, const SchemeOf& scheme_of,
          const LinearOf& linear_of)
      : checkpoint_(checkpoint), options_(options), scheme_of_(scheme_of) {
    plan_.linear_of = linear_of;
    plan_.by_scheme = bool(scheme_of);
    plan_.config = checkpoint.config();
    ModelConfig& config = plan_.config;
    if (config.architecture == "bitnet-25") config.architecture = "bitnet-b1.58";  // the same graph, today's name
    const bool interleaved = !options.to_hf && interleaves_qk(config.architecture);
    if (interleaved) row_order_ = {RowOrder::kInterleave, config.head_dim, config.rope_dim};
  }

  Status add(const WeightSpec& spec) {
    ExportWeight weight;
    weight.spec = &spec;
    switch (spec.kind) {
      case WeightKind::kVector: break;  // norms are float32 in every file we write
      case WeightKind::kTable: BN_RETURN_IF_ERROR(add_table(spec, weight)); break;
      case WeightKind::kLinear: BN_RETURN_IF_ERROR(add_linear(spec, weight)); break;
    }
    BN_RETURN_IF_ERROR(check_shape(weight));
    plan_.weights.push_back(std::move(weight));
    return ok();
  }

  Result<ExportPlan> finish() {
    if (n_repaired_ > 0) {
      plan_.notices.push_back(
          fmt::format("{} damaged parts of packed matrices were restored from their parity", n_repaired_));
    }
    if (plan_.by_scheme) return std::move(plan_);
    if (n_ternary_ == 0 && is_ternary(options_.linear_type) && !options_.to_hf) {
      Error error = unsupported("{}: no linear layer is ternary, so none can be written as {}", checkpoint_.path(),
                                dtype_info(options_.linear_type).name);
      error.suggestion = "use q8_0, f16, bf16 or f32";
      return error;
    }
    const char* type = dtype_info(options_.linear_type).name.data();
    if (n_rounded_ > 0 && is_ternary(options_.linear_type)) {
      plan_.notices.push_back(
          fmt::format("{} keeps scales in 16 bits: for other programs those of {} weights change by up to 1 part in "
                      "2048; the exact ones stand in bitnet.ternary.scales",
                      type, n_rounded_));
    } else if (n_rounded_ > 0) {
      plan_.notices.push_back(
          fmt::format("{} cannot hold the scales of {} ternary weights exactly; they change by up to 1 part in {}",
                      type, n_rounded_, options_.linear_type == DType::kBF16 ? 256 : 2048));
    }
    if (n_float_ > 0 && n_ternary_ > 0) {
      plan_.notices.push_back(fmt::format("{} linear layers are not ternary in the source and stay float", n_float_));
    }
    return std::move(plan_);
  }

 private:
  // Safetensors has no block types; what they hold is exact in float32.
  DType plain_type(DType type) const { return options_.to_hf && !is_plain_float(type) ? DType::kF32 : type; }
  DType table_type(DType stored) const { return options_.embed_type.value_or(plain_type(stored)); }

  Status add_table(const WeightSpec& spec, ExportWeight& weight) {
    weight.dtype = table_type(checkpoint_.stored(spec).dtype);
    if (!scheme_of_) return ok();
    weight.scheme = scheme_of_(spec);
    if (weight.scheme.kind == SchemeKind::kKeep) return ok();
    weight.dtype = weight.scheme.stored;
    if (is_readable_type(weight.dtype)) return ok();
    Error error = unsupported("{}: the table {} cannot be {}", checkpoint_.path(), name_of(weight),
                              dtype_info(weight.dtype).name);
    error.suggestion = "give tables ternary schemes with groups: absmean:group=64 or group=256";
    return error;
  }

  // A weight that is ternary already keeps its codes and scales under every ternary scheme; "keep" keeps its type, and
  // latent weights become what the reference makes of them.
  Status add_by_scheme(const WeightSpec& spec, ExportWeight& weight, LinearSource& source) {
    weight.scheme = scheme_of_(spec);
    const bool keeps = weight.scheme.kind == SchemeKind::kKeep;
    if (keeps && source.latent) {
      weight.scheme.kind = SchemeKind::kTernary;
      weight.scheme.stored = DType::kI2_S;
      weight.scheme.text = "absmean";
    }
    const DType stored = checkpoint_.stored(spec).dtype;
    weight.dtype = weight.scheme.stored;
    if (weight.ternary && (keeps || weight.scheme.kind == SchemeKind::kTernary)) {
      weight.scales = std::move(std::get<TernarySource>(source.weight).scales);
      if (keeps) weight.dtype = is_ternary(stored) ? stored : DType::kI2_S;
      weight.scheme.kind = SchemeKind::kKeep;
      return check_scales(weight);
    }
    if (keeps && !source.latent) weight.dtype = std::get<FloatSource>(source.weight).dtype;
    return ok();
  }

  Status add_linear(const WeightSpec& spec, ExportWeight& weight) {
    BN_ASSIGN_OR_RETURN(LinearSource source, plan_.linear_of ? plan_.linear_of(spec) : checkpoint_.linear(spec));
    n_repaired_ += source.n_repaired;
    if (spec.role == WeightRole::kQ || spec.role == WeightRole::kK) weight.rows = row_order_;
    weight.ternary = source.ternary();
    if (scheme_of_) {
      BN_RETURN_IF_ERROR(add_by_scheme(spec, weight, source));
      return check_input(weight, source.quantize_input);
    }
    if (weight.ternary && options_.packed) {
      ThreadPool pool(available_cpus());
      source = reorder_rows(std::move(source), weight.rows);
      BN_ASSIGN_OR_RETURN(const auto bytes, pack_source(std::get<TernarySource>(source.weight), pool));
      weight.packed_bytes = bytes.size();
      weight.scales = std::get<TernarySource>(source.weight).scales;
      weight.dtype = DType::kI8;
      ++n_ternary_;
      return check_input(weight, source.quantize_input);
    }
    if (weight.ternary) {
      ++n_ternary_;
      weight.scales = std::move(std::get<TernarySource>(source.weight).scales);
      // Packed weights in a folder imply quantised inputs; without those, floats carry the same values.
      weight.dtype = !options_.to_hf ? options_.linear_type : plan_.config.ternary ? DType::kU8 : DType::kF32;
      BN_RETURN_IF_ERROR(check_scales(weight));
    } else {
      ++n_float_;
      const DType stored = std::get<FloatSource>(source.weight).dtype;
      weight.dtype = options_.to_hf || is_ternary(options_.linear_type) ? plain_type(stored) : options_.linear_type;
    }
    return check_input(weight, source.quantize_input);
  }

  // A file says once for all linears whether their inputs are quantised; a folder says it of each packed one.
  Status check_input(const ExportWeight& weight, bool quantize_input) const {
    const bool will_be = options_.to_hf ? weight.dtype == DType::kU8 : plan_.config.ternary;
    if (will_be == quantize_input) return ok();
    return unsupported("{}: {} sees {} activations, unlike the ternary layers; {} cannot say so", checkpoint_.path(),
                       name_of(weight), quantize_input ? "quantised" : "unquantised",
                       options_.to_hf ? "a folder with this layer as floats" : "a GGUF file");
  }

  Status check_scales(const ExportWeight& weight) {
    const TernaryScales& scales = weight.scales;
    if (!scales.groups.empty() && (weight.dtype == DType::kI2_S || weight.dtype == DType::kU8)) {
      Error error = unsupported("{}: {} has a scale for every {} columns; {} keeps one a matrix", checkpoint_.path(),
                                name_of(weight), scales.group_cols, options_.to_hf ? "a packed folder" : "I2_S");
      error.suggestion = "write a GGUF file with --type tq2_0 or tq1_0, which keep a scale for every 256 columns";
      return error;
    }
    const auto is_exact = [&](float scale) {
      switch (weight.dtype) {
        case DType::kTQ1_0:
        case DType::kTQ2_0:
        case DType::kIQ1_BN:
        case DType::kQ2_0:
        case DType::kF16: return f16_to_f32(f32_to_f16(scale)) == scale;
        case DType::kBF16: return bf16_to_f32(f32_to_bf16(scale)) == scale;
        case DType::kQ8_0: return f16_to_f32(f32_to_f16(scale / 127.0f)) * 127.0f == scale;
        default: return true;
      }
    };
    const bool exact = scales.groups.empty() ? is_exact(scales.tensor)
                                             : std::all_of(scales.groups.begin(), scales.groups.end(), is_exact);
    n_rounded_ += !exact;
    return ok();
  }

  Status check_shape(const ExportWeight& weight) const {
    if (weight.dtype == DType::kU8 || weight.packed_bytes > 0) return ok();
    auto bytes = tensor_bytes(weight.dtype, weight.spec->shape);
    if (bytes) return ok();
    Error error = unsupported("{}: {} {} does not fit: {}", checkpoint_.path(), name_of(weight),
                              shape_string(weight.spec->shape), bytes.error().message);
    switch (weight.dtype) {
      case DType::kTQ1_0:
      case DType::kTQ2_0: error.suggestion = "use --type i2_s, whose blocks may straddle rows"; break;
      case DType::kI2_S: error.suggestion = "use --type f32 or f16, or --to hf, which takes any shape"; break;
      default: error.suggestion = "use f16, bf16 or f32"; break;
    }
    return error;
  }

  const std::string& name_of(const ExportWeight& weight) const {
    return options_.to_hf ? weight.spec->hf_name : weight.spec->gguf_name;
  }

  const Checkpoint& checkpoint_;
  const ConvertOptions& options_;
  ExportPlan plan_;
  const SchemeOf& scheme_of_;
  RowOrder row_order_;
  int64_t n_repaired_ = 0;
  int64_t n_ternary_ = 0, n_float_ = 0, n_rounded_ = 0;
};

}  // namespace

Status Progress::advance(int64_t n) {
  n_done_ += n;
  if (!on_progress_ || on_progress_(double(n_done_) / double(std::max<int64_t>(n_total_, 1)))) return ok();
  return make_error(ErrorCode::kInterrupted, "stopped on request; nothing was written");
}

int64_t count_export_steps(const std::vector<WeightSpec>& weights) {
  int64_t n = 0;
  for (const WeightSpec& spec : weights) n += spec.n_values() * (spec.kind == WeightKind::kLinear ? 2 : 1);
  return n;
}

Result<ExportPlan> plan_export(const Checkpoint& checkpoint, const ConvertOptions& options, Progress& progress,
                               const SchemeOf& scheme_of, const LinearOf& linear_of) {
  Planner planner(checkpoint, options, scheme_of, linear_of);
  for (const WeightSpec& spec : checkpoint.weights()) {
    BN_RETURN_IF_ERROR(planner.add(spec));
    if (spec.kind == WeightKind::kLinear) BN_RETURN_IF_ERROR(progress.advance(spec.n_values()));
  }
  return planner.finish();
}

}  // namespace bitnet
