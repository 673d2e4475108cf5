#include "quant/scheme.h"

#include "quant/blocks.h"
#include "quant/hadamard.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstring>

namespace bitnet {
namespace {

constexpr uint64_t kRotationSeed = 0x42;  // the signs of rotate=N

constexpr std::array kBlockTypes = {DType::kQ2_K, DType::kQ3_K, DType::kQ4_0, DType::kQ4_1, DType::kQ4_K,
                                    DType::kQ5_0, DType::kQ5_1, DType::kQ5_K, DType::kQ6_K, DType::kQ8_0,
                                    DType::kF16,  DType::kBF16, DType::kF32};
constexpr std::array kTernaryMethods = {TernaryMethod::kAbsmean, TernaryMethod::kAbsmedian,
                                        TernaryMethod::kLeastSquares, TernaryMethod::kTwn, TernaryMethod::kLearned};
constexpr std::array kTernaryTypes = {DType::kI2_S, DType::kTQ1_0,  DType::kTQ2_0,
                                      DType::kQ2_0, DType::kIQ1_BN, DType::kIQ2_BN};

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Result<QuantScheme> parse() {
    scheme_.text = std::string(text_);
    const size_t colon = text_.find(':');
    name_ = text_.substr(0, colon);
    BN_RETURN_IF_ERROR(read_name());
    std::string_view rest = colon == std::string_view::npos ? std::string_view() : text_.substr(colon + 1);
    if (colon != std::string_view::npos && rest.empty()) return bad("nothing follows the colon");
    while (!rest.empty()) {
      const size_t comma = rest.find(',');
      BN_RETURN_IF_ERROR(read_option(rest.substr(0, comma)));
      rest = comma == std::string_view::npos ? std::string_view() : rest.substr(comma + 1);
    }
    BN_RETURN_IF_ERROR(finish());
    return std::move(scheme_);
  }

 private:
  Error bad(std::string_view why) const { return invalid_argument("the scheme \"{}\": {}", text_, why); }

  Status read_name() {
    if (name_ == "keep") return ok();
    for (const TernaryMethod method : kTernaryMethods) {
      if (name_ != ternary_method_name(method)) continue;
      scheme_.kind = SchemeKind::kTernary;
      scheme_.ternary.method = method;
      return ok();
    }
    if (name_.size() == 4 && name_.substr(0, 3) == "int" && name_[3] >= '1' && name_[3] <= '8') {
      scheme_.kind = SchemeKind::kIntegers;
      scheme_.integers.bits = name_[3] - '0';
      return ok();
    }
    const auto type = parse_dtype(name_);
    if (type == DType::kQ1_0) {
      scheme_.kind = SchemeKind::kBinary;
      scheme_.stored = *type;
      return ok();
    }
    if (type && std::find(kBlockTypes.begin(), kBlockTypes.end(), *type) != kBlockTypes.end()) {
      scheme_.kind = SchemeKind::kBlocks;
      scheme_.stored = *type;
      return ok();
    }
    Error error = bad("no such scheme");
    error.suggestion =
        "use keep, absmean, absmedian, lsq, twn, learned, q1_0, q2_k, q3_k, q4_0, q4_1, q4_k, q5_0, q5_1, q5_k, q6_k, "
        "q8_0, f16, bf16, f32 or int1 to int8";
    return error;
  }

  Result<int64_t> number(std::string_view value, int64_t min, int64_t max) const {
    int64_t n = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), n);
    if (error != std::errc() || end != value.data() + value.size() || n < min || n > max) {
      return bad(fmt::format("\"{}\" is no number from {} to {}", value, min, max));
    }
    return n;
  }

  Status read_option(std::string_view option) {
    const size_t equals = option.find('=');
    const std::string_view key = option.substr(0, equals);
    const std::string_view value = equals == std::string_view::npos ? std::string_view() : option.substr(equals + 1);
    const bool integers = scheme_.kind == SchemeKind::kIntegers;
    if (!integers && scheme_.kind != SchemeKind::kTernary) return bad("it has no options");
    if (key == "per") {
      const std::array<std::string_view, 4> names = {"tensor", "row", "column", "group"};
      const auto* place = std::find(names.begin(), names.end(), value);
      if (place == names.end()) return bad("per is tensor, row, column or group");
      granularity_ = Granularity(place - names.begin());
      return ok();
    }
    if (key == "group") {
      BN_ASSIGN_OR_RETURN(group_, number(value, 1, 1 << 20));
      granularity_ = Granularity::kGroup;
      return ok();
    }
    if (key == "store") {
      const auto type = parse_dtype(value);
      if (!type) return bad(fmt::format("no type is called \"{}\"", value));
      store_ = *type;
      return ok();
    }
    if (integers && key == "asym" && value.empty()) {
      scheme_.integers.symmetric = false;
      return ok();
    }
    if (integers && key == "search" && value.empty()) {
      scheme_.integers.search = true;
      return ok();
    }
    if (integers && key == "stochastic") {
      BN_ASSIGN_OR_RETURN(const int64_t seed, number(value, 0, INT64_MAX));
      scheme_.integers.stochastic_seed = uint64_t(seed);
      return ok();
    }
    if (integers && key == "rotate") {
      BN_ASSIGN_OR_RETURN(scheme_.rotate, number(value, 2, 1 << 16));
      if ((scheme_.rotate & (scheme_.rotate - 1)) != 0) return bad("rotate wants a power of two");
      return ok();
    }
    return bad(fmt::format("\"{}\" is no option of {}", option, name_));
  }

  // The type, and whether it keeps the scales of that granularity.
  Status finish() {
    if (scheme_.kind == SchemeKind::kIntegers) {
      scheme_.integers.granularity = granularity_;
      scheme_.integers.group_cols = group_;
      scheme_.stored = store_.value_or(DType::kF32);
      if (scheme_.stored == DType::kF32 || scheme_.stored == DType::kF16 || scheme_.stored == DType::kBF16) return ok();
      return bad("it is stored as f32, f16 or bf16");
    }
    if (scheme_.kind != SchemeKind::kTernary) return ok();
    if (granularity_ == Granularity::kColumn) return bad("ternary scales are for a tensor, a row or a group");
    DType type = store_.value_or(DType::kI2_S);
    if (!store_ && granularity_ == Granularity::kRow) type = DType::kIQ2_BN;
    if (!store_ && granularity_ == Granularity::kGroup) type = group_ == 64 ? DType::kQ2_0 : DType::kTQ2_0;
    if (std::find(kTernaryTypes.begin(), kTernaryTypes.end(), type) == kTernaryTypes.end()) {
      return bad("it is stored as i2_s, tq1_0, tq2_0, q2_0, iq1_bn or iq2_bn");
    }
    const ScaleKind kept = ternary_layout_info(*layout_of_dtype(type)).scales;
    const int64_t kept_group = ternary_layout_info(*layout_of_dtype(type)).group_cols;
    const bool row_fits = kept != ScaleKind::kTensorF32;
    const bool group_fits = kept == ScaleKind::kGroupF16 && group_ % std::max<int64_t>(kept_group, 1) == 0;
    if ((granularity_ == Granularity::kRow && !row_fits) || (granularity_ == Granularity::kGroup && !group_fits)) {
      return bad(fmt::format("{} does not keep such scales", dtype_info(type).name));
    }
    scheme_.stored = type;
    scheme_.ternary.granularity = granularity_;
    scheme_.ternary.group_cols = group_;
    return ok();
  }

  std::string_view text_, name_;
  QuantScheme scheme_;
  Granularity granularity_ = Granularity::kTensor;
  int64_t group_ = 256;
  std::optional<DType> store_;
};

Result<std::vector<std::byte>> quantize_binary(std::span<const float> values, int64_t n_rows, int64_t n_cols) {
  constexpr int64_t kGroup = 128;
  if (n_cols % kGroup != 0) return unsupported("Q1_0 keeps a scale for 128 columns, which {} are not", n_cols);
  std::vector<uint8_t> codes(values.size());
  TernaryScales scales;
  scales.group_cols = kGroup;
  for (size_t at = 0; at < values.size(); at += size_t(kGroup)) {
    double sum = 0;
    for (size_t i = at; i < at + size_t(kGroup); ++i) {
      if (!std::isfinite(values[i])) return unsupported("{} cannot be kept as Q1_0", values[i]);
      sum += double(std::fabs(values[i]));
      codes[i] = values[i] < 0.0f ? 0 : 2;
    }
    scales.groups.push_back(std::max(float(sum / double(kGroup)), 6e-8f));  // binary16's least
  }
  return encode_ternary(TernaryLayout::kQ1_0, n_rows, n_cols, codes, scales);
}

Result<std::vector<std::byte>> quantize_as_integers(const QuantScheme& scheme, std::span<const float> values,
                                                    int64_t n_rows, int64_t n_cols) {
  std::vector<float> rotated(values.begin(), values.end());
  if (scheme.rotate > 0) {
    if (n_cols % scheme.rotate != 0) {
      return unsupported("Hadamard blocks of {} columns do not divide rows of {}", scheme.rotate, n_cols);
    }
    hadamard(rotated.data(), int64_t(rotated.size()), scheme.rotate, kRotationSeed);
  }
  BN_ASSIGN_OR_RETURN(const IntegerCodes codes, quantize_integers(rotated, n_rows, n_cols, scheme.integers));
  BN_RETURN_IF_ERROR(dequantize_integers(codes, rotated));
  if (scheme.rotate > 0) inverse_hadamard(rotated.data(), int64_t(rotated.size()), scheme.rotate, kRotationSeed);
  return quantize(scheme.stored, rotated, n_rows, n_cols);
}

}  // namespace

Result<QuantScheme> parse_scheme(std::string_view text) { return Parser(text).parse(); }

std::optional<TernaryLayout> layout_of_dtype(DType type) {
  switch (type) {
    case DType::kI2_S: return TernaryLayout::kI2S;
    case DType::kTQ1_0: return TernaryLayout::kTQ1_0;
    case DType::kTQ2_0: return TernaryLayout::kTQ2_0;
    case DType::kQ1_0: return TernaryLayout::kQ1_0;
    case DType::kQ2_0: return TernaryLayout::kQ2_0;
    case DType::kIQ1_BN: return TernaryLayout::kIQ1BN;
    case DType::kIQ2_BN: return TernaryLayout::kIQ2BN;
    default: return std::nullopt;
  }
}

Result<std::vector<std::byte>> quantize_by_scheme(const QuantScheme& scheme, std::span<const float> values,
                                                  int64_t n_rows, int64_t n_cols, const TernaryCodecs& codecs) {
  switch (scheme.kind) {
    case SchemeKind::kKeep: break;
    case SchemeKind::kTernary: {
      BN_ASSIGN_OR_RETURN(const TernaryCodes ternary, ternarize(values, n_rows, n_cols, scheme.ternary, codecs));
      return encode_ternary(*layout_of_dtype(scheme.stored), n_rows, n_cols, ternary.codes, ternary.scales, {}, codecs);
    }
    case SchemeKind::kBinary: return quantize_binary(values, n_rows, n_cols);
    case SchemeKind::kBlocks: return quantize(scheme.stored, values, n_rows, n_cols);
    case SchemeKind::kIntegers: return quantize_as_integers(scheme, values, n_rows, n_cols);
  }
  return invalid_argument("\"keep\" quantises nothing");
}

Status dequantize_stored(DType type, std::span<const std::byte> bytes, int64_t n_rows, int64_t n_cols, float* out,
                         const TernaryCodecs& codecs) {
  if (type != DType::kI2_S) return dequantize_rows(type, bytes, n_rows, n_cols, out);
  const TernaryView view{TernaryLayout::kI2S, n_rows, n_cols, bytes};
  BN_ASSIGN_OR_RETURN(const TernaryScales scales, ternary_scales(view));
  std::vector<uint8_t> codes(static_cast<size_t>(n_cols));
  for (int64_t row = 0; row < n_rows; ++row, out += n_cols) {
    BN_RETURN_IF_ERROR(decode_ternary(view, row, 1, codes.data(), codecs));
    for (int64_t c = 0; c < n_cols; ++c) out[c] = scales.tensor * float(int(codes[size_t(c)]) - 1);
  }
  return ok();
}

double nominal_bits(const QuantScheme& scheme, int64_t n_rows, int64_t n_cols) {
  if (scheme.kind != SchemeKind::kIntegers) {
    const auto bytes = tensor_bytes(scheme.stored, {n_rows, n_cols});
    return bytes ? 8.0 * double(*bytes) / (double(n_rows) * double(n_cols)) : 0.0;
  }
  const IntegerOptions& options = scheme.integers;
  const double scale_bits = 16.0 + (options.symmetric ? 0.0 : double(options.bits));
  switch (options.granularity) {
    case Granularity::kTensor: return options.bits + scale_bits / (double(n_rows) * double(n_cols));
    case Granularity::kRow: return options.bits + scale_bits / double(n_cols);
    case Granularity::kColumn: return options.bits + scale_bits / double(n_rows);
    case Granularity::kGroup: return options.bits + scale_bits / double(options.group_cols);
  }
  return 0.0;
}

}  // namespace bitnet
