#include "runtime/observe_inputs.h"

#include "bitnet/session.h"
#include "kernels/observing_backend.h"
#include "model/checkpoint.h"
#include "model/model.h"
#include "quant/activations.h"
#include "runtime/model_matrices.h"
#include "runtime/perplexity.h"

#include <algorithm>
#include <memory>
#include <unordered_map>
#include <utility>

namespace bitnet {
namespace {

constexpr double kTopShare = 0.55;  // BitNet a4.8 keeps 55% of the down projection's inputs

void add_row(const float* x, InputStatistics& statistics, std::vector<int8_t>& q, std::vector<float>& approximation) {
  const int64_t n = statistics.n_cols;
  const std::span<const float> row(x, size_t(n));
  statistics.histogram.add(row);
  ++statistics.n_tokens;
  for (int64_t c = 0; c < n; ++c) statistics.mean_squares[size_t(c)] += double(x[c]) * double(x[c]);
  q.resize(size_t(n));
  approximation.resize(size_t(n));
  const auto meter = [&](const QuantizedRowInfo& info, ErrorMeter& error) {
    for (int64_t c = 0; c < n; ++c) approximation[size_t(c)] = float(q[size_t(c)]) * info.inv_scale;
    error.add(row, approximation);
  };
  meter(quantize_row_absmax(x, n, q.data()), statistics.int8);
  meter(quantize_row_int4(x, n, q.data()), statistics.int4);
  meter(quantize_row_topk(x, n, int64_t(kTopShare * double(n)), q.data()), statistics.topk);
}

}  // namespace

Result<std::vector<InputStatistics>> observe_inputs(const std::string& path, const ObserveOptions& options) {
  CheckpointOptions reading;
  reading.read_vocabulary = false;
  BN_ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::open(path, reading));
  BN_ASSIGN_OR_RETURN(std::unique_ptr<Backend> cpu, make_backend("cpu"));
  auto observing = std::make_unique<ObservingBackend>(std::move(cpu));
  ObservingBackend& backend = *observing;
  LoadOptions loading;
  loading.head = HeadMode::kFull;
  loading.n_threads = options.n_threads;
  MeasuringOptions measuring;
  measuring.backend = std::move(observing);
  BN_ASSIGN_OR_RETURN(const Model model, load_model(path, loading, std::move(measuring)));

  std::vector<InputStatistics> statistics;
  std::unordered_map<const Matrix*, size_t> places;
  const auto impl = std::const_pointer_cast<ModelImpl>(model.impl());
  for (const WeightSpec& spec : checkpoint.weights()) {
    if (spec.kind != WeightKind::kLinear) continue;
    places[matrix_of(*impl, spec).get()] = statistics.size();
    InputStatistics& entry = statistics.emplace_back();
    entry.weight = spec.gguf_name;
    entry.n_cols = spec.shape[1];
    entry.mean_squares.resize(size_t(entry.n_cols), 0.0);
  }
  std::vector<int8_t> q;
  std::vector<float> approximation;
  backend.observe([&](const Matrix& weight, MatrixView input) {
    const auto place = places.find(&weight);
    if (place == places.end()) return;
    for (int64_t t = 0; t < input.n_rows; ++t) add_row(input.row(t), statistics[place->second], q, approximation);
  });
  SessionOptions running;
  running.n_ctx = std::min(options.n_ctx, model.info().n_ctx_train);
  running.n_threads = options.n_threads;
  BN_ASSIGN_OR_RETURN(Session session, model.new_session(running));
  PerplexityOptions scoring;
  scoring.on_progress = [&](double done, const PerplexityResult&) {
    return !options.on_progress || options.on_progress(done);
  };
  BN_RETURN_IF_ERROR(perplexity(session, options.ids, scoring));
  for (InputStatistics& entry : statistics) {
    for (double& square : entry.mean_squares) square /= double(std::max<int64_t>(entry.n_tokens, 1));
  }
  return statistics;
}

}  // namespace bitnet
