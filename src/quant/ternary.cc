#include "quant/ternary.h"

#include "base/checked.h"
#include "quant/ternary_blocks.h"

#include <array>
#include <cmath>

namespace bitnet {
namespace {

constexpr uint64_t kI2sTail_bytes = 32;  // a float32 scale and 28 zero bytes

// Sums of absolute values in double, in 8 lanes: exact enough for any matrix, and fast.
double sum_of_magnitudes(std::span<const float> values) {
  std::array<double, 8> lanes{};
  size_t i = 0;
  for (; i + 8 <= values.size(); i += 8) {
    for (size_t k = 0; k < 8; ++k) lanes[k] += double(std::fabs(values[i + k]));
  }
  for (; i < values.size(); ++i) lanes[i % 8] += double(std::fabs(values[i]));
  double sum = 0;
  for (const double lane : lanes) sum += lane;
  return sum;
}

}  // namespace

const char* ternary_layout_name(TernaryLayout layout) {
  switch (layout) {
    case TernaryLayout::kI2S: return "I2_S";
    case TernaryLayout::kI2SArm64: return "I2_S (ARM layout)";
    case TernaryLayout::kTQ1_0: return "TQ1_0";
    case TernaryLayout::kTQ2_0: return "TQ2_0";
    case TernaryLayout::kHfPacked: return "packed uint8";
  }
  return "unknown";
}

Result<uint64_t> ternary_bytes(TernaryLayout layout, int64_t n_rows, int64_t n_cols) {
  const char* name = ternary_layout_name(layout);
  if (n_rows <= 0 || n_cols <= 0)
    return invalid_input("{}: a matrix of [{}, {}] values is empty", name, n_rows, n_cols);
  int64_t count;
  if (__builtin_mul_overflow(n_rows, n_cols, &count)) {
    return invalid_input("{}: [{}, {}] has more values than 63 bits can count", name, n_rows, n_cols);
  }
  const auto blocks_of = [&](int64_t n, int64_t block_values, const char* of) -> Status {
    if (n % block_values == 0) return ok();
    return invalid_input("{} stores blocks of {} values, which {} of [{}, {}] with {} values does not fill evenly",
                         name, block_values, of, n_rows, n_cols, n);
  };
  switch (layout) {
    case TernaryLayout::kI2S:
    case TernaryLayout::kI2SArm64:
      BN_RETURN_IF_ERROR(blocks_of(count, layout == TernaryLayout::kI2S ? 128 : 64, "a matrix"));
      return uint64_t(count) / 4 + kI2sTail_bytes;
    case TernaryLayout::kTQ1_0:
      BN_RETURN_IF_ERROR(blocks_of(n_cols, ternary::TQ1Block::kValues, "a row"));
      return uint64_t(count / ternary::TQ1Block::kValues * ternary::TQ1Block::kBytes);
    case TernaryLayout::kTQ2_0:
      BN_RETURN_IF_ERROR(blocks_of(n_cols, ternary::TQ2Block::kValues, "a row"));
      return uint64_t(count / ternary::TQ2Block::kValues * ternary::TQ2Block::kBytes);
    case TernaryLayout::kHfPacked: {
      const auto bytes = checked_mul(uint64_t(n_rows) / 4 + (n_rows % 4 != 0), uint64_t(n_cols));
      if (!bytes) return invalid_input("{}: [{}, {}] needs more bytes than a file can have", name, n_rows, n_cols);
      return *bytes;
    }
  }
  return invalid_argument("unknown ternary layout");
}

Status check_ternary_view(const TernaryView& view) {
  BN_ASSIGN_OR_RETURN(const uint64_t expected, ternary_bytes(view.layout, view.n_rows, view.n_cols));
  if (view.bytes.size() == expected) return ok();
  return invalid_input("{} [{}, {}] takes {} bytes, found {}", ternary_layout_name(view.layout), view.n_rows,
                       view.n_cols, expected, view.bytes.size());
}

float absmean_ternarize(std::span<const float> weights, uint8_t* codes) {
  const float mean = weights.empty() ? 0.0f : float(sum_of_magnitudes(weights) / double(weights.size()));
  const float scale = 1.0f / (mean > 1e-5f ? mean : 1e-5f);
  for (size_t i = 0; i < weights.size(); ++i) {
    // clamp(round half even(v), -1, 1): a half goes to the even 0, so only more than a half counts.
    const float v = weights[i] * scale;
    codes[i] = uint8_t(1 + (v > 0.5f) - (v < -0.5f));
  }
  return 1.0f / scale;
}

bool exact_ternary(std::span<const float> weights, uint8_t* codes, float* alpha) {
  size_t first = 0;
  while (first < weights.size() && weights[first] == 0.0f) ++first;
  const float a = first < weights.size() ? std::fabs(weights[first]) : 1.0f;
  if (!std::isfinite(a)) return false;
  bool exact = true;
  for (size_t i = 0; i < weights.size(); ++i) {
    const float w = weights[i];
    exact &= w == 0.0f || w == a || w == -a;
    codes[i] = uint8_t(1 + (w > 0.0f) - (w < 0.0f));
  }
  *alpha = a;
  return exact;
}

}  // namespace bitnet
