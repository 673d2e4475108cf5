#include "runtime/plan_precision.h"

#include "bitnet/session.h"
#include "kernels/cpu/dispatch.h"
#include "model/checkpoint.h"
#include "model/model.h"
#include "quant/blocks.h"
#include "quant/ternary.h"
#include "runtime/model_matrices.h"
#include "runtime/perplexity.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

namespace bitnet {
namespace {

class Measurer {
 public:
  Measurer(const Checkpoint& checkpoint, Model model, Session session, const PlanOptions& options)
      : checkpoint_(checkpoint),
        // Nobody else has seen this model, so its weights may be exchanged while no session runs.
        impl_(*std::const_pointer_cast<ModelImpl>(model.impl())),
        model_(std::move(model)),
        session_(std::move(session)),
        options_(options),
        pool_(options.n_threads > 0 ? options.n_threads : available_cpus()) {}

  Status run_baseline() {
    const int64_t vocab_size = model_.info().vocab_size;
    PerplexityOptions running;
    running.n_ctx = std::min(options_.n_ctx, session_.n_ctx());
    running.on_logits = [&](int64_t, std::span<const float> logits) {
      baseline_.insert(baseline_.end(), logits.begin(), logits.begin() + vocab_size);
      return true;
    };
    BN_ASSIGN_OR_RETURN(const PerplexityResult result, perplexity(session_, options_.ids, running));
    nll_ = result.nll;
    return ok();
  }
  double nll() const { return nll_; }

  Result<PlannedWeight> measure(const WeightSpec& spec) {
    PlannedWeight out;
    out.name = spec.gguf_name;
    out.shape = spec.shape;
    const bool table = spec.kind == WeightKind::kTable;
    LinearSource source;
    if (table) {
      BN_ASSIGN_OR_RETURN(source.weight, checkpoint_.table(spec));
    } else {
      BN_ASSIGN_OR_RETURN(source, checkpoint_.linear(spec));
    }
    std::vector<float> values;
    for (const QuantScheme& scheme : table ? options_.tables : options_.linears) {
      const auto bytes = bytes_of(spec, source, scheme);
      if (!bytes) continue;  // the shape does not fit
      SchemeEffect effect{scheme.text, *bytes, 0.0};
      const bool exact = scheme.kind == SchemeKind::kKeep || (source.ternary() && scheme.kind == SchemeKind::kTernary);
      const bool pointless = std::any_of(out.schemes.begin(), out.schemes.end(), [&](const SchemeEffect& other) {
        return other.kl == 0.0 && other.bytes <= effect.bytes;
      });
      if (pointless) continue;
      if (!exact) {
        if (values.empty()) BN_RETURN_IF_ERROR(read_values(source, values));
        BN_ASSIGN_OR_RETURN(effect.kl, effect_of(spec, scheme, values));
      }
      out.schemes.push_back(std::move(effect));
    }
    if (out.schemes.empty()) {
      return unsupported("{}: no scheme of those given fits {} {}", checkpoint_.path(), spec.gguf_name,
                         shape_string(spec.shape));
    }
    return out;
  }

 private:
  // What `bitnet quantize` would write, or nothing where it would refuse.
  std::optional<uint64_t> bytes_of(const WeightSpec& spec, const LinearSource& source,
                                   const QuantScheme& scheme) const {
    DType type = scheme.stored;
    if (scheme.kind == SchemeKind::kKeep) {
      const DType stored = checkpoint_.stored(spec).dtype;
      type = source.ternary() ? (is_ternary(stored) ? stored : DType::kI2_S) : stored;
    }
    const auto bytes = tensor_bytes(type, spec.shape);
    return bytes ? std::optional(*bytes) : std::nullopt;
  }

  Status read_values(const LinearSource& source, std::vector<float>& values) const {
    if (const auto* floats = std::get_if<FloatSource>(&source.weight)) {
      BN_ASSIGN_OR_RETURN(const uint64_t bytes, tensor_bytes(floats->dtype, {floats->n_rows, floats->n_cols}));
      std::vector<std::byte> stored(bytes);
      BN_RETURN_IF_ERROR(floats->read_rows(0, floats->n_rows, stored.data()));
      values.resize(size_t(floats->n_rows * floats->n_cols));
      return dequantize_rows(floats->dtype, stored, floats->n_rows, floats->n_cols, values.data());
    }
    const auto& ternary = std::get<TernarySource>(source.weight);
    std::vector<uint8_t> codes(size_t(ternary.n_rows * ternary.n_cols));
    BN_RETURN_IF_ERROR(ternary.read_codes(0, ternary.n_rows, codes.data()));
    values.resize(codes.size());
    for (int64_t i = 0; i < int64_t(codes.size()); ++i) {
      const float alpha = ternary_scale_at(ternary.scales, ternary.n_cols, i / ternary.n_cols, i % ternary.n_cols);
      values[size_t(i)] = alpha * float(int(codes[size_t(i)]) - 1);
    }
    return ok();
  }

  // As a back end gets it from a file of that type.
  Result<std::unique_ptr<Matrix>> prepare(const WeightSpec& spec, const QuantScheme& scheme,
                                          std::span<const float> values) {
    const int64_t n_rows = spec.shape[0], n_cols = spec.shape[1];
    BN_ASSIGN_OR_RETURN(const std::vector<std::byte> bytes,
                        quantize_by_scheme(scheme, values, n_rows, n_cols, cpu_ternary_codecs()));
    const auto layout = layout_of_dtype(scheme.stored);
    if (layout && spec.kind == WeightKind::kLinear) {
      const TernaryView view{*layout, n_rows, n_cols, bytes};
      TernarySource source;
      source.n_rows = n_rows;
      source.n_cols = n_cols;
      BN_ASSIGN_OR_RETURN(source.scales, ternary_scales(view));
      source.read_codes = [&view](int64_t begin, int64_t n, uint8_t* codes) {
        return decode_ternary(view, begin, n, codes, cpu_ternary_codecs());
      };
      return impl_.backend->prepare(source, pool_);
    }
    std::vector<float> approximation(values.size());
    BN_RETURN_IF_ERROR(dequantize_stored(scheme.stored, bytes, n_rows, n_cols, approximation.data()));
    FloatSource source;
    source.dtype = DType::kF32;
    source.n_rows = n_rows;
    source.n_cols = n_cols;
    source.read_rows = [&](int64_t begin, int64_t n, std::byte* out) -> Status {
      std::memcpy(out, approximation.data() + begin * n_cols, size_t(n * n_cols) * sizeof(float));
      return ok();
    };
    return impl_.backend->prepare(source, pool_);
  }

  Result<double> effect_of(const WeightSpec& spec, const QuantScheme& scheme, std::span<const float> values) {
    BN_ASSIGN_OR_RETURN(std::unique_ptr<Matrix> matrix, prepare(spec, scheme, values));
    std::unique_ptr<Matrix>& place = matrix_of(impl_, spec);
    std::swap(place, matrix);
    auto kl = divergence();
    std::swap(place, matrix);
    return kl;
  }

  Result<double> divergence() {
    const size_t vocab_size = size_t(model_.info().vocab_size);
    double sum = 0;
    size_t at = 0;
    PerplexityOptions running;
    running.n_ctx = std::min(options_.n_ctx, session_.n_ctx());
    running.on_logits = [&](int64_t, std::span<const float> logits) {
      sum += kl_divergence(std::span(baseline_).subspan(at, vocab_size), logits.first(vocab_size));
      at += vocab_size;
      return true;
    };
    BN_ASSIGN_OR_RETURN(const PerplexityResult result, perplexity(session_, options_.ids, running));
    return std::max(0.0, sum / double(result.n_tokens));
  }

  const Checkpoint& checkpoint_;
  ModelImpl& impl_;
  Model model_;
  Session session_;
  const PlanOptions& options_;
  ThreadPool pool_;
  std::vector<float> baseline_;  // logits of every scored token
  double nll_ = 0;
};

}  // namespace

Result<PrecisionPlan> plan_precision(const std::string& path, const PlanOptions& options) {
  CheckpointOptions reading;
  reading.read_vocabulary = false;
  BN_ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::open(path, reading));
  LoadOptions loading;
  loading.head = HeadMode::kFull;
  loading.sparse_ffn = false;  // weights are exchanged for others that are laid out for whole products
  loading.n_threads = options.n_threads;
  BN_ASSIGN_OR_RETURN(Model model, Model::load(path, loading));
  SessionOptions running;
  running.n_ctx = std::min(options.n_ctx, model.info().n_ctx_train);
  running.n_threads = options.n_threads;
  BN_ASSIGN_OR_RETURN(Session session, model.new_session(running));
  Measurer measurer(checkpoint, std::move(model), std::move(session), options);
  BN_RETURN_IF_ERROR(measurer.run_baseline());
  PrecisionPlan plan;
  plan.nll = measurer.nll();
  uint64_t kept_bytes = 0;
  int64_t n_done = 0;
  const int64_t n_all = int64_t(checkpoint.weights().size());
  for (const WeightSpec& spec : checkpoint.weights()) {
    if (spec.kind == WeightKind::kVector) {
      kept_bytes += uint64_t(spec.n_values()) * sizeof(float);
    } else {
      BN_ASSIGN_OR_RETURN(PlannedWeight weight, measurer.measure(spec));
      plan.weights.push_back(std::move(weight));
    }
    if (options.on_progress && !options.on_progress(double(++n_done) / double(n_all))) {
      return make_error(ErrorCode::kInterrupted, "stopped on request after {} of {} weights", n_done, n_all);
    }
  }
  uint64_t smallest = kept_bytes;
  for (const PlannedWeight& weight : plan.weights) {
    uint64_t least = UINT64_MAX;
    for (const SchemeEffect& effect : weight.schemes) least = std::min(least, effect.bytes);
    smallest += least;
  }
  const auto chosen = options.budget_bytes > kept_bytes
                          ? choose_schemes(plan.weights, options.budget_bytes - kept_bytes)
                          : std::nullopt;
  if (!chosen) {
    Error error =
        invalid_argument("a budget of {} bytes, but the smallest schemes take {}", options.budget_bytes, smallest);
    error.suggestion = "raise the budget or allow smaller schemes";
    return error;
  }
  plan.bytes = kept_bytes;
  for (size_t i = 0; i < chosen->size(); ++i) {
    plan.weights[i].chosen = (*chosen)[i];
    plan.bytes += plan.weights[i].choice().bytes;
    plan.kl += plan.weights[i].choice().kl;
  }
  return plan;
}

}  // namespace bitnet
