#pragma once

#include "base/result.h"
#include "bitnet/generate.h"
#include "kernels/sampling.h"

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace bitnet {

// Picks the next token from logits. With logits l after the penalties and temperature t, a token's weight is
// w = exp((l - max l) / t), computed in double as kernels/sampling.h defines it:
//   top-k   keeps the k largest logits, on equal logits the lower id;
//   top-p   keeps the shortest run of the most likely whose weight reaches top_p of what top-k left (one at least);
//   min-p   keeps w >= min_p;
//   draw    walks what is left in order of id until the running sum of w exceeds u * (sum of w).
// u is number n_draws() of the seed's stream, so the same seed and logits give the same ids on every machine. Walking
// by id makes the draw insensitive to a near tie changing places. Nothing is allocated after create().
class Sampler {
 public:
  struct Candidate {
    float logit;
    int32_t id;
  };

  // The largest of at least one logit, with the lowest id among equal ones. NaN counts as less than any number.
  static Candidate largest(std::span<const float> logits);

  // Refuses options out of range and names the option.
  static Result<Sampler> create(const SamplingOptions& options, int64_t vocab_size);

  // How many of the largest logits decide what sample() gives: with that many exact and minus infinity in place of
  // others the ids are the same. 0: all of them.
  static int64_t n_best(const SamplingOptions& options);

  // The options as a device may take them that samples by itself; none where it would want penalties or every logit, or
  // where nothing is drawn.
  static std::optional<TokenSampling> without_penalties(const SamplingOptions& options);

  // `history` is the sequence so far; the penalties look at its last penalty_last_n ids. Refuses logits that are not
  // numbers, as a damaged model gives them.
  Result<int32_t> sample(std::span<const float> logits, std::span<const int32_t> history);

  // How many tokens were drawn, and that one more was elsewhere.
  uint64_t n_draws() const { return n_draws_; }
  void count_draw() { ++n_draws_; }

  // What the last draw chose from, in order of id; empty after a greedy choice.
  std::span<const Candidate> candidates() const { return {candidates_.data(), size_t(n_kept_)}; }

 private:
  Sampler(const SamplingOptions& options, int64_t vocab_size);
  void penalise(std::span<const int32_t> history);
  void keep_top_k();
  void keep_top_p();
  void keep_min_p();
  void order_by_id();
  int32_t draw();
  double weight(const Candidate& candidate) const;

  SamplingOptions options_;
  uint64_t n_draws_ = 0;
  std::vector<Candidate> candidates_;  // [vocab_size], the first n_kept_ count
  std::vector<double> weights_;        // [vocab_size], scratch of draw()
  std::vector<int32_t> counts_;        // [vocab_size], zero between calls; empty without penalties
  int64_t n_kept_ = 0;
  enum class Order : uint8_t { kId, kLikeliest } order_ = Order::kId;
  float max_logit_ = 0;
};

}  // namespace bitnet
