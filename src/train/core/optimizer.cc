#include "train/core/optimizer.h"

#include "base/result.h"
#include "kernels/cpu/dense_product.h"

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

  AdamwArgs args(const float* g, int64_t n, float* m, float* v, float* p) const {
    return {g, n, factor, beta1, beta2, eps, keep, rate, root, m, v, p};
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

Optimizer::Optimizer(const OptimizerOptions& options, const ParameterLayout& layout, const CpuKernels& kernels)
    : options_(options), layout_(layout), kernels_(kernels) {
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
    kernels_.training.adamw(step.args(g + begin, end - begin, m + begin, v + begin, p + begin));
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
      kernels_.training.adamw(step.args(g + at, n, m, v, p + at));
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

// Momentum with Nesterov's look ahead, made nearly orthogonal by five Newton-Schulz iterations of the quintic with
// Jordan's coefficients; sizes as in Liu et al. 2025 ("Muon is scalable"), so that AdamW's lr and decay serve.
void Optimizer::muon(ThreadPool& pool, const UpdateRates& rates, const ParameterSlice& slice, const float* g,
                     float* p) {
  const int64_t n_out = slice.spec.shape[0], n_in = slice.spec.shape[1], n = slice.n_values;
  float* const m = first_.data() + slice.offset;
  const float factor = float(rates.gradient_factor), momentum = options_.momentum;
  std::vector<float> x(static_cast<size_t>(n)), next(x.size());
  double squares = 0;
  for (int64_t i = 0; i < n; ++i) {
    m[i] = momentum * m[i] + g[i] * factor;
    x[size_t(i)] = g[i] * factor + momentum * m[i];
    squares += double(x[size_t(i)]) * double(x[size_t(i)]);
  }
  const float norm = float(1.0 / (std::sqrt(squares) + 1e-7));
  for (float& value : x) value *= norm;
  // The smaller side squared: rows times rows, or columns times columns where there are more rows.
  const bool wide = n_out <= n_in;
  const int64_t side = std::min(n_out, n_in), depth = std::max(n_out, n_in);
  std::vector<float> a(size_t(side * side)), b(a.size());
  DenseProduct product(pool, kernels_);
  constexpr float kA = 3.4445f, kB = -4.7750f, kC = 2.0315f;
  for (int round = 0; round < 5; ++round) {
    const DenseFactor rows = wide ? DenseFactor{x.data(), side, n_in, 1} : DenseFactor{x.data(), side, 1, n_in};
    product.multiply(rows, rows, depth, false, a.data(), side);
    product.multiply({a.data(), side, side, 1}, {a.data(), side, side, 1}, side, false, b.data(), side);
    for (size_t i = 0; i < a.size(); ++i) b[i] = kB * a[i] + kC * b[i];
    if (wide) {  // b x
      product.multiply({b.data(), side, side, 1}, {x.data(), n_in, 1, n_in}, side, false, next.data(), n_in);
    } else {  // x b, b symmetric
      product.multiply({x.data(), n_out, n_in, 1}, {b.data(), side, side, 1}, side, false, next.data(), n_in);
    }
    for (size_t i = 0; i < x.size(); ++i) x[i] = kA * x[i] + next[i];
  }
  const float keep = float(1.0 - rates.lr * rates.weight_decay);
  const float rate = float(rates.lr * 0.2 * std::sqrt(double(depth)));
  for (int64_t i = 0; i < n; ++i) p[i] = p[i] * keep - rate * x[size_t(i)];
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
