#include "train/cpu/cpu_ops.h"

#include "base/checked.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace bitnet {
namespace {

constexpr int64_t kValuesAtOnce = 1 << 14;
constexpr int64_t kLanes = 16;  // of a sum (docs/numerics.md, 4)

// clamp(round half even(w * scale), -1, 1), as quant/ternary.h rounds.
inline float ternary(float w, float scale) {
  const float v = w * scale;
  return v > 0.5f ? 1.0f : v < -0.5f ? -1.0f : 0.0f;
}

float mix(float x, float q, double lambda) { return lambda == 1.0 ? q : x + float(lambda) * (q - x); }

float scale_of(float alpha) { return 1.0f / alpha; }

}  // namespace

// Added up in double, in parts whose order does not depend on the threads.
float CpuOps::absmean(const float* w, int64_t n) {
  const int64_t n_parts = (n + kValuesAtOnce - 1) / kValuesAtOnce;
  sums_.assign(size_t(n_parts), 0.0);
  for_rows(n_parts, [&](int64_t part) {
    const int64_t begin = part * kValuesAtOnce, end = std::min(begin + kValuesAtOnce, n);
    double lanes[4] = {};
    int64_t i = begin;
    for (; i + 4 <= end; i += 4) {
      for (int j = 0; j < 4; ++j) lanes[j] += std::fabs(double(w[i + j]));
    }
    for (; i < end; ++i) lanes[0] += std::fabs(double(w[i]));
    sums_[size_t(part)] = (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
  });
  double sum = 0;
  for (const double part : sums_) sum += part;
  return float(sum / double(n));
}

void CpuOps::prepare(const float* latent, const float* step, int64_t n_out, int64_t n_in, Weight& weight) {
  weight.latent = latent;
  weight.step = step;
  weight.n_out = n_out;
  weight.n_in = n_in;
  if (quantization_.is_exact()) {
    make_codes(weight);
  } else {
    make_effective(weight);
  }
}

void CpuOps::make_codes(Weight& weight) {
  const int64_t n_in = weight.n_in, n_out = weight.n_out;
  const float mean = weight.step != nullptr ? *weight.step : absmean(weight.latent, n_out * n_in);
  // absmean_ternarize's two roundings: the scale is the reciprocal, alpha the scale's reciprocal.
  const float scale = scale_of(std::max(mean, float(kScaleFloor)));
  weight.alpha = 1.0f / scale;
  weight.codes.resize(size_t(n_out * n_in));
  for_rows(n_out, [&](int64_t o) {
    const float* const w = weight.latent + o * n_in;
    uint8_t* const codes = weight.codes.data() + o * n_in;
    for (int64_t i = 0; i < n_in; ++i) {
      const float v = w[i] * scale;
      codes[i] = uint8_t(1 + int(v > 0.5f) - int(v < -0.5f));
    }
  });
  lay_out_codes(weight);
}

void CpuOps::lay_out_codes(Weight& weight) {
  const int64_t n_in = weight.n_in, n_out = weight.n_out;
  TernarySource source;
  source.n_rows = n_out;
  source.n_cols = n_in;
  source.scales.tensor = weight.alpha;
  source.read_codes = [&weight, n_in](int64_t begin, int64_t n_rows, uint8_t* codes) -> Status {
    std::memcpy(codes, weight.codes.data() + begin * n_in, size_t(n_rows * n_in));
    return ok();
  };
  auto matrix = backend_->prepare(source, pool());
  if (!matrix) {
    if (!error_) error_ = std::move(matrix.error());
    return;
  }
  weight.matrix = *std::move(matrix);
  ternary_.pack_weight(weight.codes.data(), n_out, n_in, weight.panels);
}

void CpuOps::freeze(std::span<const uint8_t> codes, float alpha, int64_t n_out, int64_t n_in, Weight& weight) {
  weight.n_out = n_out;
  weight.n_in = n_in;
  weight.alpha = alpha;
  weight.codes.assign(codes.begin(), codes.end());
  lay_out_codes(weight);
  weight.codes = {};
}

void CpuOps::adapt(const Adapter<float>& adapter, Weight& weight) {
  const int64_t rank = adapter.rank, stride = round_up(rank, kLanes);
  weight.adapter = adapter;
  weight.scaled_b.assign(size_t(weight.n_out * stride), 0.0f);
  for (int64_t o = 0; o < weight.n_out; ++o) {
    for (int64_t r = 0; r < rank; ++r)
      weight.scaled_b[size_t(o * stride + r)] = adapter.b[o * rank + r] * adapter.scale;
  }
}

void CpuOps::make_effective(Weight& weight) {
  const int64_t n = weight.n_out * weight.n_in;
  weight.codes.clear();
  weight.effective.clear();
  if (!quantization_.enabled) return;
  weight.effective.assign(weight.latent, weight.latent + n);
  const int levels = quantization_.levels;
  const auto round = [levels](float w, float scale) {
    return levels == 1 ? ternary(w, scale) : std::clamp(std::nearbyint(w * scale), float(-levels), float(levels));
  };
  const bool whole = weight.step != nullptr || quantization_.group_cols == 0;
  const int64_t group = whole ? n : quantization_.group_cols;
  const auto quantize_group = [&](float* w, int64_t count, float mean) {
    float step = std::max(mean, float(kScaleFloor));
    if (levels > 1) step /= std::sqrt(float(levels));
    const float scale = scale_of(step), alpha = 1.0f / scale;
    for (int64_t i = 0; i < count; ++i) w[i] = mix(w[i], round(w[i], scale) * alpha, quantization_.lambda);
  };
  if (whole) {
    const float mean = weight.step != nullptr ? *weight.step : absmean(weight.latent, n);
    for_rows(weight.n_out,
             [&](int64_t o) { quantize_group(weight.effective.data() + o * weight.n_in, weight.n_in, mean); });
    return;
  }
  for_rows(n / group, [&](int64_t i) {
    float* const w = weight.effective.data() + i * group;
    double sum = 0;
    for (int64_t j = 0; j < group; ++j) sum += std::fabs(double(w[j]));
    quantize_group(w, group, float(sum / double(group)));
  });
}

void CpuOps::quantize(R x, Input& input) {
  input.n_rows = x.n_rows;
  input.n_cols = x.n_cols;
  input.values = x;
  if (quantization_.is_exact()) {
    const int64_t stride = quantized_stride(x.n_cols);
    input.codes.resize(size_t(x.n_rows * stride));
    input.inv_scales.resize(size_t(x.n_rows));
    input.sums.resize(size_t(x.n_rows));
    input.view = {input.codes.data(), input.inv_scales.data(), input.sums.data(), x.n_rows, x.n_cols, stride};
    backend_->quantize(*stream_, {x.data, x.n_rows, x.n_cols}, input.view);
    return;
  }
  input.effective.assign(x.data, x.data + x.n_values());
  if (!quantization_.enabled) return;
  backend_->fake_quantize(*stream_, {x.data, x.n_rows, x.n_cols}, {input.effective.data(), x.n_rows, x.n_cols});
  if (quantization_.lambda == 1.0) return;
  for_rows(x.n_rows, [&](int64_t t) {
    float* const q = input.effective.data() + t * x.n_cols;
    for (int64_t i = 0; i < x.n_cols; ++i) q[i] = mix(x.row(t)[i], q[i], quantization_.lambda);
  });
}

void CpuOps::linear(const Input& x, const Weight& weight, R y) {
  if (quantization_.is_exact()) {
    if (weight.matrix == nullptr) return;
    const LinearCall call{weight.matrix.get(), {y.data, y.n_rows, y.n_cols}};
    backend_->linear(*stream_, {&call, 1}, x.view);
    if (weight.adapter.a == nullptr) return;
    high_.resize(size_t(y.n_values()));
    multiply_rows(weight.scaled_b.data(), weight.n_out, low_rank(x, weight), high_.data(), y.n_cols);
    backend_->add(*stream_, {high_.data(), y.n_rows, y.n_cols}, call.out);
    return;
  }
  dense_.multiply({x.effective.data(), x.n_rows, x.n_cols, 1}, {weight.values(), weight.n_out, weight.n_in, 1},
                  x.n_cols, false, y.data, y.n_cols);
}

// a x of all tokens, rows filled up with zeros to whole lanes.
CpuOps::R CpuOps::low_rank(const Input& x, const Weight& weight) {
  const int64_t rank = weight.adapter.rank, stride = round_up(rank, kLanes);
  low_.assign(size_t(x.n_rows * stride), 0.0f);
  multiply_rows(weight.adapter.a, rank, x.values, low_.data(), stride);
  return {low_.data(), x.n_rows, stride};
}

// PlainOps::adapter_backward with float32 products. dx is added to.
void CpuOps::adapter_backward(const Input& x, const Weight& weight, R dy, R dx, const WeightGradient<float>& dw) {
  const int64_t n = dy.n_rows, n_out = weight.n_out, n_in = weight.n_in, rank = weight.adapter.rank;
  const R low = low_rank(x, weight);
  for (int64_t i = 0; i < low.n_values(); ++i) low.data[i] *= weight.adapter.scale;
  const int64_t stride = low.n_cols;
  dlow_.resize(size_t(n * rank));
  dense_.multiply({dy.data, n, n_out, 1}, {weight.scaled_b.data(), rank, 1, stride}, n_out, false, dlow_.data(), rank);
  dense_.multiply({dy.data, n_out, 1, n_out}, {low.data, rank, 1, stride}, n, true, dw.lora_b, rank);
  dense_.multiply({dlow_.data(), rank, 1, rank}, {x.values.data, n_in, 1, n_in}, n, true, dw.lora_a, n_in);
  dense_.multiply({dlow_.data(), n, rank, 1}, {weight.adapter.a, n_in, 1, n_in}, rank, true, dx.data, n_in);
}

void CpuOps::linear_backward(const Input& x, const Weight& weight, R dy, R dx, bool add,
                             const WeightGradient<float>& dw) {
  const int64_t n_in = weight.n_in, n_out = weight.n_out;
  const bool learned = weight.step != nullptr && quantization_.enabled;
  if (learned) gradient_.assign(size_t(n_out * n_in), 0.0f);
  float* const out = learned ? gradient_.data() : dw.weight;
  if (quantization_.is_exact()) {
    ternary_.input_gradient(dy, weight.panels, weight.alpha, add, dx);
    if (out != nullptr) ternary_.weight_gradient(dy, x.view, out);
    if (dw.lora_a != nullptr) adapter_backward(x, weight, dy, dx, dw);
  } else {
    dense_.multiply({dy.data, dy.n_rows, n_out, 1}, {weight.values(), n_in, 1, n_in}, n_out, add, dx.data, n_in);
    dense_.multiply({dy.data, n_out, 1, n_out}, {x.effective.data(), n_in, 1, n_in}, dy.n_rows, true, out, n_in);
  }
  if (!learned) return;
  learned_step_backward(weight, gradient_, dw.step);
  for_rows(n_out, [&](int64_t o) { kernels_.add(gradient_.data() + o * n_in, n_in, dw.weight + o * n_in); });
}

// PlainOps::learned_step_backward, rows first.
void CpuOps::learned_step_backward(const Weight& weight, PoolVector<float>& gradient, float* dstep) {
  const float scale = scale_of(std::max(*weight.step, float(kScaleFloor)));
  const float pass = float(1 - quantization_.lambda);  // of the gradient of a clipped weight
  sums_.assign(size_t(weight.n_out), 0.0);
  for_rows(weight.n_out, [&](int64_t o) {
    float* const g = gradient.data() + o * weight.n_in;
    const float* const w = weight.latent + o * weight.n_in;
    double sum = 0;
    for (int64_t i = 0; i < weight.n_in; ++i) {
      const float v = w[i] * scale;
      const bool clipped = std::fabs(v) >= 1.0f;
      sum += double(g[i]) * double(clipped ? std::copysign(1.0f, v) : ternary(w[i], scale) - v);
      if (clipped) g[i] *= pass;
    }
    sums_[size_t(o)] = sum;
  });
  double sum = 0;
  for (const double row : sums_) sum += row;
  *dstep += float(sum * quantization_.lambda / std::sqrt(double(gradient.size())));
}

}  // namespace bitnet
