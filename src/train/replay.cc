#include "train/replay.h"

#include "kernels/backend.h"
#include "model/forward.h"
#include "tensor/reduce.h"
#include "train/core/graph.h"
#include "train/core/plain_ops.h"
#include "train/cpu/cpu_ops.h"
#include "train/engine.h"
#include "train/replay_file.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <span>
#include <type_traits>

namespace bitnet {
namespace {

struct Difference {
  double relative = 0;
  std::string name;
};

// The tensor that differs most.
template <class Real>
Result<Difference> largest_difference(const ParameterLayout& layout, const std::vector<float>& recorded,
                                      std::span<const Real> ours) {
  Difference worst;
  for (const ParameterSlice& slice : layout.slices()) {
    const size_t begin = size_t(slice.offset), n = size_t(slice.n_values);
    BN_ASSIGN_OR_RETURN(const double relative, relative_error(TensorView::of(std::span(recorded).subspan(begin, n)),
                                                              TensorView::of(ours.subspan(begin, n))));
    if (relative > worst.relative || worst.name.empty() || std::isnan(relative)) {
      worst = {relative, ReplayFile::short_name(slice.spec)};
    }
  }
  return worst;
}

// Inputs and targets of one step from [n_sequences, n_positions + 1] tokens.
void split_tokens(std::span<const int32_t> tokens, int64_t n_positions, std::vector<int32_t>& ids,
                  std::vector<int32_t>& targets) {
  ids.clear();
  targets.clear();
  for (size_t at = 0; at < tokens.size(); at += size_t(n_positions) + 1) {
    const auto sequence = tokens.subspan(at, size_t(n_positions) + 1);
    ids.insert(ids.end(), sequence.begin(), sequence.end() - 1);
    targets.insert(targets.end(), sequence.begin() + 1, sequence.end());
  }
}

// AdamW as torch computes it, in double.
class DoubleAdamw {
 public:
  DoubleAdamw(const ReplayFile& file, const ParameterLayout& layout)
      : file_(file), layout_(layout), m_(size_t(layout.n_values())), v_(m_.size()) {}

  void update(int64_t step, const std::vector<double>& g, std::vector<double>& p) {
    const double rate = file_.lr() / (1 - std::pow(file_.beta1(), double(step)));
    const double root = std::sqrt(1 - std::pow(file_.beta2(), double(step)));
    for (const ParameterSlice& slice : layout_.slices()) {
      const double keep = slice.decays() ? 1 - file_.lr() * file_.weight_decay() : 1.0;
      for (size_t i = size_t(slice.offset); i < size_t(slice.offset + slice.n_values); ++i) {
        m_[i] = file_.beta1() * m_[i] + (1 - file_.beta1()) * g[i];
        v_[i] = file_.beta2() * v_[i] + (1 - file_.beta2()) * g[i] * g[i];
        p[i] = p[i] * keep - rate * m_[i] / (std::sqrt(v_[i]) / root + file_.eps());
      }
    }
  }

 private:
  const ReplayFile& file_;
  const ParameterLayout& layout_;
  std::vector<double> m_, v_;
};

// What a step asks of the arithmetic that repeats it. PlainRun: the loops of PlainOps, in double with AdamW in double.
template <class RealType>
class PlainRun {
 public:
  using Real = RealType;
  PlainRun(const ReplayFile& file, const ParameterLayout& layout, const RopeTable& rope, ThreadPool& pool,
           const CpuKernels& kernels, std::span<const float> first)
      : file_(file),
        pool_(pool),
        ops_(pool),
        graph_(file.config(), layout, rope, ops_, {file.n_sequences(), file.n_positions(), false}),
        optimizer_(file.optimizer(), layout, kernels),
        double_adamw_(file, layout),
        parameters_(first.begin(), first.end()),
        gradients_(first.size()) {}

  Result<double> backpropagate(std::span<const int32_t> ids, std::span<const int32_t> targets, double factor) {
    std::fill(gradients_.begin(), gradients_.end(), Real(0));
    graph_.prepare(parameters_.data());
    return graph_.backpropagate(ids, targets, Real(factor), gradients_.data());
  }
  Result<std::span<const Real>> gradients() { return std::span<const Real>(gradients_); }
  Result<std::span<const Real>> parameters() { return std::span<const Real>(parameters_); }
  Status update(const UpdateRates& rates) {
    if constexpr (std::is_same_v<Real, double>) {
      double_adamw_.update(rates.step, gradients_, parameters_);
    } else {
      optimizer_.update(pool_, rates, gradients_.data(), parameters_.data());
    }
    return ok();
  }

 private:
  const ReplayFile& file_;
  ThreadPool& pool_;
  PlainOps<Real> ops_;
  Graph<PlainOps<Real>> graph_;
  Optimizer optimizer_;
  DoubleAdamw double_adamw_;
  std::vector<Real> parameters_, gradients_;
};

// What training runs on.
class EngineRun {
 public:
  using Real = float;
  EngineRun(TrainEngine& engine, std::span<const float> first) : engine_(engine) {
    std::copy(first.begin(), first.end(), engine.parameters().begin());
  }

  Result<double> backpropagate(std::span<const int32_t> ids, std::span<const int32_t> targets, double factor) {
    if (!sent_) BN_RETURN_IF_ERROR(engine_.send());
    sent_ = true;
    BN_RETURN_IF_ERROR(engine_.prepare({}, false));
    BN_RETURN_IF_ERROR(engine_.begin_step());
    BN_RETURN_IF_ERROR(engine_.backpropagate(ids, targets, float(factor)));
    BN_ASSIGN_OR_RETURN(const StepSums sums, engine_.step_sums());
    return sums.loss;
  }
  Result<std::span<const float>> gradients() { return engine_.gradients(); }
  Result<std::span<const float>> parameters() {
    BN_RETURN_IF_ERROR(engine_.fetch());
    return std::span<const float>(engine_.parameters());
  }
  Status update(const UpdateRates& rates) { return engine_.update(rates); }

 private:
  TrainEngine& engine_;
  bool sent_ = false;
};

template <class Run>
Result<ReplayReport> repeat(const ReplayFile& file, const ParameterLayout& layout, Run& run) {
  BN_ASSIGN_OR_RETURN(const std::vector<float> recorded_gradients, file.read("grad0", layout));
  BN_ASSIGN_OR_RETURN(const std::vector<float> recorded_final, file.read("final", layout));
  BN_ASSIGN_OR_RETURN(const std::vector<int32_t> tokens, file.tokens());
  BN_ASSIGN_OR_RETURN(const std::vector<float> recorded_losses, file.losses());
  std::vector<int32_t> ids, targets;
  const size_t step_tokens = size_t(file.n_sequences() * (file.n_positions() + 1));
  const double n_targets = double(file.n_sequences() * file.n_positions());
  ReplayReport report;
  for (int64_t step = 0; step < file.n_steps(); ++step) {
    split_tokens(std::span(tokens).subspan(size_t(step) * step_tokens, step_tokens), file.n_positions(), ids, targets);
    BN_ASSIGN_OR_RETURN(const double sum, run.backpropagate(ids, targets, 1 / n_targets));
    const double loss = sum / n_targets, difference = std::fabs(loss - double(recorded_losses[size_t(step)]));
    report.losses.push_back(loss);
    report.max_loss_diff = difference > report.max_loss_diff || std::isnan(loss) ? difference : report.max_loss_diff;
    if (step == 0) {
      BN_ASSIGN_OR_RETURN(const std::span<const typename Run::Real> gradients, run.gradients());
      BN_ASSIGN_OR_RETURN(Difference worst, largest_difference(layout, recorded_gradients, gradients));
      report.max_grad_rel_diff = worst.relative;
      report.worst_grad = std::move(worst.name);
    }
    BN_RETURN_IF_ERROR(run.update({step + 1, file.lr(), file.weight_decay(), 1.0}));
  }
  BN_ASSIGN_OR_RETURN(const std::span<const typename Run::Real> parameters, run.parameters());
  BN_ASSIGN_OR_RETURN(Difference worst, largest_difference(layout, recorded_final, parameters));
  report.max_final_rel_diff = worst.relative;
  report.worst_final = std::move(worst.name);
  return report;
}

}  // namespace

Result<ReplayReport> replay(const std::string& path, const ReplayOptions& options) {
  BN_ASSIGN_OR_RETURN(const ReplayFile file, ReplayFile::open(path));
  const ModelConfig& config = file.config();
  const ParameterLayout layout = ParameterLayout::make(config);
  BN_ASSIGN_OR_RETURN(const std::vector<float> first, file.read("init", layout));
  const GraphOptions graph{file.n_sequences(), file.n_positions(), false};
  if (options.arithmetic == ReplayArithmetic::kKernels || options.device != "cpu") {
    EngineOptions engine_options;
    engine_options.device = options.device;
    engine_options.precision = options.precision;
    engine_options.n_threads = options.n_threads;
    engine_options.graph = graph;
    engine_options.optimizer = file.optimizer();
    BN_ASSIGN_OR_RETURN(const std::unique_ptr<TrainEngine> engine, make_train_engine(config, layout, engine_options));
    EngineRun run(*engine, first);
    return repeat(file, layout, run);
  }
  BN_ASSIGN_OR_RETURN(const std::unique_ptr<CpuOps> ops,
                      CpuOps::create(config, attention_shape(config, graph), options.n_threads));
  BN_ASSIGN_OR_RETURN(const RopeTables rope, make_rope_tables(ops->backend(), config, file.n_positions()));
  if (options.arithmetic == ReplayArithmetic::kDouble) {
    PlainRun<double> run(file, layout, rope.view, ops->pool(), ops->kernels(), first);
    return repeat(file, layout, run);
  }
  PlainRun<float> run(file, layout, rope.view, ops->pool(), ops->kernels(), first);
  return repeat(file, layout, run);
}

}  // namespace bitnet
