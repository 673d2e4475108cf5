#include "runtime/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace bitnet {
namespace {

// A total order, so that no result depends on how a selection algorithm works.
bool more_likely(const Sampler::Candidate& a, const Sampler::Candidate& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

Error out_of_range(const char* name, float value, const char* expected) {
  return invalid_argument("sampling option {} is {}, expected {}", name, value, expected);
}

// Comparisons are written so that NaN fails them.
Status check_options(const SamplingOptions& o) {
  if (!(o.temperature >= 0 && std::isfinite(o.temperature))) {
    return out_of_range("temperature", o.temperature, "0 (greedy) or a positive number");
  }
  if (o.top_k < 0) return invalid_argument("sampling option top_k is {}, expected 0 (off) or more", o.top_k);
  if (!(o.top_p >= 0 && o.top_p <= 1)) return out_of_range("top_p", o.top_p, "0 to 1 (off)");
  if (!(o.min_p >= 0 && o.min_p <= 1)) return out_of_range("min_p", o.min_p, "0 (off) to 1");
  if (!(o.repeat_penalty > 0 && std::isfinite(o.repeat_penalty))) {
    return out_of_range("repeat_penalty", o.repeat_penalty, "a positive number (1: off)");
  }
  if (!std::isfinite(o.frequency_penalty)) {
    return out_of_range("frequency_penalty", o.frequency_penalty, "a finite number (0: off)");
  }
  if (!std::isfinite(o.presence_penalty)) {
    return out_of_range("presence_penalty", o.presence_penalty, "a finite number (0: off)");
  }
  if (o.penalty_last_n < -1) {
    return invalid_argument("sampling option penalty_last_n is {}, expected -1 (all), 0 (off) or more",
                            o.penalty_last_n);
  }
  return ok();
}

bool has_penalties(const SamplingOptions& o) {
  return o.penalty_last_n != 0 && (o.repeat_penalty != 1 || o.frequency_penalty != 0 || o.presence_penalty != 0);
}

// Clamped, so that no penalty turns a number into an infinity.
float penalised(float logit, int32_t count, const SamplingOptions& o) {
  double value = logit > 0 ? double(logit) / o.repeat_penalty : double(logit) * o.repeat_penalty;
  value -= double(o.frequency_penalty) * count + double(o.presence_penalty);
  constexpr double kMax = std::numeric_limits<float>::max();
  return float(std::clamp(value, -kMax, kMax));
}

}  // namespace

Result<Sampler> Sampler::create(const SamplingOptions& options, int64_t vocab_size) {
  BN_RETURN_IF_ERROR(check_options(options));
  return Sampler(options, vocab_size);
}

int64_t Sampler::n_best(const SamplingOptions& options) {
  // A penalty can lift a token that the others leave behind.
  if (has_penalties(options)) return 0;
  return options.temperature == 0 ? 1 : options.top_k;
}

std::optional<TokenSampling> Sampler::without_penalties(const SamplingOptions& o) {
  if (has_penalties(o) || o.temperature == 0 || o.top_k == 0) return std::nullopt;
  return TokenSampling{o.temperature, o.top_k, o.top_p, o.min_p, o.seed};
}

Sampler::Candidate Sampler::largest(std::span<const float> logits) {
  // In lanes first: a vocabulary has 10^5 logits, and a comparison with the best so far would wait for the one before.
  constexpr size_t kLanes = 32;
  float lanes[kLanes];
  std::fill(std::begin(lanes), std::end(lanes), -std::numeric_limits<float>::infinity());
  const float* const values = logits.data();
  size_t i = 0;
  for (; i + kLanes <= logits.size(); i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) lanes[j] = values[i + j] > lanes[j] ? values[i + j] : lanes[j];
  }
  for (; i < logits.size(); ++i) lanes[0] = values[i] > lanes[0] ? values[i] : lanes[0];
  const float most = *std::max_element(std::begin(lanes), std::end(lanes));
  const auto found = std::find(logits.begin(), logits.end(), most);
  return {most, int32_t(found == logits.end() ? 0 : found - logits.begin())};
}

Sampler::Sampler(const SamplingOptions& options, int64_t vocab_size)
    : options_(options), candidates_(size_t(vocab_size)) {
  if (options.temperature > 0) weights_.resize(size_t(vocab_size));
  if (has_penalties(options)) counts_.resize(size_t(vocab_size));
}

Result<int32_t> Sampler::sample(std::span<const float> logits, std::span<const int32_t> history) {
  if (logits.size() != candidates_.size()) {
    return invalid_argument("{} logits to sample from, expected {}, one a token of the vocabulary", logits.size(),
                            candidates_.size());
  }
  const bool greedy = options_.temperature == 0 && counts_.empty();
  bool numbers = true;
  for (const float logit : logits) numbers &= logit <= std::numeric_limits<float>::max();
  if (greedy && numbers) {
    const Candidate best = largest(logits);
    if (best.logit > -std::numeric_limits<float>::infinity()) {
      n_kept_ = 0;
      return best.id;
    }
  }
  for (size_t i = 0; i < logits.size(); ++i) {
    // NaN and plus infinity; minus infinity is a token that cannot be.
    if (!(logits[i] <= std::numeric_limits<float>::max())) {
      return invalid_input("the model's logit of token {} is {}, expected a number", i, logits[i]);
    }
    candidates_[i] = Candidate{logits[i], int32_t(i)};
  }
  n_kept_ = int64_t(logits.size());
  order_ = Order::kId;
  penalise(history);
  const auto first = candidates_.begin();
  const auto best = std::min_element(first, first + n_kept_, more_likely);
  max_logit_ = best->logit;
  if (max_logit_ == -std::numeric_limits<float>::infinity()) {
    return invalid_input("the model gives minus infinity as the logit of every token");
  }
  if (options_.temperature == 0) {
    n_kept_ = 0;
    return best->id;
  }
  keep_top_k();
  keep_top_p();
  keep_min_p();
  order_by_id();
  return draw();
}

void Sampler::penalise(std::span<const int32_t> history) {
  if (counts_.empty()) return;
  const size_t last_n = options_.penalty_last_n < 0 ? history.size() : size_t(options_.penalty_last_n);
  const std::span<const int32_t> recent = history.last(std::min(last_n, history.size()));
  const auto in_vocabulary = [&](int32_t id) { return id >= 0 && size_t(id) < counts_.size(); };
  for (const int32_t id : recent) {
    if (in_vocabulary(id)) ++counts_[size_t(id)];
  }
  for (const int32_t id : recent) {
    if (!in_vocabulary(id) || counts_[size_t(id)] == 0) continue;
    float& logit = candidates_[size_t(id)].logit;
    if (logit > -std::numeric_limits<float>::infinity()) logit = penalised(logit, counts_[size_t(id)], options_);
    counts_[size_t(id)] = 0;
  }
}

// A heap of k is the fast way to a few; selecting, then sorting, to many.
void Sampler::keep_top_k() {
  constexpr int64_t kHeap = 512;
  const int64_t k = options_.top_k;
  if (k == 0 || k >= n_kept_) return;
  const auto first = candidates_.begin();
  if (k <= kHeap) {
    std::partial_sort(first, first + k, first + n_kept_, more_likely);
  } else {
    std::nth_element(first, first + k, first + n_kept_, more_likely);
    std::sort(first, first + k, more_likely);
  }
  n_kept_ = k;
  order_ = Order::kLikeliest;
}

// Sorts no further than the run that is kept: the next block of the most likely is four times the one before.
void Sampler::keep_top_p() {
  if (options_.top_p >= 1) return;
  const auto first = candidates_.begin();
  double total = 0;
  for (int64_t i = 0; i < n_kept_; ++i) total += weight(candidates_[size_t(i)]);
  const double wanted = double(options_.top_p) * total;
  double sum = 0;
  int64_t n = 0;
  int64_t n_sorted = order_ == Order::kLikeliest ? n_kept_ : 0;
  int64_t block = 256;
  do {
    if (n == n_sorted) {
      n_sorted = std::min(n_kept_, n_sorted + block);
      block *= 4;
      if (n_sorted < n_kept_) std::nth_element(first + n, first + n_sorted, first + n_kept_, more_likely);
      std::sort(first + n, first + n_sorted, more_likely);
    }
    sum += weight(candidates_[size_t(n)]);
    ++n;
  } while (n < n_kept_ && sum < wanted);
  n_kept_ = n;
  order_ = Order::kLikeliest;
}

void Sampler::keep_min_p() {
  if (options_.min_p <= 0) return;
  const auto first = candidates_.begin();
  const auto end =
      std::remove_if(first, first + n_kept_, [&](const Candidate& c) { return weight(c) < double(options_.min_p); });
  n_kept_ = end - first;
}

void Sampler::order_by_id() {
  if (order_ == Order::kId) return;
  const auto first = candidates_.begin();
  std::sort(first, first + n_kept_, [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
  order_ = Order::kId;
}

int32_t Sampler::draw() {
  double total = 0;
  for (int64_t i = 0; i < n_kept_; ++i) total += weights_[size_t(i)] = weight(candidates_[size_t(i)]);
  const double target = sampling_point(options_.seed, n_draws_++) * total;
  double sum = 0;
  int32_t id = candidates_[0].id;
  for (int64_t i = 0; i < n_kept_; ++i) {
    if (weights_[size_t(i)] == 0) continue;
    id = candidates_[size_t(i)].id;
    sum += weights_[size_t(i)];
    if (sum > target) break;
  }
  return id;
}

double Sampler::weight(const Candidate& candidate) const {
  return sampling_weight(candidate.logit, max_logit_, options_.temperature);
}

}  // namespace bitnet
