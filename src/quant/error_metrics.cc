#include "quant/error_metrics.h"

#include <algorithm>
#include <cmath>

namespace bitnet {

void ErrorMeter::add(std::span<const float> original, std::span<const float> approximation) {
  for (size_t i = 0; i < original.size(); ++i) {
    const double a = double(original[i]), b = double(approximation[i]), off = a - b;
    error_ += off * off;
    power_ += a * a;
    approximate_power_ += b * b;
    product_ += a * b;
    max_ = std::max(max_, std::fabs(off));
  }
  n_ += int64_t(original.size());
}

void ErrorMeter::add(const ErrorMeter& other) {
  n_ += other.n_;
  error_ += other.error_;
  power_ += other.power_;
  approximate_power_ += other.approximate_power_;
  product_ += other.product_;
  max_ = std::max(max_, other.max_);
}

ErrorMetrics ErrorMeter::metrics() const {
  ErrorMetrics m;
  m.n = n_;
  m.mse = n_ > 0 ? error_ / double(n_) : 0.0;
  m.rmse = std::sqrt(m.mse);
  m.max_error = max_;
  m.sqnr_db = error_ > 0 ? 10.0 * std::log10(std::max(power_, 1e-300) / error_) : 999.0;
  const double norms = std::sqrt(power_) * std::sqrt(approximate_power_);
  m.cosine = norms > 0 ? product_ / norms : power_ == approximate_power_ ? 1.0 : 0.0;
  return m;
}

}  // namespace bitnet
