#pragma once

#include "base/result.h"

#include <cstdint>
#include <string_view>

namespace bitnet {

enum class ScheduleKind : uint8_t {
  kTwoStage,  // of "The Era of 1-bit LLMs: Training Tips": one line to 0, whose peak drops half-way; no decay
              // afterwards
  kCosine,
  kWsd,  // warm-up, stable, decay: constant until the last `decay_share` of the steps, then a line
  kLinear,
};
// "two_stage", "cosine", "wsd", "linear".
Result<ScheduleKind> parse_schedule(std::string_view name);

struct ScheduleOptions {
  ScheduleKind kind = ScheduleKind::kCosine;
  int64_t n_steps = 1;
  int64_t n_warmup = 0;       // steps in which the rate rises in a line
  double lr = 1e-3;           // the peak
  double second_lr = 0;       // two_stage: the peak of the second half; 0: two thirds of the first
  double final_share = 0;     // of the peak, reached at the end
  double decay_share = 0.2;   // wsd
  double weight_decay = 0.1;  // two_stage: of the first half
};

struct Rates {
  double lr = 0;
  double weight_decay = 0;
};
// Of step 1 ... n_steps.
Rates rates_at(const ScheduleOptions& options, int64_t step);

}  // namespace bitnet
