#include "train/core/optimizer.h"

#include "base/result.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

namespace bitnet {
namespace {

constexpr std::array kKinds =
    std::to_array<std::pair<std::string_view, OptimizerKind>>({{"adamw", OptimizerKind::kAdamW},
                                                               {"adamw8", OptimizerKind::kAdamW8},
                                                               {"muon", OptimizerKind::kMuon},
                                                               {"sgd", OptimizerKind::kSgd}});

constexpr int64_t kBlock = 256;  // values that share the scales of their 8-bit moments

// The constants of one AdamW step.
struct AdamStep {
  AdamStep(const OptimizerOptions& options, const UpdateRates& rates, bool decays)
      : factor(float(rates.gradient_factor)),
        beta1(options.beta1),
        beta2(options.beta2),
        eps(options.eps),
        keep(float(1.0 - (decays ? rates.lr * rates.weight_decay : 0.0))),
        rate(float(rates.lr / (1.0 - std::pow(double(options.beta1), double(rates.step))))),
        root(float(1.0 / std::sqrt(1.0 - std::pow(double(options.beta2), double(rates.step))))) {}

  void apply(float gradient, float& m, float& v, float& p) const {
    const float g = gradient * factor;
    m = beta1 * m + (1.0f - beta1) * g;
    v = beta2 * v + (1.0f - beta2) * (g * g);
    p = p * keep - rate * (m / (std::sqrt(v) * root + eps));
  }

  float factor, beta1, beta2, eps, keep, rate, root;
};

int64_t n_blocks(int64_t n_values) { return (n_values + kBlock - 1) / kBlock; }

// 8-bit moments of one block. Codes are powers of the share of the block's largest, so that small moments keep digits:
// m = max * sign * (code / 127)^2, v = max * (code / 255)^4. The second moment is rounded up: rounded to 0, it would
// turn a small gradient into a huge update.
void decode_block(const int8_t* m_codes, const uint8_t* v_codes, float m_max, float v_max, int64_t n, float* m,
                  float* v) {
  for (int64_t i = 0; i < n; ++i) {
    const float a = float(m_codes[i]) * (1.0f / 127), b = float(v_codes[i]) * (1.0f / 255);
    m[i] = m_max * (a * std::fabs(a));
    v[i] = v_max * ((b * b) * (b * b));
  }
}
void encode_block(const float* m, const float* v, int64_t n, int8_t* m_codes, uint8_t* v_codes, float* m_max,
                  float* v_max) {
  *m_max = *v_max = 0;
  for (int64_t i = 0; i < n; ++i) {
    *m_max = std::max(*m_max, std::fabs(m[i]));
    *v_max = std::max(*v_max, v[i]);
  }
  for (int64_t i = 0; i < n; ++i) {
    const float a = *m_max > 0 ? std::sqrt(std::fabs(m[i]) / *m_max) : 0.0f;
    const float b = *v_max > 0 ? std::sqrt(std::sqrt(v[i] / *v_max)) : 0.0f;
    m_codes[i] = int8_t(std::copysign(std::nearbyint(a * 127), m[i]));
    v_codes[i] = uint8_t(std::min(std::ceil(b * 255), 255.0f));
  }
}

}  // namespace

Result<OptimizerKind> parse_optimizer(std::string_view name) {
  for (const auto& [known, kind] : kKinds) {
    if (known == name) return kind;
  }
  return invalid_argument("there is no optimizer \"{}\"; there are adamw, adamw8, muon and sgd", name);
}

Optimizer::Optimizer(const OptimizerOptions& options, const ParameterLayout& layout)
    : options_(options), layout_(layout) {
  if (options.kind == OptimizerKind::kAdamW8) {
    int64_t blocks = 0;
    for (const ParameterSlice& slice : layout.slices()) blocks += n_blocks(slice.n_values);
    first_codes_.resize(size_t(blocks * kBlock));
    second_codes_.resize(size_t(blocks * kBlock));
    first_scales_.resize(size_t(blocks));
    second_scales_.resize(size_t(blocks));
    return;
  }
  first_.resize(size_t(layout.n_values()));
  if (options.kind != OptimizerKind::kSgd) second_.resize(size_t(layout.n_values()));
}

void Optimizer::update(ThreadPool& pool, const UpdateRates& rates, const float* gradients, float* parameters) {
  int64_t block = 0;
  for (const ParameterSlice& slice : layout_.slices()) {
    const float* const g = gradients + slice.offset;
    float* const p = parameters + slice.offset;
    switch (options_.kind) {
      case OptimizerKind::kAdamW: adamw(pool, rates, slice, g, p); break;
      case OptimizerKind::kAdamW8: adamw8(pool, rates, slice, block, g, p); break;
      case OptimizerKind::kSgd: sgd(pool, rates, slice, g, p); break;
      case OptimizerKind::kMuon:
        if (slice.spec.kind == WeightKind::kLinear && !slice.is_step) {
          muon(pool, rates, slice, g, p);
        } else {
          adamw(pool, rates, slice, g, p);
        }
        break;
    }
    block += n_blocks(slice.n_values);
  }
}

void Optimizer::adamw(ThreadPool& pool, const UpdateRates& rates, const ParameterSlice& slice, const float* g,
                      float* p) {
  const AdamStep step(options_, rates, slice.decays());
  float *const m = first_.data() + slice.offset, *const v = second_.data() + slice.offset;
  pool.parallel_for(slice.n_values, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) step.apply(g[i], m[i], v[i], p[i]);
  });
}

void Optimizer::adamw8(ThreadPool& pool, const UpdateRates& rates, const ParameterSlice& slice, int64_t first_block,
                       const float* g, float* p) {
  const AdamStep step(options_, rates, slice.decays());
  pool.parallel_for(n_blocks(slice.n_values), [&](int64_t begin, int64_t end, int) {
    float m[kBlock], v[kBlock];
    for (int64_t block = begin; block < end; ++block) {
      const int64_t at = block * kBlock, n = std::min(kBlock, slice.n_values - at);
      const size_t place = size_t(first_block + block);
      int8_t* const m_codes = first_codes_.data() + place * kBlock;
      uint8_t* const v_codes = second_codes_.data() + place * kBlock;
      decode_block(m_codes, v_codes, first_scales_[place], second_scales_[place], n, m, v);
      for (int64_t i = 0; i < n; ++i) step.apply(g[at + i], m[i], v[i], p[at + i]);
      encode_block(m, v, n, m_codes, v_codes, &first_scales_[place], &second_scales_[place]);
    }
  });
}

void Optimizer::sgd(ThreadPool& pool, const UpdateRates& rates, const ParameterSlice& slice, const float* g, float* p) {
  const float factor = float(rates.gradient_factor), lr = float(rates.lr), momentum = options_.momentum;
  const float decay = slice.decays() ? float(rates.weight_decay) : 0.0f;
  float* const m = first_.data() + slice.offset;
  pool.parallel_for(slice.n_values, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      m[i] = momentum * m[i] + (g[i] * factor + decay * p[i]);
      p[i] -= lr * m[i];
    }
  });
}

void Optimizer::muon(ThreadPool& pool, const UpdateRates& rates, const ParameterSlice& slice, const float* g,
                     float* p) {
  adamw(pool, rates, slice, g, p);
}

std::vector<Optimizer::State> Optimizer::states() {
  std::vector<State> states;
  const auto add = [&](const char* name, DType dtype, auto& values) {
    if (values.empty()) return;
    states.push_back({name, dtype, {int64_t(values.size())}, std::as_writable_bytes(std::span(values))});
  };
  add("first_moment", DType::kF32, first_);
  add("second_moment", DType::kF32, second_);
  add("first_moment_scales", DType::kF32, first_scales_);
  add("second_moment_scales", DType::kF32, second_scales_);
  add("first_moment_codes", DType::kI8, first_codes_);
  add("second_moment_codes", DType::kU8, second_codes_);
  return states;
}

uint64_t Optimizer::size_bytes() const {
  return (first_.size() + second_.size() + first_scales_.size() + second_scales_.size()) * sizeof(float) +
         first_codes_.size() + second_codes_.size();
}

}  // namespace bitnet
