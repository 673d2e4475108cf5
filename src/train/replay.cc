#include "train/replay.h"

#include "kernels/backend.h"
#include "model/forward.h"
#include "train/core/graph.h"
#include "train/core/plain_ops.h"
#include "train/cpu/cpu_ops.h"
#include "train/replay_file.h"

#include <algorithm>
#include <cmath>
#include <span>

namespace bitnet {
namespace {

struct Difference {
  double relative = 0;
  std::string name;
};

// The tensor that differs most. Something that is not zero where nothing is recorded differs wholly.
Difference largest_difference(const ParameterLayout& layout, const std::vector<float>& recorded,
                              const std::vector<float>& ours) {
  Difference worst;
  for (const ParameterSlice& slice : layout.slices()) {
    double error = 0, norm = 0;
    for (int64_t i = slice.offset; i < slice.offset + slice.n_values; ++i) {
      const double a = recorded[size_t(i)], b = ours[size_t(i)];
      error += (a - b) * (a - b);
      norm += a * a;
    }
    const double relative = norm > 0 ? std::sqrt(error / norm) : error > 0 ? 1.0 : 0.0;
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

template <class Ops>
Result<ReplayReport> run(const ReplayFile& file, CpuOps& cpu, const RopeTable& rope, Ops& ops) {
  const ModelConfig& config = file.config();
  const ParameterLayout layout = ParameterLayout::make(config);
  BN_ASSIGN_OR_RETURN(std::vector<float> parameters, file.read("init", layout));
  BN_ASSIGN_OR_RETURN(const std::vector<float> recorded_gradients, file.read("grad0", layout));
  BN_ASSIGN_OR_RETURN(const std::vector<float> recorded_final, file.read("final", layout));
  BN_ASSIGN_OR_RETURN(const std::vector<int32_t> tokens, file.tokens());
  BN_ASSIGN_OR_RETURN(const std::vector<float> recorded_losses, file.losses());

  Graph<Ops> graph(config, layout, rope, ops, {file.n_sequences(), file.n_positions(), false});
  Optimizer optimizer(file.optimizer(), layout, cpu.kernels());
  using Real = typename Ops::Real;
  std::vector<float> gradients(parameters.size());
  std::vector<Real> p(parameters.size()), g(parameters.size());
  std::vector<int32_t> ids, targets;
  const size_t step_tokens = size_t(file.n_sequences() * (file.n_positions() + 1));
  const double n_targets = double(graph.n_tokens());
  ReplayReport report;
  for (int64_t step = 0; step < file.n_steps(); ++step) {
    split_tokens(std::span(tokens).subspan(size_t(step) * step_tokens, step_tokens), file.n_positions(), ids, targets);
    std::copy(parameters.begin(), parameters.end(), p.begin());
    std::fill(g.begin(), g.end(), Real(0));
    graph.prepare(p.data());
    const double loss = graph.backpropagate(ids, targets, Real(1 / n_targets), g.data()) / n_targets;
    std::transform(g.begin(), g.end(), gradients.begin(), [](Real value) { return float(value); });
    const double difference = std::fabs(loss - double(recorded_losses[size_t(step)]));
    report.losses.push_back(loss);
    report.max_loss_diff = difference > report.max_loss_diff || std::isnan(loss) ? difference : report.max_loss_diff;
    if (step == 0) {
      Difference worst = largest_difference(layout, recorded_gradients, gradients);
      report.max_grad_rel_diff = worst.relative;
      report.worst_grad = std::move(worst.name);
    }
    optimizer.update(cpu.pool(), {step + 1, file.lr(), file.weight_decay(), 1.0}, gradients.data(), parameters.data());
  }
  Difference worst = largest_difference(layout, recorded_final, parameters);
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
