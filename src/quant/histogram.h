#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace bitnet {

// Magnitudes of values that come in pieces, in 2048 bins of equal width. The range starts with the first value and
// doubles when a larger one comes, merging bins by twos, so that memory stays what it is and nothing is read twice.
// Deterministic for a given order of values.
class StreamingHistogram {
 public:
  static constexpr int kBins = 2048;

  void add(std::span<const float> values);  // NaN and infinity are counted, not binned
  void add(const StreamingHistogram& other);

  int64_t n() const { return n_; }
  int64_t n_nonfinite() const { return n_nonfinite_; }
  float absmax() const { return absmax_; }
  double mean_magnitude() const { return n_ > 0 ? sum_ / double(n_) : 0.0; }
  double mean_square() const { return n_ > 0 ? square_sum_ / double(n_) : 0.0; }
  float bin_width() const { return range_ / kBins; }
  std::span<const int64_t> bins() const { return bins_; }

  // The magnitude that a share (0 to 1) of all values does not exceed, linear within a bin.
  float percentile(double share) const;

  // Where to cut magnitudes off before rounding them to 2^(bits-1) - 1 symmetric steps:
  float clip_by_squared_error(int bits) const;  // least expected squared error
  float clip_by_kl(int bits) const;             // least KL divergence of the quantised from the cut distribution
                                                // (TensorRT's rule, Migacz 2017)
  float clip_by_entropy(int bits) const;        // most entropy of the levels: every level is used as evenly as can be

 private:
  void grow(float magnitude);
  std::array<int64_t, kBins> bins_{};
  float range_ = 0.0f, absmax_ = 0.0f;
  int64_t n_ = 0, n_nonfinite_ = 0;
  double sum_ = 0, square_sum_ = 0;
};

}  // namespace bitnet
