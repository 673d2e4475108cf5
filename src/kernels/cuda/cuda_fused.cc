#include "kernels/cuda/cuda_fused.h"

#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/cuda_fused_state.h"

#include <algorithm>
#include <utility>

namespace bitnet {
std::unique_ptr<CudaFused> CudaFused::create(const CudaBackend& backend, const ModelGraph& graph) {
  const auto takes = [](const Matrix* matrix) {
    return cuda::vector_product_takes(weights_of(matrix)) && cuda::normed_codes_takes(matrix->n_cols());
  };
  for (const LayerGraph& layer : graph.layers) {
    if (!takes(layer.q) || !takes(layer.k) || !takes(layer.v) || !takes(layer.o) || !takes(layer.gate) ||
        !takes(layer.up) || !takes(layer.down)) {
      return nullptr;
    }
  }
  if (!cuda::token_head_takes(table_of(graph.head))) return nullptr;
  return std::unique_ptr<CudaFused>(new CudaFused(backend, graph));
}

Result<std::unique_ptr<FusedState>> CudaFused::new_state(const StreamOptions& options) const {
  auto state = std::make_unique<State>();
  state->max_tokens = options.max_tokens;
  size_t n_floats = 0;
  const auto lay_out = [&](float* base) {
    n_floats = 0;
    const auto place = [&](float*& array, int64_t n) {
      array = base == nullptr ? nullptr : base + n_floats;
      n_floats += size_t((n + 63) / 64 * 64);
    };
    place(state->x, graph_.d_model);
    place(state->q, d_q());
    place(state->k, d_kv());
    place(state->v, d_kv());
    place(state->attn, d_q());
    place(state->act, graph_.d_ff);
    place(state->logits, graph_.vocab_size);
    place(state->normed, graph_.d_model);
    const int64_t n = state->max_tokens, blocks = cuda::n_tiles(n, cuda::kTokenBlock);
    const int64_t widest = std::max({graph_.d_model, d_q(), graph_.d_ff});
    place(state->xs, n * graph_.d_model);
    place(state->qs, n * d_q());
    place(state->ks, n * d_kv());
    place(state->vs, n * d_kv());
    place(state->attns, n * d_q());
    place(state->acts, n * graph_.d_ff);
    place(state->q_halves, n * d_q() / 2 + 1);
    place(state->codes, blocks * cuda::kTokenBlock * cuda::n_tiles(widest, cuda::kTileCols) * cuda::kTileCols / 4);
    place(state->inv_scales, n);
    place(state->sums, n);
  };
  lay_out(nullptr);
  BN_ASSIGN_OR_RETURN(state->memory, backend_.allocate(n_floats * sizeof(float) + sizeof(cuda::StepControl)));
  lay_out(state->memory.as<float>());
  state->control = reinterpret_cast<cuda::StepControl*>(state->memory.as<float>() + n_floats);
  BN_ASSIGN_OR_RETURN(state->results,
                      backend_.allocate_pinned(2 * sizeof(cuda::StepResult) + sizeof(cuda::StepControl)));
  state->start = state->results.as<cuda::StepControl>();
  state->result = reinterpret_cast<cuda::StepResult*>(state->start + 1);
  for (cudaEvent_t& event : state->done) {
    BN_CUDA_RETURN_IF_ERROR(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "making an event");
  }
  return std::unique_ptr<FusedState>(std::move(state));
}

bool CudaFused::takes(std::span<const SequencePart> parts) const { return parts.size() == 1; }

Status CudaFused::step(Stream& stream, std::span<const SequencePart> parts, const RopeTable& rope, int64_t n_best,
                       MatrixView logits) const {
  BN_RETURN_IF_ERROR(backend_.enter());
  CudaStream& cuda_stream = static_cast<CudaStream&>(stream);
  State& state = static_cast<State&>(*cuda_stream.fused);
  const SequencePart& part = parts[0];
  const bool alone =
      part.ids.size() == 1 && cuda::token_attention_takes(cuda_cache(part.kv[0]), {rope.cos, rope.sin, rope.n_pairs});
  return alone ? token_step(cuda_stream, state, part, rope, n_best, logits)
               : prompt_step(cuda_stream, state, part, rope, n_best, logits);
}

Status CudaFused::token_step(CudaStream& stream, State& state, const SequencePart& part, const RopeTable& rope,
                             int64_t n_best, MatrixView logits) const {
  const int32_t id = part.ids[0];
  const int64_t position = part.first_position;
  const bool follows = position == state.last_position + 1 && id == state.last_best;
  if (state.graph_kv != part.kv[0].k || state.graph_rope != rope.cos) {
    BN_RETURN_IF_ERROR(capture(stream, state, part.kv, rope));
  }
  cudaGraphExec_t const graph = state.graphs[n_best == 1];
  const auto launch = [&](int64_t at) -> Status {
    BN_CUDA_RETURN_IF_ERROR(cudaGraphLaunch(graph, stream.get()), "starting a token's graph");
    BN_CUDA_RETURN_IF_ERROR(cudaEventRecord(state.done[at % 2], stream.get()), "recording an event");
    return ok();
  };
  if (!(follows && state.ahead && n_best == 1)) {
    // What may still run with the last start has taken it: its result was waited for.
    state.start->token = id;
    state.start->position = int32_t(position);
    BN_CUDA_RETURN_IF_ERROR(
        cudaMemcpyAsync(state.control, state.start, 2 * sizeof(int32_t), cudaMemcpyHostToDevice, stream.get()),
        "copying a token to the device");
    BN_RETURN_IF_ERROR(launch(position));
  }
  state.ahead = follows && n_best == 1 && position + 1 < part.kv[0].n_ctx;
  if (state.ahead) BN_RETURN_IF_ERROR(launch(position + 1));
  BN_CUDA_RETURN_IF_ERROR(cudaEventSynchronize(state.done[position % 2]), "computing a token");
  const cuda::StepResult result = state.result[position % 2];
  state.last_position = position;
  state.last_best = result.id;
  if (logits.n_rows == 0) return ok();
  if (n_best == 1) {
    put_best(result, logits.data, logits.n_cols);
    return ok();
  }
  return backend_.fetch(stream, state.logits, std::as_writable_bytes(std::span(logits.data, size_t(logits.n_cols))));
}

Status CudaFused::capture(CudaStream& stream, State& state, std::span<const KvLayer> kv, const RopeTable& rope) const {
  state.graph_kv = nullptr;
  for (const bool best_only : {false, true}) {
    cudaGraphExec_t& graph = state.graphs[best_only];
    if (graph != nullptr) (void)cudaGraphExecDestroy(std::exchange(graph, nullptr));
    BN_CUDA_RETURN_IF_ERROR(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeThreadLocal),
                            "recording a graph");
    Status launched = launch_token(stream, state, kv, rope, best_only);
    cudaGraph_t recorded = nullptr;
    const cudaError_t ended = cudaStreamEndCapture(stream.get(), &recorded);
    BN_RETURN_IF_ERROR(std::move(launched));
    BN_CUDA_RETURN_IF_ERROR(ended, "recording a graph");
    const cudaError_t made = cudaGraphInstantiate(&graph, recorded, 0);
    (void)cudaGraphDestroy(recorded);
    BN_CUDA_RETURN_IF_ERROR(made, "making a graph");
  }
  state.graph_kv = kv[0].k;
  state.graph_rope = rope.cos;
  return ok();
}

Status CudaFused::launch_token(CudaStream& stream, State& state, std::span<const KvLayer> kv, const RopeTable& rope,
                               bool best_only) const {
  const cuda::Launcher launcher{stream.get(), backend_.hopper(), backend_.n_multiprocessors()};
  const auto product = [&](const float* x, const float* norm, cuda::Epilogue epilogue,
                           std::initializer_list<cuda::Segment> segments, const Matrix* first) {
    cuda::VectorProduct call;
    call.x = x;
    call.norm = norm;
    call.eps = graph_.rms_eps;
    call.n_cols = int(weights_of(first).n_cols);
    call.n_col_tiles = int(weights_of(first).n_col_tiles);
    for (const cuda::Segment& s : segments) call.segments[call.n_segments++] = s;
    call.epilogue = epilogue;
    return cuda::vector_product(launcher, call);
  };
  constexpr const char* kDoing = "starting a kernel";
  BN_CUDA_RETURN_IF_ERROR(cuda::token_embedding(launcher, table_of(graph_.embedding), state.control, state.x), kDoing);
  const cuda::Epilogue gate =
      graph_.gate_activation == GateActivation::kRelu2 ? cuda::Epilogue::kGateRelu2 : cuda::Epilogue::kGateSilu;
  for (size_t i = 0; i < graph_.layers.size(); ++i) {
    const LayerGraph& layer = graph_.layers[i];
    BN_CUDA_RETURN_IF_ERROR(
        product(state.x, layer.attn_norm, cuda::Epilogue::kStore,
                {segment(layer.q, state.q), segment(layer.k, state.k), segment(layer.v, state.v)}, layer.q),
        kDoing);
    cuda::TokenAttention attention;
    attention.q = state.q;
    attention.k = state.k;
    attention.v = state.v;
    attention.cache = cuda_cache(kv[i]);
    attention.rope = {rope.cos, rope.sin, rope.n_pairs};
    attention.n_heads = int(graph_.n_heads);
    attention.control = state.control;
    attention.out = state.attn;
    BN_CUDA_RETURN_IF_ERROR(cuda::token_attention(launcher, attention), kDoing);
    BN_CUDA_RETURN_IF_ERROR(
        product(state.attn, layer.attn_sub_norm, cuda::Epilogue::kAdd, {segment(layer.o, state.x)}, layer.o), kDoing);
    BN_CUDA_RETURN_IF_ERROR(product(state.x, layer.ffn_norm, gate,
                                    {segment(layer.gate, state.act), segment(layer.up, state.act)}, layer.gate),
                            kDoing);
    BN_CUDA_RETURN_IF_ERROR(
        product(state.act, layer.ffn_sub_norm, cuda::Epilogue::kAdd, {segment(layer.down, state.x)}, layer.down),
        kDoing);
  }
  return launch_head(launcher, state, state.x, best_only);
}

Status CudaFused::launch_head(const cuda::Launcher& launcher, State& state, const float* x, bool best_only) const {
  cuda::TokenHead head;
  head.table = table_of(graph_.head);
  head.x = x;
  head.norm = graph_.output_norm;
  head.eps = graph_.rms_eps;
  head.logits = state.logits;
  head.normed = state.normed;
  head.sketch = static_cast<const CudaFloatMatrix*>(graph_.head)->sketch();
  head.control = state.control;
  head.result = state.result;
  const bool by_sketch = best_only && head.sketch.codes != nullptr;
  BN_CUDA_RETURN_IF_ERROR(by_sketch ? cuda::token_best(launcher, head) : cuda::token_head(launcher, head),
                          "starting a kernel");
  return ok();
}

}  // namespace bitnet
