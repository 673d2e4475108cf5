#include "train/cpu/cpu_engine.h"

#include <algorithm>
#include <cmath>

namespace bitnet {

Result<std::unique_ptr<TrainEngine>> CpuEngine::create(const ModelConfig& config, const ParameterLayout& layout,
                                                       const EngineOptions& options) {
  const Teacher* const teacher = options.teacher;
  BN_ASSIGN_OR_RETURN(std::unique_ptr<CpuOps> ops,
                      CpuOps::create(config, attention_shape(config, options.graph), options.n_threads,
                                     teacher != nullptr ? &teacher->config : nullptr));
  BN_ASSIGN_OR_RETURN(RopeTables rope, make_rope_tables(ops->backend(), config, options.graph.n_positions));
  std::unique_ptr<CpuEngine> engine(new CpuEngine(config, layout, options, std::move(ops), std::move(rope)));
  if (const FrozenBase* const base = options.base) {
    BN_RETURN_IF_ERROR(
        engine->graph_.freeze(base->layout(), base->values().data(), options.lora_scale,
                              [base](WeightRole role, int64_t layer) { return base->linear(role, layer); }));
    BN_RETURN_IF_ERROR(engine->ops_->take_status());
  }
  if (teacher != nullptr) BN_RETURN_IF_ERROR(engine->learn_from(*teacher, options.graph));
  return std::unique_ptr<TrainEngine>(std::move(engine));
}

CpuEngine::CpuEngine(const ModelConfig& config, const ParameterLayout& layout, const EngineOptions& options,
                     std::unique_ptr<CpuOps> ops, RopeTables rope)
    : config_(config),
      layout_(layout),
      recompute_(options.graph.recompute),
      ops_(std::move(ops)),
      rope_(std::move(rope)),
      graph_(config, layout, rope_.view, *ops_, options.graph),
      distillation_(options.distillation),
      base_(options.base),
      optimizer_(options.optimizer, layout, ops_->kernels()),
      gradients_(size_t(layout.n_values())) {
  parameters_.resize(gradients_.size());
  if (options.keeps_average) average_.resize(gradients_.size());
}

// The teacher keeps one layer's activations at a time, and its weights as they are made here.
Status CpuEngine::learn_from(const Teacher& teacher, GraphOptions options) {
  options.recompute = true;
  BN_ASSIGN_OR_RETURN(RopeTables rope, make_rope_tables(ops_->backend(), teacher.config, options.n_positions));
  const RopeTable view = rope.view;
  teacher_ = std::make_unique<TeacherPass>(TeacherPass{
      &teacher.config, std::move(rope), Graph<CpuOps>(teacher.config, teacher.layout, view, *ops_, options)});
  teacher_->graph.prepare(teacher.parameters.data(), teacher.quantization);
  return ops_->take_status();
}

Status CpuEngine::prepare(const LayerQuantization& quantization, bool averaged) {
  graph_.prepare(averaged ? average_.data() : parameters_.data(), quantization);
  return ops_->take_status();
}

Result<double> CpuEngine::evaluate(std::span<const int32_t> ids, std::span<const int32_t> targets) {
  return graph_.evaluate(ids, targets);
}

Status CpuEngine::begin_step(int64_t) {
  std::fill(gradients_.begin(), gradients_.end(), 0.0f);
  sums_ = {};
  return ok();
}

Status CpuEngine::backpropagate(std::span<const int32_t> ids, std::span<const int32_t> targets, float factor) {
  if (teacher_ == nullptr) {
    sums_.loss += graph_.backpropagate(ids, targets, factor, gradients_.data());
    return ok();
  }
  const DistillationLoss loss = graph_.distill(ids, targets, teacher_->graph.teach(ids, distillation_.layer),
                                               distillation_, factor, gradients_.data());
  sums_.loss += loss.cross_entropy;
  sums_.logits_divergence += loss.logits;
  sums_.attention_divergence += loss.attention;
  return ok();
}

Result<StepSums> CpuEngine::step_sums() {
  constexpr int64_t kPart = 1 << 14;
  const int64_t n = int64_t(gradients_.size()), n_parts = (n + kPart - 1) / kPart;
  std::vector<double> sums(static_cast<size_t>(n_parts));
  ops_->pool().parallel_for(n_parts, [&](int64_t begin, int64_t end, int) {
    for (int64_t part = begin; part < end; ++part) {
      const int64_t at = part * kPart;
      sums[size_t(part)] = ops_->kernels().training.sum_squares(gradients_.data() + at, std::min(kPart, n - at));
    }
  });
  double sum = 0;
  for (const double part : sums) sum += part;
  sums_.gradient_norm = std::sqrt(sum);
  return sums_;
}

Status CpuEngine::update(const UpdateRates& rates) {
  optimizer_.update(ops_->pool(), rates, gradients_.data(), parameters_.data());
  return ok();
}

Status CpuEngine::move_average(float keep, float take) {
  ops_->pool().parallel_for(int64_t(average_.size()), [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      average_[size_t(i)] = keep * average_[size_t(i)] + take * parameters_[size_t(i)];
    }
  });
  return ok();
}

Result<CodeShares> CpuEngine::count_codes() {
  std::vector<uint8_t> codes;
  for (const ParameterSlice& slice : layout_.slices()) {
    if (slice.spec.kind != WeightKind::kLinear || slice.is_step) continue;
    const PoolVector<uint8_t>& own = graph_.linear(slice.spec.role, slice.spec.layer).codes;
    codes.insert(codes.end(), own.begin(), own.end());
  }
  int64_t n_flipped = 0;
  if (last_codes_.size() == codes.size()) {
    for (size_t i = 0; i < codes.size(); ++i) n_flipped += codes[i] != last_codes_[i];
  }
  const double n = double(std::max<size_t>(codes.size(), 1));
  const double n_zeros = double(std::count(codes.begin(), codes.end(), uint8_t{1}));
  last_codes_ = std::move(codes);
  return CodeShares{double(n_flipped) / n, n_zeros / n};
}

Result<TernaryLinear> CpuEngine::linear(const WeightSpec& spec) {
  const CpuOps::Weight& weight = graph_.linear(spec.role, spec.layer);
  return TernaryLinear{weight.codes, weight.alpha};
}

uint64_t CpuEngine::frozen_bytes() const {
  if (base_ == nullptr) return 0;
  uint64_t bytes = base_->values().size() * sizeof(float);
  for (const WeightSpec& spec : list_weights(config_)) {
    if (spec.kind != WeightKind::kLinear) continue;
    const CpuOps::Weight& weight = graph_.linear(spec.role, spec.layer);
    bytes += weight.matrix->size_bytes() + weight.panels.size() * sizeof(int16_t);
  }
  return bytes;
}

uint64_t CpuEngine::activation_bytes() const {
  const auto bytes = [&](const ModelConfig& c, int64_t n_states, int64_t n_inputs) {
    const int64_t q_cols = c.n_heads * c.head_dim, kv_cols = c.n_kv_heads * c.head_dim;
    const int64_t floats = c.d_model + 2 * q_cols + 2 * kv_cols + 2 * c.d_ff;
    const int64_t codes = quantized_stride(c.d_model) * 2 + quantized_stride(q_cols) + quantized_stride(c.d_ff);
    const int64_t a_layer = floats * int64_t{sizeof(float)} + codes;
    return uint64_t(graph_.n_tokens() * (a_layer * n_states + n_inputs * c.d_model * int64_t{sizeof(float)}));
  };
  const uint64_t own = bytes(config_, recompute_ ? 1 : config_.n_layers, config_.n_layers);
  return teacher_ == nullptr ? own : own + bytes(*teacher_->config, 2, 2);
}

}  // namespace bitnet
