#include "base/half.h"
#include "format/packed_ternary.h"
#include "kernels/cpu/dispatch.h"
#include "model/checkpoint_state.h"
#include "model/row_order.h"
#include "quant/blocks.h"
#include "quant/scheme.h"
#include "quant/ternary.h"

#include <cmath>
#include <cstring>
#include <utility>

namespace bitnet {
namespace {

using State = Checkpoint::State;
using Codes = std::shared_ptr<std::vector<uint8_t>>;

TernaryLayout layout_of(const State& state, const StoredTensor& tensor) {
  const DType type = tensor.dtype;
  if (state.is_tiled(tensor)) return TernaryLayout::kMsGpu;
  if (type == DType::kU8) return TernaryLayout::kHfPacked;
  if (type == DType::kI2_S && state.options.i2s_arm64) return TernaryLayout::kI2SArm64;
  return layout_of_dtype(type).value_or(TernaryLayout::kI2S);
}

Error with_label(Error error, const State& state, const LocatedTensor& tensor) {
  error.message = fmt::format("{}: {}", state.label(tensor), error.message);
  return error;
}

TernarySource source_of_codes(const WeightSpec& spec, Codes codes, float alpha) {
  TernarySource source;
  source.n_rows = spec.shape[0];
  source.n_cols = spec.shape[1];
  source.scales.tensor = alpha;
  source.read_codes = [codes = std::move(codes), n_cols = spec.shape[1]](int64_t row_begin, int64_t n_rows,
                                                                         uint8_t* out) -> Status {
    std::memcpy(out, codes->data() + row_begin * n_cols, size_t(n_rows * n_cols));
    return ok();
  };
  return source;
}

// What stands beside a weight: GGUF's ".scale" multiplies; Hugging Face's weight_scale multiplies or divides.
Result<float> read_multiplier(const State& state, const WeightSpec& spec) {
  const LocatedTensor tensor = state.find_scale(spec);
  if (!tensor) return 1.0f;
  BN_ASSIGN_OR_RETURN(const float scale, state.read_scalar(tensor));
  const float multiplier = !state.is_gguf() && state.hf.divide_scale ? 1.0f / scale : scale;
  if (std::isnormal(multiplier)) return multiplier;
  return invalid_input("{} is {}, whose reciprocal is no float", state.label(tensor), scale);
}

Status multiply(TernaryScales& scales, float multiplier) {
  scales.tensor *= multiplier;
  bool usable = std::isnormal(scales.tensor);
  for (float& scale : scales.groups) usable &= std::isnormal(scale *= multiplier);
  if (usable) return ok();
  return invalid_input("its scale times {} is no float", multiplier);
}

// The scales that a GGUF tensor's own bytes carry; where its blocks agree on the rounding of the scale that the file
// states in full, that one.
Result<TernaryScales> gguf_scales(const State& state, const LocatedTensor& tensor, const TernaryView& view) {
  auto scales = ternary_scales(view);
  if (!scales) return with_label(std::move(scales.error()), state, tensor);
  const ScaleKind kind = ternary_layout_info(view.layout).scales;
  if (state.exact_scales.empty() || (kind != ScaleKind::kGroupF16 && kind != ScaleKind::kRowF16)) return scales;
  const float exact = state.exact_scales[size_t(tensor.tensor - state.gguf->tensors().data())];
  const bool agrees = scales->groups.empty() && f32_to_f16(exact) == f32_to_f16(scales->tensor);
  if (exact != 0.0f && agrees) scales->tensor = exact;
  return scales;
}

Result<TernarySource> packed_source(const std::shared_ptr<const State>& state, const WeightSpec& spec,
                                    const LocatedTensor& tensor, TensorBytes bytes) {
  TernaryView view;
  view.layout = layout_of(*state, *tensor.tensor);
  view.n_rows = spec.shape[0];
  view.n_cols = spec.shape[1];
  view.bytes = bytes.span();
  TernarySource source;
  source.n_rows = view.n_rows;
  source.n_cols = view.n_cols;
  if (ternary_layout_info(view.layout).scales != ScaleKind::kApart) {
    BN_ASSIGN_OR_RETURN(source.scales, gguf_scales(*state, tensor, view));
  }
  BN_ASSIGN_OR_RETURN(const float multiplier, read_multiplier(*state, spec));
  if (auto scaled = multiply(source.scales, multiplier); !scaled) {
    return with_label(std::move(scaled.error()), *state, tensor);
  }
  source.read_codes = [state, tensor, view, bytes = std::move(bytes)](int64_t row_begin, int64_t n_rows,
                                                                      uint8_t* out) -> Status {
    auto status = decode_ternary(view, row_begin, n_rows, out, cpu_ternary_codecs());
    if (!status) return with_label(std::move(status.error()), *state, tensor);
    return ok();
  };
  return source;
}

// The whole weight as float32.
Result<std::vector<float>> widen(const State& state, const WeightSpec& spec, const LocatedTensor& tensor,
                                 const TensorBytes& bytes) {
  std::vector<float> values(size_t(spec.n_values()));
  BN_RETURN_IF_ERROR(dequantize_rows(tensor.tensor->dtype, bytes.span(), spec.shape[0], spec.shape[1], values.data()));
  return values;
}

// Float values that are -a, 0 or +a are a ternary weight that someone stored as floats. The first row tells most
// others apart without widening the whole weight.
Result<std::optional<TernarySource>> exact_source(const State& state, const WeightSpec& spec,
                                                  const LocatedTensor& tensor, const TensorBytes& bytes) {
  const int64_t n_cols = spec.shape[1];
  std::vector<float> first_row(static_cast<size_t>(n_cols));
  auto codes = std::make_shared<std::vector<uint8_t>>(size_t(n_cols));
  float alpha = 1.0f;
  const size_t row_bytes = bytes.size_bytes / size_t(spec.shape[0]);
  BN_RETURN_IF_ERROR(dequantize_rows(tensor.tensor->dtype, bytes.span().first(row_bytes), 1, n_cols, first_row.data()));
  if (!exact_ternary(first_row, codes->data(), &alpha)) return std::optional<TernarySource>();
  BN_ASSIGN_OR_RETURN(const std::vector<float> values, widen(state, spec, tensor, bytes));
  codes->resize(values.size());
  if (!exact_ternary(values, codes->data(), &alpha)) return std::optional<TernarySource>();
  BN_ASSIGN_OR_RETURN(const float multiplier, read_multiplier(state, spec));
  TernarySource source = source_of_codes(spec, std::move(codes), alpha);
  if (auto scaled = multiply(source.scales, multiplier); !scaled) {
    return with_label(std::move(scaled.error()), state, tensor);
  }
  return std::optional<TernarySource>(std::move(source));
}

// Float weights can be the real thing only where the file says so: in a Llama model, in a module that a folder lists
// as not converted, or as the block type that quantisers fall back to for odd widths.
Status check_may_be_float(const State& state, const WeightSpec& spec, const LocatedTensor& tensor) {
  if (state.is_gguf() && state.gguf->metadata().contains(kSchemesKey)) return ok();
  const bool bitnet = state.config.architecture != "llama";
  const DType type = tensor.tensor->dtype;
  const bool listed = !state.is_gguf() && state.hf.quantized && !state.is_converted(spec);
  const bool promised_packed = !state.is_gguf() && state.hf.quantized && !listed;
  if (listed || (!promised_packed && (!bitnet || !is_float_type(type)))) return ok();
  Error error = unsupported("{} is {} with values that are not ternary, where {} expects a ternary weight",
                            state.label(tensor), dtype_info(type).name, state.config.architecture);
  error.suggestion = state.is_gguf() ? "convert the original checkpoint: `bitnet convert` ternarises latent weights"
                                     : "if these are latent weights, config.json must say \"quantization_config\": "
                                       "{\"quant_method\": \"bitnet\", \"linear_class\": \"autobitlinear\", "
                                       "\"quantization_mode\": \"online\"}";
  return error;
}

Result<FloatSource> stored_floats(const std::shared_ptr<const State>& state, const WeightSpec& spec,
                                  const LocatedTensor& tensor, TensorBytes bytes) {
  BN_ASSIGN_OR_RETURN(const float multiplier, read_multiplier(*state, spec));
  if (multiplier != 1.0f) {
    return unsupported("{} is float and has a scale of {} beside it; only ternary weights can have one",
                       state->label(tensor), multiplier);
  }
  FloatSource source;
  source.dtype = tensor.tensor->dtype;
  source.n_rows = spec.shape[0];
  source.n_cols = spec.shape[1];
  const size_t row_bytes = bytes.size_bytes / size_t(spec.shape[0]);
  source.read_rows = [bytes = std::move(bytes), row_bytes](int64_t row_begin, int64_t n_rows,
                                                           std::byte* out) -> Status {
    std::memcpy(out, bytes.data.get() + size_t(row_begin) * row_bytes, size_t(n_rows) * row_bytes);
    return ok();
  };
  return state->options.widen ? widened(std::move(source)) : std::move(source);
}

Result<FloatSource> float_source(const std::shared_ptr<const State>& state, const WeightSpec& spec,
                                 const LocatedTensor& tensor, TensorBytes bytes) {
  BN_RETURN_IF_ERROR(check_may_be_float(*state, spec, tensor));
  return stored_floats(state, spec, tensor, std::move(bytes));
}

// Whether a Q2_0 tensor has the level that is no ternary value, +2d.
bool has_level_two(std::span<const std::byte> bytes) {
  constexpr size_t kBlock = 18;
  for (size_t block = 0; block + kBlock <= bytes.size(); block += kBlock) {
    for (size_t i = block + 2; i < block + kBlock; ++i) {
      if ((bytes[i] & bytes[i] >> 1 & std::byte{0x55}) != std::byte{0}) return true;
    }
  }
  return false;
}

// A packed matrix, unpacked once: its streams are read from their beginning only.
Result<LinearSource> unpacked_source(const State& state, const WeightSpec& spec, const LocatedTensor& tensor,
                                     const TensorBytes& bytes) {
  auto unpacked = read_packed_ternary(bytes.span(), spec.shape[0], spec.shape[1], cpu_ternary_codecs());
  if (!unpacked) return with_label(std::move(unpacked.error()), state, tensor);
  BN_ASSIGN_OR_RETURN(const float multiplier, read_multiplier(state, spec));
  TernarySource source =
      source_of_codes(spec, std::make_shared<std::vector<uint8_t>>(std::move(unpacked->codes)), 1.0f);
  source.scales = std::move(unpacked->scales);
  if (auto scaled = multiply(source.scales, multiplier); !scaled) {
    return with_label(std::move(scaled.error()), state, tensor);
  }
  LinearSource out;
  out.weight = std::move(source);
  out.n_repaired = unpacked->n_repaired;
  return out;
}

Result<TernarySource> latent_source(const State& state, const WeightSpec& spec, const LocatedTensor& tensor,
                                    const TensorBytes& bytes) {
  BN_ASSIGN_OR_RETURN(const std::vector<float> values, widen(state, spec, tensor, bytes));
  auto codes = std::make_shared<std::vector<uint8_t>>(values.size());
  const float alpha = absmean_ternarize(values, codes->data(), cpu_ternary_codecs());
  if (!std::isnormal(alpha)) {
    return invalid_input("{}: the mean of its absolute values is {}", state.label(tensor), alpha);
  }
  return source_of_codes(spec, std::move(codes), alpha);
}

Result<LinearSource> linear_in_file_order(const std::shared_ptr<const State>& shared, const WeightSpec& spec) {
  const State& state = *shared;
  const LocatedTensor tensor = state.find_weight(spec);
  BN_ASSIGN_OR_RETURN(TensorBytes bytes, state.read_all(tensor));
  LinearSource out;
  const bool converted = state.is_converted(spec);
  out.quantize_input = state.config.ternary && converted;
  const DType type = tensor.tensor->dtype;
  if (state.is_packed(*tensor.tensor)) {
    BN_ASSIGN_OR_RETURN(LinearSource unpacked, unpacked_source(state, spec, tensor, bytes));
    unpacked.quantize_input = out.quantize_input;
    return unpacked;
  }
  if (is_ternary(type) || type == DType::kU8 || state.is_tiled(*tensor.tensor) ||
      (type == DType::kQ2_0 && !has_level_two(bytes.span()))) {
    BN_ASSIGN_OR_RETURN(out.weight, packed_source(shared, spec, tensor, std::move(bytes)));
    return out;
  }
  if (const auto bad = find_nonfinite(type, bytes.span())) {
    return invalid_input("{}: row {} holds a value at or after column {} that is not finite", state.label(tensor),
                         *bad / spec.shape[1], *bad % spec.shape[1]);
  }
  const bool online = !state.is_gguf() && state.hf.online && converted;
  if (online && !state.options.keep_latent) {
    BN_ASSIGN_OR_RETURN(out.weight, latent_source(state, spec, tensor, bytes));
    return out;
  }
  BN_ASSIGN_OR_RETURN(auto exact, exact_source(state, spec, tensor, bytes));
  // Floats of Microsoft's scripts are ternary (model_state_fp16.pt) or latent (model_state.pt), as their values tell.
  const bool latent = !exact && (online || state.microsoft);
  out.latent = latent && state.options.keep_latent;
  if (latent && !out.latent) {
    BN_ASSIGN_OR_RETURN(out.weight, latent_source(state, spec, tensor, bytes));
  } else if (latent) {
    BN_ASSIGN_OR_RETURN(out.weight, stored_floats(shared, spec, tensor, std::move(bytes)));
  } else if (exact) {
    out.weight = *std::move(exact);
  } else {
    BN_ASSIGN_OR_RETURN(out.weight, float_source(shared, spec, tensor, std::move(bytes)));
  }
  return out;
}

}  // namespace

Result<LinearSource> Checkpoint::linear(const WeightSpec& spec) const {
  BN_ASSIGN_OR_RETURN(LinearSource source, linear_in_file_order(state_, spec));
  const bool rotates = spec.role == WeightRole::kQ || spec.role == WeightRole::kK;
  return rotates ? reorder_rows(std::move(source), state_->qk_order) : std::move(source);
}

}  // namespace bitnet
