#include "train/replay.h"

#include "kernels/backend.h"
#include "model/forward.h"
#include "tensor/reduce.h"
#include "train/core/graph.h"
#include "train/core/plain_ops.h"
#include "train/cpu/cpu_ops.h"
#include "train/replay_file.h"

#include <algorithm>
#include <cmath>
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
                                      const std::vector<Real>& ours) {
  Difference worst;
  for (const ParameterSlice& slice : layout.slices()) {
    const size_t begin = size_t(slice.offset), n = size_t(slice.n_values);
    BN_ASSIGN_OR_RETURN(const double relative, relative_error(TensorView::of(std::span(recorded).subspan(begin, n)),
                                                              TensorView::of(std::span(ours).subspan(begin, n))));
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

template <class Ops>
Result<ReplayReport> run(const ReplayFile& file, CpuOps& cpu, const RopeTable& rope, Ops& ops) {
  const ModelConfig& config = file.config();
  const ParameterLayout layout = ParameterLayout::make(config);
  BN_ASSIGN_OR_RETURN(const std::vector<float> first, file.read("init", layout));
  BN_ASSIGN_OR_RETURN(const std::vector<float> recorded_gradients, file.read("grad0", layout));
  BN_ASSIGN_OR_RETURN(const std::vector<float> recorded_final, file.read("final", layout));
  BN_ASSIGN_OR_RETURN(const std::vector<int32_t> tokens, file.tokens());
  BN_ASSIGN_OR_RETURN(const std::vector<float> recorded_losses, file.losses());

  Graph<Ops> graph(config, layout, rope, ops, {file.n_sequences(), file.n_positions(), false});
  using Real = typename Ops::Real;
  Optimizer optimizer(file.optimizer(), layout, cpu.kernels());
  DoubleAdamw double_adamw(file, layout);
  std::vector<Real> parameters(first.begin(), first.end()), gradients(first.size());
  std::vector<int32_t> ids, targets;
  const size_t step_tokens = size_t(file.n_sequences() * (file.n_positions() + 1));
  const double n_targets = double(graph.n_tokens());
  ReplayReport report;
  for (int64_t step = 0; step < file.n_steps(); ++step) {
    split_tokens(std::span(tokens).subspan(size_t(step) * step_tokens, step_tokens), file.n_positions(), ids, targets);
    std::fill(gradients.begin(), gradients.end(), Real(0));
    graph.prepare(parameters.data());
    const double loss = graph.backpropagate(ids, targets, Real(1 / n_targets), gradients.data()) / n_targets;
    const double difference = std::fabs(loss - double(recorded_losses[size_t(step)]));
    report.losses.push_back(loss);
    report.max_loss_diff = difference > report.max_loss_diff || std::isnan(loss) ? difference : report.max_loss_diff;
    if (step == 0) {
      BN_ASSIGN_OR_RETURN(Difference worst, largest_difference(layout, recorded_gradients, gradients));
      report.max_grad_rel_diff = worst.relative;
      report.worst_grad = std::move(worst.name);
    }
    if constexpr (std::is_same_v<Real, double>) {
      double_adamw.update(step + 1, gradients, parameters);
    } else {
      const UpdateRates rates{step + 1, file.lr(), file.weight_decay(), 1.0};
      optimizer.update(cpu.pool(), rates, gradients.data(), parameters.data());
    }
  }
  BN_ASSIGN_OR_RETURN(Difference worst, largest_difference(layout, recorded_final, parameters));
  report.max_final_rel_diff = worst.relative;
  report.worst_final = std::move(worst.name);
  return report;
}

}  // namespace

Result<ReplayReport> replay(const std::string& path, const ReplayOptions& options) {
  BN_ASSIGN_OR_RETURN(const ReplayFile file, ReplayFile::open(path));
  const ModelConfig& config = file.config();
  const AttentionShape shape{file.n_sequences(), file.n_positions(), config.n_heads, config.n_kv_heads,
                             config.head_dim};
  BN_ASSIGN_OR_RETURN(const std::unique_ptr<CpuOps> ops, CpuOps::create(config, shape, options.n_threads));
  BN_ASSIGN_OR_RETURN(const RopeTables rope, make_rope_tables(ops->backend(), config, file.n_positions()));
  switch (options.arithmetic) {
    case ReplayArithmetic::kDouble: {
      PlainOps<double> plain(ops->pool());
      return run(file, *ops, rope.view, plain);
    }
    case ReplayArithmetic::kFloat: {
      PlainOps<float> plain(ops->pool());
      return run(file, *ops, rope.view, plain);
    }
    case ReplayArithmetic::kKernels: break;
  }
  BN_ASSIGN_OR_RETURN(ReplayReport report, run(file, *ops, rope.view, *ops));
  BN_RETURN_IF_ERROR(ops->take_status());
  return report;
}

}  // namespace bitnet
