#include "quant/histogram.h"

#include <algorithm>
#include <cmath>

namespace bitnet {
namespace {

constexpr int kClipSteps = 128;  // ranges that are tried, as many of the largest value's parts

// fn(number of bins within the range) for each range that is tried; the number of bins with the least value.
template <class Cost>
int best_range(const Cost& cost, int first) {
  int best = StreamingHistogram::kBins;
  double least = 0;
  bool found = false;
  for (int step = first; step <= kClipSteps; ++step) {
    const int n_bins = StreamingHistogram::kBins / kClipSteps * step;
    const double value = cost(n_bins);
    if (found && value >= least) continue;
    found = true;
    least = value;
    best = n_bins;
  }
  return best;
}

}  // namespace

void StreamingHistogram::grow(float magnitude) {
  if (range_ == 0.0f) range_ = std::exp2(std::ceil(std::log2(std::max(magnitude, 1e-30f))));
  while (magnitude > range_) {
    for (int i = 0; i < kBins / 2; ++i) bins_[size_t(i)] = bins_[size_t(2 * i)] + bins_[size_t(2 * i + 1)];
    std::fill(bins_.begin() + kBins / 2, bins_.end(), 0);
    range_ *= 2.0f;
  }
}

void StreamingHistogram::add(std::span<const float> values) {
  for (const float v : values) {
    const float magnitude = std::fabs(v);
    if (!std::isfinite(magnitude)) {
      ++n_nonfinite_;
      continue;
    }
    if (magnitude > range_ || range_ == 0.0f) grow(magnitude);
    absmax_ = std::max(absmax_, magnitude);
    sum_ += double(magnitude);
    square_sum_ += double(magnitude) * double(magnitude);
    ++n_;
    ++bins_[size_t(std::min(int(magnitude / range_ * float(kBins)), kBins - 1))];
  }
}

void StreamingHistogram::add(const StreamingHistogram& other) {
  if (other.n_ > 0) {
    StreamingHistogram theirs = other;
    grow(theirs.range_);
    theirs.grow(range_);  // ranges are powers of two, so both are the same now
    for (size_t i = 0; i < bins_.size(); ++i) bins_[i] += theirs.bins_[i];
  }
  absmax_ = std::max(absmax_, other.absmax_);
  n_ += other.n_;
  n_nonfinite_ += other.n_nonfinite_;
  sum_ += other.sum_;
  square_sum_ += other.square_sum_;
}

float StreamingHistogram::percentile(double share) const {
  const double wanted = std::clamp(share, 0.0, 1.0) * double(n_);
  double below = 0;
  for (int i = 0; i < kBins; ++i) {
    const double here = double(bins_[size_t(i)]);
    if (below + here >= wanted && here > 0) {
      return std::min(absmax_, bin_width() * float(double(i) + (wanted - below) / here));
    }
    below += here;
  }
  return absmax_;
}

float StreamingHistogram::clip_by_squared_error(int bits) const {
  const int levels = (1 << (bits - 1)) - 1;
  const double width = double(bin_width());
  const int n_bins = best_range(
      [&](int n) {
        const double clip = width * n, step = clip / std::max(levels, 1);
        double error = 0;
        for (int i = 0; i < kBins; ++i) {
          if (bins_[size_t(i)] == 0) continue;
          const double x = width * (i + 0.5), q = std::min(std::nearbyint(x / step), double(levels)) * step;
          error += double(bins_[size_t(i)]) * (x - q) * (x - q);
        }
        return error;
      },
      1);
  return std::min(absmax_, float(width * n_bins));
}

float StreamingHistogram::clip_by_kl(int bits) const {
  const int levels = 1 << (bits - 1);
  const int first = std::max(1, levels * kClipSteps / kBins);
  const int n_bins = best_range(
      [&](int n) {
        // P: values within the range, those beyond in its last bin. Q: P without those, merged into the levels and
        // spread again evenly over the bins that are not empty.
        std::vector<double> p(bins_.begin(), bins_.begin() + n);
        double beyond = 0;
        for (int i = n; i < kBins; ++i) beyond += double(bins_[size_t(i)]);
        std::vector<double> q(size_t(n), 0.0);
        for (int level = 0; level < levels; ++level) {
          const int begin = n * level / levels, end = n * (level + 1) / levels;
          double sum = 0;
          int used = 0;
          for (int i = begin; i < end; ++i) {
            sum += p[size_t(i)];
            used += p[size_t(i)] > 0;
          }
          for (int i = begin; i < end; ++i) q[size_t(i)] = p[size_t(i)] > 0 ? sum / used : 0.0;
        }
        p.back() += beyond;
        double p_sum = 0, q_sum = 0;
        for (int i = 0; i < n; ++i) {
          p_sum += p[size_t(i)];
          q_sum += q[size_t(i)];
        }
        if (p_sum <= 0 || q_sum <= 0) return 1e300;
        double kl = 0;
        for (int i = 0; i < n; ++i) {
          if (p[size_t(i)] <= 0) continue;
          const double a = p[size_t(i)] / p_sum, b = std::max(q[size_t(i)] / q_sum, 1e-12);
          kl += a * std::log(a / b);
        }
        return kl;
      },
      first);
  return std::min(absmax_, bin_width() * float(n_bins));
}

float StreamingHistogram::clip_by_entropy(int bits) const {
  const int levels = (1 << (bits - 1)) - 1;
  const int n_bins = best_range(
      [&](int n) {
        std::vector<double> used(size_t(levels + 1), 0.0);
        for (int i = 0; i < kBins; ++i) {
          const double level = (i + 0.5) / n * levels;
          used[size_t(std::min(int(std::nearbyint(level)), levels))] += double(bins_[size_t(i)]);
        }
        double negative_entropy = 0;
        for (size_t k = 0; k < used.size(); ++k) {
          // Levels other than 0 are two, one for each sign.
          const double p = used[k] / double(std::max<int64_t>(n_, 1));
          if (p > 0) negative_entropy += p * std::log(k == 0 ? p : p / 2);
        }
        return negative_entropy;
      },
      1);
  return std::min(absmax_, bin_width() * float(n_bins));
}

}  // namespace bitnet
