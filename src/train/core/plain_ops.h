#pragma once

#include "base/thread_pool.h"
#include "kernels/backend.h"
#include "train/core/distillation.h"
#include "train/core/linear.h"
#include "train/core/quantization.h"
#include "train/core/rows.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

namespace bitnet {

// The operations of a training step and their gradients as plain loops, in float or double: the definition that the
// gradient checks differentiate and that CpuOps is compared with. Gradients of weights are added to, gradients of
// activations are written unless a comment says otherwise. A null gradient of a weight is not wanted: it is frozen.
template <class RealType>
class PlainOps {
 public:
  using Real = RealType;
  using R = Rows<Real>;

  // A linear's weight in the form that products use.
  struct Weight {
    const Real* latent = nullptr;  // [n_out, n_in]
    const Real* step = nullptr;    // where the scale is learned
    std::vector<Real> effective;   // [n_out, n_in]
    int64_t n_out = 0, n_in = 0;
    Adapter<Real> adapter;
  };
  // A linear's quantised input, which its gradients want again.
  struct Input {
    std::vector<Real> effective;  // [n_rows, n_cols]
    R values;                     // what was quantised, which adapters see, as long as its memory holds it
    int64_t n_rows = 0, n_cols = 0;
  };

  explicit PlainOps(ThreadPool& pool) : pool_(pool) {}
  void set_quantization(const QuantizationOptions& options) { quantization_ = options; }

  void prepare(const Real* latent, const Real* step, int64_t n_out, int64_t n_in, Weight& weight) {
    weight.latent = latent;
    weight.step = step;
    weight.n_out = n_out;
    weight.n_in = n_in;
    weight.effective.assign(latent, latent + n_out * n_in);
    if (!quantization_.enabled) return;
    const int64_t n = step != nullptr || quantization_.group_cols == 0 ? n_out * n_in : quantization_.group_cols;
    pool_.parallel_for(n_out * n_in / n, [&](int64_t begin, int64_t end, int) {
      for (int64_t group = begin; group < end; ++group) quantize_group(weight.effective.data() + group * n, n, step);
    });
  }

  // A weight that stays, from its codes w + 1.
  void freeze(std::span<const uint8_t> codes, float alpha, int64_t n_out, int64_t n_in, Weight& weight) {
    weight.n_out = n_out;
    weight.n_in = n_in;
    weight.effective.resize(codes.size());
    for (size_t i = 0; i < codes.size(); ++i) weight.effective[i] = Real(int(codes[i]) - 1) * Real(alpha);
  }
  void adapt(const Adapter<Real>& adapter, Weight& weight) { weight.adapter = adapter; }

  void quantize(R x, Input& input) {
    input.n_rows = x.n_rows;
    input.n_cols = x.n_cols;
    input.values = x;
    input.effective.assign(x.data, x.data + x.n_values());
    if (!quantization_.enabled) return;
    for (int64_t t = 0; t < x.n_rows; ++t) {
      Real* const row = input.effective.data() + t * x.n_cols;
      Real absmax = 0;
      for (int64_t i = 0; i < x.n_cols; ++i) absmax = std::max(absmax, std::abs(row[i]));
      const Real scale = 127 / std::max(absmax, Real(kScaleFloor)), inverse = 1 / scale;
      for (int64_t i = 0; i < x.n_cols; ++i) {
        const Real q = std::clamp(std::nearbyint(row[i] * scale), Real(-128), Real(127)) * inverse;
        row[i] = mix(row[i], q);
      }
    }
  }

  // y = x w^T, and what an adapter adds.
  void linear(const Input& x, const Weight& weight, R y) {
    for_rows(y.n_rows, [&](int64_t t) {
      for (int64_t o = 0; o < y.n_cols; ++o) {
        const Real *a = x.effective.data() + t * x.n_cols, *b = weight.effective.data() + o * x.n_cols;
        Real sum = 0;
        for (int64_t i = 0; i < x.n_cols; ++i) sum += a[i] * b[i];
        y.row(t)[o] = sum;
      }
    });
    const Adapter<Real>& adapter = weight.adapter;
    if (adapter.a == nullptr) return;
    const std::vector<Real> low = low_rank(x, adapter);
    for (int64_t t = 0; t < y.n_rows; ++t) {
      for (int64_t o = 0; o < y.n_cols; ++o) {
        Real sum = 0;
        for (int64_t r = 0; r < adapter.rank; ++r) {
          sum += adapter.scale * adapter.b[o * adapter.rank + r] * low[size_t(t * adapter.rank + r)];
        }
        y.row(t)[o] += sum;
      }
    }
  }

  // Straight through the quantisers: dx = dy w (added to where `add`), dw += dy^T x, both with quantised values. A
  // learned step gets its gradient and masks those of the weights that are clipped.
  void linear_backward(const Input& x, const Weight& weight, R dy, R dx, bool add, const WeightGradient<Real>& dw) {
    const int64_t n_in = x.n_cols, n_out = dy.n_cols;
    for_rows(dy.n_rows, [&](int64_t t) {
      Real* const out = dx.row(t);
      if (!add) std::fill_n(out, n_in, Real(0));
      for (int64_t o = 0; o < n_out; ++o) {
        const Real g = dy.row(t)[o], *w = weight.effective.data() + o * n_in;
        for (int64_t i = 0; i < n_in; ++i) out[i] += g * w[i];
      }
    });
    if (dw.lora_a != nullptr) adapter_backward(x, weight.adapter, dy, dx, dw.lora_a, dw.lora_b);
    if (dw.weight == nullptr) return;
    std::vector<Real> gradient(size_t(n_out * n_in));
    for_rows(n_out, [&](int64_t o) {
      Real* const out = gradient.data() + o * n_in;
      for (int64_t t = 0; t < dy.n_rows; ++t) {
        const Real g = dy.row(t)[o], *row = x.effective.data() + t * n_in;
        for (int64_t i = 0; i < n_in; ++i) out[i] += g * row[i];
      }
    });
    if (weight.step != nullptr && quantization_.enabled) learned_step_backward(weight, gradient, dw.step);
    for (size_t i = 0; i < gradient.size(); ++i) dw.weight[i] += gradient[i];
  }

  void embed(const Real* table, std::span<const int32_t> ids, R out) {
    for (int64_t t = 0; t < out.n_rows; ++t) std::copy_n(table + ids[size_t(t)] * out.n_cols, out.n_cols, out.row(t));
  }
  void embed_backward(std::span<const int32_t> ids, R dout, Real* dtable) {
    for (int64_t t = 0; t < dout.n_rows; ++t) {
      Real* const row = dtable + ids[size_t(t)] * dout.n_cols;
      for (int64_t i = 0; i < dout.n_cols; ++i) row[i] += dout.row(t)[i];
    }
  }

  // A division, as the formula has it: in float32 a product with the reciprocal is another rounding, which int8 codes
  // near a half show (docs/training.md).
  void rms_norm(R x, const Real* weight, Real eps, R out) {
    for (int64_t t = 0; t < x.n_rows; ++t) {
      const Real rms = root_mean_square(x.row(t), x.n_cols, eps);
      for (int64_t i = 0; i < x.n_cols; ++i) out.row(t)[i] = x.row(t)[i] / rms * weight[i];
    }
  }
  // dx may be dy; where `add`, it is added to dx, which then must not be dy.
  void rms_norm_backward(R x, const Real* weight, Real eps, R dy, R dx, bool add, Real* dweight) {
    for (int64_t t = 0; t < x.n_rows; ++t) {
      const Real *v = x.row(t), *g = dy.row(t);
      const Real r = 1 / root_mean_square(v, x.n_cols, eps);
      Real sum = 0;
      for (int64_t i = 0; i < x.n_cols; ++i) sum += g[i] * weight[i] * v[i];
      const Real c = sum * r * r * r / Real(x.n_cols);
      for (int64_t i = 0; i < x.n_cols; ++i) {
        const Real d = r * weight[i] * g[i] - c * v[i];
        if (dweight != nullptr) dweight[i] += g[i] * v[i] * r;
        dx.row(t)[i] = add ? dx.row(t)[i] + d : d;
      }
    }
  }

  // Token t of each sequence stands at position t; pairs (i, i + n_pairs) turn. `turn` = -1 turns back, which is the
  // gradient.
  void rope(R x, const AttentionShape& shape, const RopeTable& table, int turn) {
    for (int64_t t = 0; t < x.n_rows; ++t) {
      const int64_t at = t % shape.n_positions * table.n_pairs;
      for (int64_t head = 0; head < x.n_cols / shape.head_dim; ++head) {
        Real *const a = x.row(t) + head * shape.head_dim, *const b = a + table.n_pairs;
        for (int64_t i = 0; i < table.n_pairs; ++i) {
          const Real c = table.cos[at + i], s = Real(turn) * table.sin[at + i], first = a[i];
          a[i] = first * c - b[i] * s;
          b[i] = b[i] * c + first * s;
        }
      }
    }
  }

  void attention(const AttentionShape& shape, R q, R k, R v, R out) {
    std::vector<Real> p(static_cast<size_t>(shape.n_positions));
    for_queries(shape, [&](int64_t t, int64_t first, int64_t head, int64_t kv_head) {
      const int64_t n = t - first + 1;
      probabilities(shape, q.row(t) + head, k, first, kv_head, n, p);
      Real* const o = out.row(t) + head;
      std::fill_n(o, shape.head_dim, Real(0));
      for (int64_t j = 0; j < n; ++j) {
        for (int64_t i = 0; i < shape.head_dim; ++i) o[i] += p[size_t(j)] * v.row(first + j)[kv_head + i];
      }
    });
  }
  void attention_backward(const AttentionShape& shape, R q, R k, R v, R out, R dout, R dq, R dk, R dv) {
    std::fill_n(dq.data, dq.n_values(), Real(0));
    std::fill_n(dk.data, dk.n_values(), Real(0));
    std::fill_n(dv.data, dv.n_values(), Real(0));
    std::vector<Real> p(static_cast<size_t>(shape.n_positions));
    const Real scale = 1 / std::sqrt(Real(shape.head_dim));
    for_queries(shape, [&](int64_t t, int64_t first, int64_t head, int64_t kv_head) {
      const int64_t n = t - first + 1, d = shape.head_dim;
      probabilities(shape, q.row(t) + head, k, first, kv_head, n, p);
      const Real* const g = dout.row(t) + head;
      Real mean = 0;  // sum over positions of p dp
      for (int64_t i = 0; i < d; ++i) mean += g[i] * out.row(t)[head + i];
      for (int64_t j = 0; j < n; ++j) {
        Real dp = 0;
        for (int64_t i = 0; i < d; ++i) dp += g[i] * v.row(first + j)[kv_head + i];
        const Real ds = p[size_t(j)] * (dp - mean) * scale;
        for (int64_t i = 0; i < d; ++i) {
          dv.row(first + j)[kv_head + i] += p[size_t(j)] * g[i];
          dq.row(t)[head + i] += ds * k.row(first + j)[kv_head + i];
          dk.row(first + j)[kv_head + i] += ds * q.row(t)[head + i];
        }
      }
    });
  }

  void gate(GateActivation activation, R gate, R up, R out) {
    for (int64_t i = 0; i < gate.n_values(); ++i) {
      const Real g = gate.data[i];
      if (activation == GateActivation::kRelu2) {
        out.data[i] = g > 0 ? g * g * up.data[i] : 0;
      } else {
        out.data[i] = g / (1 + std::exp(-g)) * up.data[i];
      }
    }
  }
  // dgate and dup may be dout.
  void gate_backward(GateActivation activation, R gate, R up, R dout, R dgate, R dup) {
    for (int64_t i = 0; i < gate.n_values(); ++i) {
      const Real g = gate.data[i], u = up.data[i], d = dout.data[i];
      if (activation == GateActivation::kRelu2) {
        const Real positive = std::max(g, Real(0));
        dgate.data[i] = 2 * positive * u * d;
        dup.data[i] = positive * positive * d;
      } else {
        const Real s = 1 / (1 + std::exp(-g));
        dgate.data[i] = s * (1 + g * (1 - s)) * u * d;
        dup.data[i] = g * s * d;
      }
    }
  }

  void add(R x, R y) {
    for (int64_t i = 0; i < x.n_values(); ++i) y.data[i] += x.data[i];
  }

  // The head and its loss: the sum over tokens of -log softmax(x table^T)[target]; tokens whose target is negative do
  // not count. With dx, gradients of factor * loss: dx is written, dtable added to.
  double cross_entropy(R x, const Real* table, int64_t vocab_size, std::span<const int32_t> targets, Real factor, R dx,
                       Real* dtable) {
    std::vector<Real> logits(static_cast<size_t>(vocab_size));
    double loss = 0;
    if (dx.data != nullptr) std::fill_n(dx.data, dx.n_values(), Real(0));
    for (int64_t t = 0; t < x.n_rows; ++t) {
      const int32_t target = targets[size_t(t)];
      if (target < 0) continue;
      for (int64_t v = 0; v < vocab_size; ++v) {
        Real sum = 0;
        for (int64_t i = 0; i < x.n_cols; ++i) sum += x.row(t)[i] * table[v * x.n_cols + i];
        logits[size_t(v)] = sum;
      }
      const Real label = logits[size_t(target)], top = *std::max_element(logits.begin(), logits.end());
      Real z = 0;
      for (Real& logit : logits) z += logit = std::exp(logit - top);
      loss += double(std::log(z)) - double(label - top);
      if (dx.data == nullptr) continue;
      for (int64_t v = 0; v < vocab_size; ++v) {
        const Real d = (logits[size_t(v)] / z - Real(v == target)) * factor;
        for (int64_t i = 0; i < x.n_cols; ++i) {
          dx.row(t)[i] += d * table[v * x.n_cols + i];
          if (dtable != nullptr) dtable[v * x.n_cols + i] += d * x.row(t)[i];
        }
      }
    }
    return loss;
  }

  // The same with a teacher: dx and dtable get the gradients of factor * (cross-entropy + logits * divergence). A
  // divergence without weight is not computed.
  DistillationLoss distilled_cross_entropy(R x, const Real* table, int64_t vocab_size, std::span<const int32_t> targets,
                                           const TeacherHead<Real>& teacher, const DistillationOptions& options,
                                           Real factor, R dx, Real* dtable) {
    DistillationLoss loss;
    loss.cross_entropy = cross_entropy(x, table, vocab_size, targets, factor, dx, dtable);
    if (options.logits == 0) return loss;
    const Real temperature = Real(options.temperature), weight = Real(options.logits) * factor / temperature;
    std::vector<Real> own(static_cast<size_t>(vocab_size)), aim(own.size());
    const auto log_softmax = [&](const Real* row, const Real* head, int64_t n_cols, std::vector<Real>& out) {
      for (int64_t v = 0; v < vocab_size; ++v) {
        Real sum = 0;
        for (int64_t i = 0; i < n_cols; ++i) sum += row[i] * head[v * n_cols + i];
        out[size_t(v)] = sum / temperature;
      }
      to_log_softmax(out.data(), vocab_size);
    };
    for (int64_t t = 0; t < x.n_rows; ++t) {
      if (targets[size_t(t)] < 0) continue;
      log_softmax(x.row(t), table, x.n_cols, own);
      log_softmax(teacher.x.row(t), teacher.table, teacher.x.n_cols, aim);
      for (int64_t v = 0; v < vocab_size; ++v) {
        const Real p = std::exp(aim[size_t(v)]), d = (std::exp(own[size_t(v)]) - p) * weight;
        loss.logits += double(p * (aim[size_t(v)] - own[size_t(v)]));
        for (int64_t i = 0; i < x.n_cols; ++i) {
          dx.row(t)[i] += d * table[v * x.n_cols + i];
          dtable[v * x.n_cols + i] += d * x.row(t)[i];
        }
      }
    }
    return loss;
  }

  // Queries, keys or values of student and teacher, cut into `n_heads` each: the sum over the tokens t that count of
  // the mean over heads of KL(r(teacher) || r(student)), where r = softmax(a_t a_j^T / sqrt(cols of a head)) over j <=
  // t of its sequence. dx += the gradients of factor times that.
  double relations(const AttentionShape& shape, R x, R teacher, std::span<const int32_t> targets, int64_t n_heads,
                   Real factor, R dx) {
    const int64_t n_cols = x.n_cols / n_heads, teacher_cols = teacher.n_cols / n_heads;
    const Real scale = 1 / std::sqrt(Real(n_cols)), weight = factor / Real(n_heads) * scale;
    std::vector<Real> own(static_cast<size_t>(shape.n_positions)), aim(own.size());
    double loss = 0;
    for (int64_t t = 0; t < x.n_rows; ++t) {
      if (targets[size_t(t)] < 0) continue;
      const int64_t first = t - t % shape.n_positions, n = t - first + 1;
      for (int64_t head = 0; head < n_heads; ++head) {
        relation(x, first, n, head * n_cols, n_cols, own);
        relation(teacher, first, n, head * teacher_cols, teacher_cols, aim);
        for (int64_t j = 0; j < n; ++j) {
          const Real p = std::exp(aim[size_t(j)]), d = (std::exp(own[size_t(j)]) - p) * weight;
          loss += double(p * (aim[size_t(j)] - own[size_t(j)])) / double(n_heads);
          const int64_t at = head * n_cols;
          for (int64_t i = at; i < at + n_cols; ++i) {
            const Real a = x.row(t)[i], b = x.row(first + j)[i];
            dx.row(t)[i] += d * b;
            dx.row(first + j)[i] += d * a;
          }
        }
      }
    }
    return loss;
  }

 protected:
  Real mix(Real x, Real q) const { return quantization_.lambda == 1.0 ? q : x + Real(quantization_.lambda) * (q - x); }

 private:
  template <class Fn>
  void for_rows(int64_t n, const Fn& fn) {
    pool_.parallel_for(n, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) fn(i);
    });
  }

  // a x of all tokens, [n_rows, rank].
  static std::vector<Real> low_rank(const Input& x, const Adapter<Real>& adapter) {
    std::vector<Real> low(size_t(x.n_rows * adapter.rank));
    for (int64_t t = 0; t < x.n_rows; ++t) {
      for (int64_t r = 0; r < adapter.rank; ++r) {
        Real sum = 0;
        for (int64_t i = 0; i < x.n_cols; ++i) sum += adapter.a[r * x.n_cols + i] * x.values.row(t)[i];
        low[size_t(t * adapter.rank + r)] = sum;
      }
    }
    return low;
  }
  // dx is added to.
  static void adapter_backward(const Input& x, const Adapter<Real>& adapter, R dy, R dx, Real* da, Real* db) {
    const std::vector<Real> low = low_rank(x, adapter);
    for (int64_t t = 0; t < x.n_rows; ++t) {
      for (int64_t r = 0; r < adapter.rank; ++r) {
        Real dlow = 0;
        for (int64_t o = 0; o < dy.n_cols; ++o) {
          const Real g = adapter.scale * dy.row(t)[o];
          dlow += g * adapter.b[o * adapter.rank + r];
          db[o * adapter.rank + r] += g * low[size_t(t * adapter.rank + r)];
        }
        for (int64_t i = 0; i < x.n_cols; ++i) {
          da[r * x.n_cols + i] += dlow * x.values.row(t)[i];
          dx.row(t)[i] += dlow * adapter.a[r * x.n_cols + i];
        }
      }
    }
  }

  void quantize_group(Real* w, int64_t n, const Real* step) const {
    Real alpha;
    if (step != nullptr) {
      alpha = std::max(*step, Real(kScaleFloor));
    } else {
      double sum = 0;
      for (int64_t i = 0; i < n; ++i) sum += std::fabs(double(w[i]));
      alpha = std::max(Real(sum / double(n)), Real(kScaleFloor));
    }
    const Real levels = Real(quantization_.levels);
    if (quantization_.levels > 1) alpha /= std::sqrt(levels);
    const Real scale = 1 / alpha;
    for (int64_t i = 0; i < n; ++i) w[i] = mix(w[i], std::clamp(std::nearbyint(w[i] * scale), -levels, levels) * alpha);
  }

  // LSQ (Esser et al. 2020, equation 3 and section 2.2) with Q_N = Q_P = 1.
  void learned_step_backward(const Weight& weight, std::vector<Real>& gradient, Real* dstep) const {
    const Real scale = 1 / std::max(*weight.step, Real(kScaleFloor));
    double sum = 0;
    for (size_t i = 0; i < gradient.size(); ++i) {
      const Real v = weight.latent[i] * scale;
      const bool clipped = std::abs(v) >= 1;
      sum += double(gradient[i]) * double(clipped ? std::copysign(Real(1), v) : std::nearbyint(v) - v);
      if (clipped) gradient[i] *= Real(1 - quantization_.lambda);
    }
    *dstep += Real(sum * quantization_.lambda / std::sqrt(double(gradient.size())));
  }

  static Real root_mean_square(const Real* x, int64_t n, Real eps) {
    Real sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += x[i] * x[i];
    return std::sqrt(sum / Real(n) + eps);
  }

  static void to_log_softmax(Real* x, int64_t n) {
    const Real top = *std::max_element(x, x + n);
    Real z = 0;
    for (int64_t i = 0; i < n; ++i) z += std::exp(x[i] - top);
    const Real shift = top + std::log(z);
    for (int64_t i = 0; i < n; ++i) x[i] -= shift;
  }
  // Logarithms of what the last of `n` tokens is to each of them.
  static void relation(R x, int64_t first, int64_t n, int64_t column, int64_t n_cols, std::vector<Real>& out) {
    const Real* const a = x.row(first + n - 1) + column;
    for (int64_t j = 0; j < n; ++j) {
      Real sum = 0;
      for (int64_t i = 0; i < n_cols; ++i) sum += a[i] * x.row(first + j)[column + i];
      out[size_t(j)] = sum / std::sqrt(Real(n_cols));
    }
    to_log_softmax(out.data(), n);
  }

  // fn(token, first token of its sequence, column of its head in q, column of that head's keys in k).
  template <class Fn>
  static void for_queries(const AttentionShape& shape, const Fn& fn) {
    for (int64_t t = 0; t < shape.n_tokens(); ++t) {
      for (int64_t head = 0; head < shape.n_heads; ++head) {
        const int64_t kv_head = head / (shape.n_heads / shape.n_kv_heads);
        fn(t, t - t % shape.n_positions, head * shape.head_dim, kv_head * shape.head_dim);
      }
    }
  }
  static void probabilities(const AttentionShape& shape, const Real* q, R k, int64_t first, int64_t column, int64_t n,
                            std::vector<Real>& p) {
    const Real scale = 1 / std::sqrt(Real(shape.head_dim));
    Real top = -INFINITY, z = 0;
    for (int64_t j = 0; j < n; ++j) {
      Real sum = 0;
      for (int64_t i = 0; i < shape.head_dim; ++i) sum += q[i] * k.row(first + j)[column + i];
      p[size_t(j)] = sum * scale;
      top = std::max(top, p[size_t(j)]);
    }
    for (int64_t j = 0; j < n; ++j) z += p[size_t(j)] = std::exp(p[size_t(j)] - top);
    for (int64_t j = 0; j < n; ++j) p[size_t(j)] /= z;
  }

  ThreadPool& pool_;
  QuantizationOptions quantization_;
};

}  // namespace bitnet
