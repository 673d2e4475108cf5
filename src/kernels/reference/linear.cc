#include "kernels/float_spec.h"
#include "kernels/reference/reference_backend.h"

namespace bitnet {
namespace {

// numerics.md 3: exact integers, then floats in the order of the groups.
float ternary_dot(const ReferenceTernaryMatrix& weight, int64_t row, const int8_t* q, float inv_scale) {
  const uint8_t* const codes = weight.row(row);
  const int64_t group_cols = weight.group_cols(), n_groups = weight.n_cols() / group_cols;
  float total = 0.0f;
  for (int64_t g = 0; g < n_groups; ++g) {
    int32_t sum = 0;
    for (int64_t i = g * group_cols; i < (g + 1) * group_cols; ++i) sum += (int32_t(codes[i]) - 1) * q[i];
    if (weight.scales().groups.empty()) return (float(sum) * inv_scale) * weight.alpha(row, 0);
    const float part = float(sum) * weight.alpha(row, g);
    total = g == 0 ? part : total + part;
  }
  return total * inv_scale;
}

// numerics.md 6 for ternary weights with float activations.
float ternary_float_dot(const ReferenceTernaryMatrix& weight, int64_t row, const float* x) {
  const uint8_t* const codes = weight.row(row);
  const auto w = [&](int64_t i) { return float(int32_t(codes[i]) - 1); };
  if (weight.scales().groups.empty()) {
    return spec::lane_sum(weight.n_cols(), [&](int64_t i) { return w(i) * x[i]; }) * weight.alpha(row, 0);
  }
  return spec::lane_sum(weight.n_cols(),
                        [&](int64_t i) { return (w(i) * weight.alpha(row, i / weight.group_cols())) * x[i]; });
}

}  // namespace

void ReferenceBackend::linear(Stream&, std::span<const LinearCall> calls, const QuantizedView& x) const {
  for (const LinearCall& call : calls) {
    const auto& weight = static_cast<const ReferenceTernaryMatrix&>(*call.weight);
    for (int64_t t = 0; t < x.n_rows; ++t) {
      for (int64_t row = 0; row < weight.n_rows(); ++row) {
        call.out.row(t)[row] = ternary_dot(weight, row, x.codes + t * x.stride, x.inv_scales[t]);
      }
    }
  }
}

void ReferenceBackend::linear(Stream& stream, std::span<const LinearCall> calls, MatrixView x) const {
  float* const widened = static_cast<ReferenceStream&>(stream).weights.data();
  for (const LinearCall& call : calls) {
    for (int64_t row = 0; row < call.weight->n_rows(); ++row) {
      if (call.weight->ternary()) {
        const auto& weight = static_cast<const ReferenceTernaryMatrix&>(*call.weight);
        for (int64_t t = 0; t < x.n_rows; ++t) call.out.row(t)[row] = ternary_float_dot(weight, row, x.row(t));
      } else {
        static_cast<const ReferenceFloatMatrix&>(*call.weight).widen_row(row, widened);
        for (int64_t t = 0; t < x.n_rows; ++t) call.out.row(t)[row] = spec::dot(widened, x.row(t), x.n_cols);
      }
    }
  }
}

// All of them: the best are among them.
Status ReferenceBackend::best_logits(Stream& stream, const Matrix& table, MatrixView x, int64_t, MatrixView out) const {
  const LinearCall call{&table, out};
  linear(stream, {&call, 1}, x);
  return ok();
}

}  // namespace bitnet
