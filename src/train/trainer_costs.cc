#include "train/trainer.h"

// What a training run takes, before it is begun.
namespace bitnet {
namespace {

// Of queries, keys and values together.
int64_t heads_cols(const ModelConfig& c) { return (c.n_heads + 2 * c.n_kv_heads) * c.head_dim; }

// That a token is multiplied with.
double n_multiplied(const ModelConfig& c) {
  double n = double(c.vocab_size * c.d_model);  // of the head
  for (const WeightSpec& spec : list_weights(c)) {
    if (spec.kind == WeightKind::kLinear) n += double(spec.n_values());
  }
  return n;
}
// Of a forward pass, a token; half of the positions are seen, twice.
double forward_flops(const ModelConfig& c, int64_t n_ctx) {
  return 2 * n_multiplied(c) + 2 * double(c.n_layers * c.n_heads * c.head_dim) * double(n_ctx);
}

}  // namespace

int64_t Trainer::n_parameters() const {
  return layout_.n_parameters() + (trains_adapter() ? count_parameters(config_) : 0);
}

double Trainer::flops_per_token() const {
  const double forward = forward_flops(config_, options_.n_ctx);
  const std::optional<TeacherCost> teacher = teacher_cost();
  const double all = 3 * forward + (teacher ? teacher->flops_per_token : 0.0);  // backward twice as much
  if (!trains_adapter()) return all;
  return all - 2 * n_multiplied(config_) + 6 * double(layout_.n_parameters());  // frozen weights have no gradients
}

std::optional<Trainer::TeacherCost> Trainer::teacher_cost() const {
  if (teacher_ == nullptr) return std::nullopt;
  TeacherCost cost;
  cost.n_parameters = teacher_->layout.n_parameters();
  cost.memory_bytes = teacher_->parameters.size() * sizeof(float);
  cost.flops_per_token = forward_flops(teacher_->config, options_.n_ctx);
  if (distillation_.attention > 0) {  // relations of both, and the student's gradients
    cost.flops_per_token += 2 * double(options_.n_ctx) * double(2 * heads_cols(config_) + heads_cols(teacher_->config));
  }
  return cost;
}

uint64_t Trainer::memory_bytes() const {
  uint64_t bytes = (2 * engine_->parameters().size() + engine_->average().size()) * sizeof(float);
  bytes += engine_->frozen_bytes();
  for (const Optimizer::State& state : engine_->optimizer_states()) bytes += state.bytes.size();
  const std::optional<TeacherCost> teacher = teacher_cost();
  return bytes + (teacher ? teacher->memory_bytes : 0);
}

uint64_t Trainer::activation_bytes() const { return engine_->activation_bytes(); }

}  // namespace bitnet
