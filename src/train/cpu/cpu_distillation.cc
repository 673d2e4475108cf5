// What a student learns from a teacher, on the processor.
#include "train/cpu/cpu_ops.h"

#include <algorithm>
#include <cmath>

namespace bitnet {

// KL(softmax(aim * aim_scale) || softmax(own * own_scale)); `aim` becomes the difference of the two distributions,
// student's less teacher's, `own` the student's without its denominator. `by` [n] is scratch.
double CpuOps::row_divergence(float* own, float own_scale, float* aim, float aim_scale, float* by, int64_t n) const {
  for (int64_t i = 0; i < n; ++i) by[i] = aim[i] * aim_scale - own[i] * own_scale;
  const auto exponentials = [&](float* row, float scale, double& log_z) {
    const float top = *std::max_element(row, row + n) * scale, inverse = kernels_.softmax(row, n, scale);
    log_z = double(top) - std::log(double(inverse));
    return inverse;
  };
  double log_z = 0, aim_log_z = 0;
  const float inverse = exponentials(own, own_scale, log_z), aim_inverse = exponentials(aim, aim_scale, aim_log_z);
  const double divergence = double(kernels_.training.dot(aim, by, n)) * double(aim_inverse) + (log_z - aim_log_z);
  for (int64_t i = 0; i < n; ++i) aim[i] = own[i] * inverse - aim[i] * aim_inverse;
  return divergence;
}

DistillationLoss CpuOps::distilled_cross_entropy(R x, const float* table, int64_t vocab_size,
                                                 std::span<const int32_t> targets, const TeacherHead<float>& teacher,
                                                 const DistillationOptions& options, float factor, R dx,
                                                 float* dtable) {
  DistillationLoss loss;
  if (options.logits == 0) {
    loss.cross_entropy = cross_entropy(x, table, vocab_size, targets, factor, dx, dtable);
    return loss;
  }
  const int64_t chunk = logit_rows(vocab_size, x.n_rows);
  const float weight = float(options.logits / options.temperature) * factor;
  const float scale = 1.0f / float(options.temperature);
  for (PoolVector<float>* values : {&logits_, &own_, &aim_, &by_}) {
    values->resize(std::max(values->size(), size_t(chunk * vocab_size)));
  }
  sums_.assign(size_t(2 * x.n_rows), 0.0);
  for (int64_t first = 0; first < x.n_rows; first += chunk) {
    const int64_t n = std::min(chunk, x.n_rows - first);
    multiply_rows(table, vocab_size, {x.row(first), n, x.n_cols}, logits_.data(), vocab_size);
    multiply_rows(teacher.table, vocab_size, {teacher.x.row(first), n, teacher.x.n_cols}, aim_.data(), vocab_size);
    for_rows(n, [&](int64_t i) {
      float *const logits = logits_.data() + i * vocab_size, *const own = own_.data() + i * vocab_size;
      float* const aim = aim_.data() + i * vocab_size;
      const int32_t target = targets[size_t(first + i)];
      std::copy_n(logits, vocab_size, own);
      sums_[size_t(2 * (first + i))] = row_loss(logits, vocab_size, target, factor, true);
      if (target < 0) return;
      sums_[size_t(2 * (first + i) + 1)] =
          row_divergence(own, scale, aim, scale, by_.data() + i * vocab_size, vocab_size);
      kernels_.training.add_scaled(aim, weight, vocab_size, logits);
    });
    head_backward(logits_.data(), n, vocab_size, x.row(first), table, x.n_cols, dx.row(first), dtable);
  }
  for (int64_t t = 0; t < x.n_rows; ++t) {
    loss.cross_entropy += sums_[size_t(2 * t)];
    loss.logits += sums_[size_t(2 * t + 1)];
  }
  return loss;
}

// For one sequence and head at a time: scores of all pairs, of which those on and below the diagonal count.
double CpuOps::relations(const AttentionShape& shape, R x, R teacher, std::span<const int32_t> targets, int64_t n_heads,
                         float factor, R dx) {
  const int64_t n = shape.n_positions, n_cols = x.n_cols / n_heads, teacher_cols = teacher.n_cols / n_heads;
  const float scale = 1.0f / std::sqrt(float(n_cols)), teacher_scale = 1.0f / std::sqrt(float(teacher_cols));
  const float weight = factor / float(n_heads) * scale;
  for (PoolVector<float>* values : {&own_, &aim_, &by_}) {
    values->resize(std::max(values->size(), size_t(n * n)));
  }
  sums_.assign(size_t(n), 0.0);
  double loss = 0;
  for (int64_t first = 0; first < x.n_rows; first += n) {
    for (int64_t head = 0; head < n_heads; ++head) {
      const float* const a = x.row(first) + head * n_cols;
      const float* const b = teacher.row(first) + head * teacher_cols;
      dense_.multiply({a, n, x.n_cols, 1}, {a, n, x.n_cols, 1}, n_cols, false, own_.data(), n);
      dense_.multiply({b, n, teacher.n_cols, 1}, {b, n, teacher.n_cols, 1}, teacher_cols, false, aim_.data(), n);
      for_rows(n, [&](int64_t t) {
        float *const own = own_.data() + t * n, *const aim = aim_.data() + t * n;
        sums_[size_t(t)] = 0;
        std::fill(aim + t + 1, aim + n, 0.0f);
        if (targets[size_t(first + t)] < 0) {
          std::fill_n(aim, t + 1, 0.0f);
          return;
        }
        sums_[size_t(t)] = row_divergence(own, scale, aim, teacher_scale, by_.data() + t * n, t + 1);
      });
      for (int64_t t = 0; t < n; ++t) loss += sums_[size_t(t)];
      // A score has its tokens twice: gradients are (d + d^T) x.
      for_rows(n, [&](int64_t t) {
        float* const both = own_.data() + t * n;
        for (int64_t j = 0; j < n; ++j) both[j] = (aim_[size_t(t * n + j)] + aim_[size_t(j * n + t)]) * weight;
      });
      dense_.multiply({own_.data(), n, n, 1}, {a, n_cols, 1, x.n_cols}, n, true, dx.row(first) + head * n_cols,
                      x.n_cols);
    }
  }
  return loss / double(n_heads);
}

}  // namespace bitnet
