#include "kernels/cuda/cuda_fused_state.h"

#include <algorithm>
#include <utility>

// Where a step's time goes: each kind of kernels alone in a graph of all layers.
namespace bitnet {
namespace {

constexpr int kRuns = 10;

// Seconds of one launch of `graph`, the mean of several.
Result<double> time_graph(cudaGraphExec_t graph, cudaStream_t stream) {
  cudaEvent_t events[2] = {};
  for (cudaEvent_t& event : events) BN_CUDA_RETURN_IF_ERROR(cudaEventCreate(&event), "making an event");
  cudaError_t error = cudaGraphLaunch(graph, stream);
  if (error == cudaSuccess) error = cudaEventRecord(events[0], stream);
  for (int i = 0; i < kRuns && error == cudaSuccess; ++i) error = cudaGraphLaunch(graph, stream);
  if (error == cudaSuccess) error = cudaEventRecord(events[1], stream);
  if (error == cudaSuccess) error = cudaStreamSynchronize(stream);
  float milliseconds = 0;
  if (error == cudaSuccess) error = cudaEventElapsedTime(&milliseconds, events[0], events[1]);
  for (cudaEvent_t event : events) (void)cudaEventDestroy(event);
  BN_CUDA_RETURN_IF_ERROR(error, "measuring a graph");
  return double(milliseconds) / 1e3 / kRuns;
}

}  // namespace

Result<std::vector<StepPhase>> CudaFused::measure(Stream& stream, std::span<const SequencePart> parts,
                                                  const RopeTable& rope) const {
  BN_RETURN_IF_ERROR(backend_.enter());
  CudaStream& cuda_stream = static_cast<CudaStream&>(stream);
  State& state = static_cast<State&>(*cuda_stream.fused);
  std::vector<BestToken> best(parts.size());
  BN_RETURN_IF_ERROR(step_best(stream, parts, rope, best));  // the step's inputs are there from now on
  const bool token = is_token(parts, rope);
  const Step step = plan_rows(state, parts, rope);
  const Reach reach = token ? this->reach(state, parts[0].first_position) : kMany;
  uint64_t n_rows = 0, cache_bytes = 0;
  for (const SequencePart& part : parts) {
    n_rows += part.ids.size();
    const KvLayer& kv = part.kv[0];
    cache_bytes +=
        2 * uint64_t(kv.n_kv_heads * cuda_cache(kv).row_bytes) * (uint64_t(part.first_position) + part.ids.size());
  }
  // The single token's step has moved on.
  state.start->token = parts[0].ids[0];
  state.start->position = int32_t(parts[0].first_position);
  const auto reset = [&] {
    return cudaMemcpyAsync(state.control, state.start, sizeof(cuda::StepControl), cudaMemcpyHostToDevice,
                           cuda_stream.get());
  };
  std::vector<StepPhase> phases;
  const auto add = [&](std::string name, uint64_t bytes, uint64_t ops, const auto& launch) -> Status {
    cudaGraphExec_t graph = nullptr;
    Status captured = capture(cuda_stream, graph, launch);
    state.kinds = ~0u;
    BN_RETURN_IF_ERROR(std::move(captured));
    BN_CUDA_RETURN_IF_ERROR(reset(), "copying a token to the device");
    const Result<double> seconds = time_graph(graph, cuda_stream.get());
    (void)cudaGraphExecDestroy(graph);
    if (!seconds) return seconds.error();
    phases.push_back({std::move(name), *seconds, bytes, ops});
    return ok();
  };
  const auto add_kind = [&](std::string name, Kind kind, uint64_t bytes, uint64_t ops) {
    state.kinds = kind;
    return add(std::move(name), bytes, ops, [&] {
      return token ? launch_token(cuda_stream, state, parts[0].kv, rope, reach) : launch_rows(cuda_stream, state, step);
    });
  };
  const auto product = [&](auto... matrix) {
    std::pair<uint64_t, uint64_t> bytes_ops = {0, 0};
    for (const LayerGraph& layer : graph_.layers) {
      bytes_ops.first += (uint64_t((layer.*matrix)->size_bytes()) + ...);
      bytes_ops.second += 2 * n_rows * (uint64_t((layer.*matrix)->n_rows() * (layer.*matrix)->n_cols()) + ...);
    }
    return bytes_ops;
  };
  const auto add_product = [&](std::string name, Kind kind, auto... matrix) {
    const auto [bytes, ops] = product(matrix...);
    return add_kind(std::move(name), kind, bytes, ops);
  };
  cache_bytes *= graph_.layers.size();
  BN_RETURN_IF_ERROR(add_kind("embedding", kEmbed, 0, 0));
  if (token && reach == kOneKernel) {
    const auto [bytes, ops] = product(&LayerGraph::q, &LayerGraph::k, &LayerGraph::v, &LayerGraph::o, &LayerGraph::gate,
                                      &LayerGraph::up, &LayerGraph::down);
    BN_RETURN_IF_ERROR(add_kind("layers", kLayers, bytes + cache_bytes, ops));
  } else {
    if (!token) BN_RETURN_IF_ERROR(add_kind("norms and codes", kCodes, 0, 0));
    BN_RETURN_IF_ERROR(add_product("q, k, v", kQkv, &LayerGraph::q, &LayerGraph::k, &LayerGraph::v));
    BN_RETURN_IF_ERROR(add_kind("attention", kAttention, cache_bytes, 0));
    BN_RETURN_IF_ERROR(add_product("o", kO, &LayerGraph::o));
    BN_RETURN_IF_ERROR(add_product("gate, up", kGate, &LayerGraph::gate, &LayerGraph::up));
    BN_RETURN_IF_ERROR(add_product("down", kDown, &LayerGraph::down));
  }
  BN_RETURN_IF_ERROR(add_kind("all of these together", Kind(~0u), 0, 0));
  const uint64_t head_bytes = graph_.head->bytes_per_product();
  const auto launch_head = [&]() -> Status {
    cuda::TokenHead head = head_of(state, state.x);
    if (token) {
      head.control = state.control;
      head.results = state.token_results;
    } else if (has_sketch()) {
      head.n_tokens = int(std::min<size_t>(parts.size(), size_t(state.head_rows)));
      BN_CUDA_RETURN_IF_ERROR(cuda::best_of_head(launcher(cuda_stream), head, 1), kStartingKernel);
      return ok();
    }
    return launch_best(launcher(cuda_stream), head);
  };
  const uint64_t head_rows = token ? 1 : std::min<uint64_t>(parts.size(), uint64_t(state.head_rows));
  BN_RETURN_IF_ERROR(add(head_rows == 1 ? "head" : fmt::format("head of {}", head_rows), head_bytes,
                         has_sketch() ? 4 * uint64_t(graph_.head->n_rows() * graph_.head->n_cols()) * head_rows : 0,
                         launch_head));
  state.last_position = -1;
  state.ahead = false;
  return phases;
}

}  // namespace bitnet
