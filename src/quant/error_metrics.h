#pragma once

#include <cstdint>
#include <span>

namespace bitnet {

struct ErrorMetrics {
  int64_t n = 0;
  double mse = 0, rmse = 0, max_error = 0;
  double sqnr_db = 0;  // 10 log10(power / error); 999 where there is no error
  double cosine = 1;   // of original and approximation; 1 where both are zero
};

// How far an approximation is from its original, in double, over any number of pieces.
class ErrorMeter {
 public:
  void add(std::span<const float> original, std::span<const float> approximation);
  void add(const ErrorMeter& other);
  ErrorMetrics metrics() const;

 private:
  int64_t n_ = 0;
  double error_ = 0, power_ = 0, approximate_power_ = 0, product_ = 0, max_ = 0;
};

}  // namespace bitnet
