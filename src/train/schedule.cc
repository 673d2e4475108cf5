#include "train/schedule.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

namespace bitnet {
namespace {

constexpr std::array kKinds =
    std::to_array<std::pair<std::string_view, ScheduleKind>>({{"two_stage", ScheduleKind::kTwoStage},
                                                              {"cosine", ScheduleKind::kCosine},
                                                              {"wsd", ScheduleKind::kWsd},
                                                              {"linear", ScheduleKind::kLinear}});

constexpr double kPi = 3.14159265358979323846;

}  // namespace

Result<ScheduleKind> parse_schedule(std::string_view name) {
  for (const auto& [known, kind] : kKinds) {
    if (known == name) return kind;
  }
  return invalid_argument("there is no schedule \"{}\"; there are two_stage, cosine, wsd and linear", name);
}

Rates rates_at(const ScheduleOptions& o, int64_t step) {
  const double warmup = std::min(1.0, double(step) / double(std::max<int64_t>(o.n_warmup, 1)));
  if (step < o.n_warmup) return {o.lr * warmup, o.weight_decay};
  // Share of the steps behind the warm-up that are done before this one.
  const double done =
      std::clamp(double(step - o.n_warmup) / double(std::max<int64_t>(o.n_steps - o.n_warmup, 1)), 0.0, 1.0);
  const auto fall = [&](double share) { return o.final_share + (1.0 - o.final_share) * share; };
  switch (o.kind) {
    case ScheduleKind::kTwoStage: {
      if (2 * step <= o.n_steps) return {o.lr * fall(1.0 - done), o.weight_decay};
      const double peak = o.second_lr > 0 ? o.second_lr : o.lr * 2.0 / 3.0;
      return {peak * fall(1.0 - done), 0.0};
    }
    case ScheduleKind::kCosine: return {o.lr * fall(0.5 * (1.0 + std::cos(kPi * done))), o.weight_decay};
    case ScheduleKind::kWsd: {
      const double share = std::max(o.decay_share, 1e-9);
      return {o.lr * fall(std::min(1.0, (1.0 - done) / share)), o.weight_decay};
    }
    case ScheduleKind::kLinear: return {o.lr * fall(1.0 - done), o.weight_decay};
  }
  return {o.lr, o.weight_decay};
}

}  // namespace bitnet
