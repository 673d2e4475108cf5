#include "model/imposed_density.h"

#include "base/rng.h"

#include <bit>

namespace bitnet {

ImposedDensities::ImposedDensities(double gate, double down, int64_t d_ff, uint64_t seed) : seed_(seed), d_ff_(d_ff) {
  const CounterRng rng(seed);
  for (int64_t i = 0; i < 2 * d_ff; ++i) {
    const double drawn = rng.uniform(uint64_t(i % d_ff));
    signs_.push_back(drawn < gate ? 0 : 0x80000000u);
    kept_.push_back(drawn < down ? 1 : 0);
  }
}

int64_t ImposedDensities::offset(int64_t layer, int64_t position) const {
  return int64_t(CounterRng(seed_, uint64_t(layer) + 1).bits(uint64_t(position)) % uint64_t(d_ff_));
}

void ImposedDensities::impose_on_gates(MatrixView gates, int64_t layer, int64_t first_position) const {
  for (int64_t t = 0; t < gates.n_rows; ++t) {
    const uint32_t* const signs = signs_.data() + offset(layer, first_position + t);
    float* const row = gates.row(t);
    for (int64_t i = 0; i < d_ff_; ++i) {
      row[i] = std::bit_cast<float>((std::bit_cast<uint32_t>(row[i]) & 0x7fffffffu) | signs[i]);
    }
  }
}

void ImposedDensities::impose_on_codes(QuantizedView x, int64_t layer, int64_t first_position) const {
  for (int64_t t = 0; t < x.n_rows; ++t) {
    const int8_t* const kept = kept_.data() + offset(layer, first_position + t);
    int8_t* const row = x.codes + t * x.stride;
    int32_t sum = 0;
    for (int64_t i = 0; i < d_ff_; ++i) {
      row[i] = int8_t((row[i] | int8_t(row[i] == 0)) * kept[i]);
      sum += row[i];
    }
    x.sums[t] = sum;
  }
}

}  // namespace bitnet
