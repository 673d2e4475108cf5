#include "quant/integer_quantizer.h"

#include "base/rng.h"

#include <algorithm>
#include <cmath>

namespace bitnet {
namespace {

struct Range {
  float low = 0.0f, high = 0.0f;
};

class Quantizer {
 public:
  Quantizer(std::span<const float> values, int64_t n_rows, int64_t n_cols, const IntegerOptions& options)
      : values_(values), options_(options) {
    out_.options = options;
    out_.n_rows = n_rows;
    out_.n_cols = n_cols;
    out_.q.resize(values.size());
    const int64_t groups_a_row = options.granularity == Granularity::kGroup ? n_cols / options.group_cols : 1;
    switch (options.granularity) {
      case Granularity::kTensor: n_groups_ = 1; break;
      case Granularity::kRow:
      case Granularity::kGroup: n_groups_ = n_rows * groups_a_row; break;
      case Granularity::kColumn: n_groups_ = n_cols; break;
    }
  }

  IntegerCodes run() {
    out_.scales.resize(size_t(n_groups_));
    if (!options_.symmetric) out_.zeros.resize(size_t(n_groups_));
    for (int64_t g = 0; g < n_groups_; ++g) quantize_group(g);
    return std::move(out_);
  }

 private:
  // fn(index into the values) for the members of a group.
  template <class Fn>
  void for_each(int64_t group, const Fn& fn) const {
    const size_t n_cols = size_t(out_.n_cols), g = size_t(group);
    switch (options_.granularity) {
      case Granularity::kTensor:
        for (size_t i = 0; i < values_.size(); ++i) fn(i);
        break;
      case Granularity::kColumn:
        for (size_t i = g; i < values_.size(); i += n_cols) fn(i);
        break;
      default: {
        const size_t size = options_.granularity == Granularity::kRow ? n_cols : size_t(options_.group_cols);
        for (size_t i = g * size; i < (g + 1) * size; ++i) fn(i);
        break;
      }
    }
  }

  int top() const { return options_.symmetric ? (1 << (options_.bits - 1)) - 1 : (1 << options_.bits) - 1; }

  struct Grid {
    float scale, inverse;
    int zero, low, high;
  };
  Grid grid_of(Range range) const {
    if (options_.symmetric) {
      const float scale = std::max(std::max(-range.low, range.high), 1e-30f) / float(top());
      return {scale, 1.0f / scale, 0, -top(), top()};
    }
    const float low = std::min(range.low, 0.0f), high = std::max(range.high, 0.0f);  // 0 stays exact
    const float scale = std::max(high - low, 1e-30f) / float(top());
    const int zero = std::clamp(int(std::nearbyint(-low / scale)), 0, top());
    return {scale, 1.0f / scale, zero, 0, top()};
  }
  static int nearest(float v, const Grid& grid) {
    const float q = std::clamp(v * grid.inverse + float(grid.zero), float(grid.low) - 1.0f, float(grid.high) + 1.0f);
    return std::clamp(int(std::nearbyint(q)), grid.low, grid.high);
  }
  int rounded(size_t i, const Grid& grid) const {
    if (!options_.stochastic_seed) return nearest(values_[i], grid);
    const float q = std::clamp(values_[i] * grid.inverse + float(grid.zero), float(grid.low), float(grid.high));
    const float below = std::floor(q);
    const CounterRng rng(*options_.stochastic_seed);
    return std::clamp(int(below) + (rng.uniform(i) < double(q - below)), grid.low, grid.high);
  }

  // Shrinks both ends together: 0.5 to 1 of the range in steps of a hundredth.
  Grid searched(int64_t group, Range range) const {
    Grid best = grid_of(range);
    double best_error = -1;
    for (int step = 100; step >= 50; --step) {
      const float share = 0.01f * float(step);
      const Grid grid = grid_of({range.low * share, range.high * share});
      double error = 0;
      for_each(group, [&](size_t i) {
        const double off = double(grid.scale) * (nearest(values_[i], grid) - grid.zero) - double(values_[i]);
        error += off * off;
      });
      if (best_error >= 0 && error >= best_error) continue;
      best_error = error;
      best = grid;
    }
    return best;
  }

  void quantize_group(int64_t group) {
    if (options_.bits == 1 && options_.symmetric) {
      double sum = 0;
      int64_t n = 0;
      for_each(group, [&](size_t i) {
        sum += double(std::fabs(values_[i]));
        out_.q[i] = values_[i] < 0.0f ? -1 : 1;
        ++n;
      });
      out_.scales[size_t(group)] = float(sum / double(n));
      return;
    }
    Range range;
    for_each(group, [&](size_t i) {
      range.low = std::min(range.low, values_[i]);
      range.high = std::max(range.high, values_[i]);
    });
    const Grid grid = options_.search ? searched(group, range) : grid_of(range);
    for_each(group, [&](size_t i) { out_.q[i] = int16_t(rounded(i, grid)); });
    out_.scales[size_t(group)] = grid.scale;
    if (!options_.symmetric) out_.zeros[size_t(group)] = int16_t(grid.zero);
  }

  std::span<const float> values_;
  const IntegerOptions options_;
  IntegerCodes out_;
  int64_t n_groups_ = 1;
};

}  // namespace

size_t IntegerCodes::group_of(int64_t row, int64_t col) const {
  switch (options.granularity) {
    case Granularity::kTensor: return 0;
    case Granularity::kRow: return size_t(row);
    case Granularity::kColumn: return size_t(col);
    case Granularity::kGroup: return size_t(row * (n_cols / options.group_cols) + col / options.group_cols);
  }
  return 0;
}

Result<IntegerCodes> quantize_integers(std::span<const float> values, int64_t n_rows, int64_t n_cols,
                                       const IntegerOptions& options) {
  if (options.bits < 1 || options.bits > 8) return invalid_argument("{} bits, expected 1 to 8", options.bits);
  if (n_rows < 1 || n_cols < 1 || values.size() % uint64_t(n_cols) != 0 ||
      values.size() / uint64_t(n_cols) != uint64_t(n_rows)) {
    return invalid_argument("{} values for a matrix of [{}, {}]", values.size(), n_rows, n_cols);
  }
  if (options.granularity == Granularity::kGroup && (options.group_cols < 1 || n_cols % options.group_cols != 0)) {
    return invalid_argument("groups of {} columns do not divide rows of {}", options.group_cols, n_cols);
  }
  const auto bad = std::find_if(values.begin(), values.end(), [](float v) { return !std::isfinite(v); });
  if (bad != values.end()) {
    const int64_t at = bad - values.begin();
    return invalid_input("row {}, column {}: {} cannot be quantised", at / n_cols, at % n_cols, *bad);
  }
  return Quantizer(values, n_rows, n_cols, options).run();
}

void dequantize_integers(const IntegerCodes& codes, float* out) {
  for (int64_t row = 0, i = 0; row < codes.n_rows; ++row) {
    for (int64_t col = 0; col < codes.n_cols; ++col, ++i) {
      const size_t group = codes.group_of(row, col);
      const int zero = codes.zeros.empty() ? 0 : codes.zeros[group];
      out[i] = codes.scales[group] * float(codes.q[size_t(i)] - zero);
    }
  }
}

std::vector<std::byte> pack_bits(std::span<const uint8_t> values, int bits) {
  std::vector<std::byte> out((values.size() * size_t(bits) + 7) / 8);
  for (size_t i = 0; i < values.size(); ++i) {
    const size_t at = i * size_t(bits);
    const unsigned shifted = unsigned(values[i] & ((1u << bits) - 1)) << at % 8;
    out[at / 8] |= std::byte(shifted & 255u);
    if (shifted > 255u) out[at / 8 + 1] |= std::byte(shifted >> 8);
  }
  return out;
}

Result<std::vector<uint8_t>> unpack_bits(std::span<const std::byte> bytes, int bits, int64_t n) {
  if (bits < 1 || bits > 8 || n < 0 || n > INT64_MAX / 8) return invalid_argument("{} values of {} bits", n, bits);
  const size_t expected = (size_t(n) * size_t(bits) + 7) / 8;
  if (bytes.size() != expected) {
    return invalid_input("{} values of {} bits take {} bytes, found {}", n, bits, expected, bytes.size());
  }
  std::vector<uint8_t> values(static_cast<size_t>(n));
  for (size_t i = 0; i < values.size(); ++i) {
    const size_t at = i * size_t(bits);
    unsigned word = unsigned(bytes[at / 8]);
    if (at / 8 + 1 < bytes.size()) word |= unsigned(bytes[at / 8 + 1]) << 8;
    values[i] = uint8_t(word >> at % 8 & ((1u << bits) - 1));
  }
  return values;
}

}  // namespace bitnet
