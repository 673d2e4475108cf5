#include "kernels/cuda/cuda_fused.h"

#include "kernels/cuda/best_logits.h"
#include "kernels/cuda/cuda_fused_state.h"

#include <algorithm>

namespace bitnet {

std::unique_ptr<CudaFused> CudaFused::create(const CudaBackend& backend, const ModelGraph& graph,
                                             std::optional<GroupRank> group) {
  const auto takes = [](const Matrix* matrix) {
    const cuda::TernaryWeights& weights = weights_of(matrix);
    return cuda::vector_product_takes(weights) && cuda::batch_product_takes(weights) &&
           cuda::normed_codes_takes(matrix->n_cols());
  };
  for (const LayerGraph& layer : graph.layers) {
    if (!takes(layer.q) || !takes(layer.k) || !takes(layer.v) || !takes(layer.o) || !takes(layer.gate) ||
        !takes(layer.up) || !takes(layer.down)) {
      return nullptr;
    }
  }
  if (!cuda::token_head_takes(float_matrix(graph.head).table())) return nullptr;
  return std::unique_ptr<CudaFused>(new CudaFused(backend, graph, std::move(group)));
}

bool CudaFused::takes(std::span<const SequencePart> parts) const {
  const auto paged = [&](const SequencePart& part) {
    return !part.pages.empty() && part.kv.data() == parts[0].kv.data();
  };
  return parts.size() == 1 || (parts.size() <= size_t(kMaxParts) && std::all_of(parts.begin(), parts.end(), paged));
}

bool CudaFused::is_token(std::span<const SequencePart> parts, const RopeTable& rope) const {
  return !group_ && parts.size() == 1 && parts[0].ids.size() == 1 && parts[0].pages.empty() &&
         cuda::token_attention_takes({nullptr, backend_.hopper(), backend_.n_multiprocessors()},
                                     cuda_cache(parts[0].kv[0]), angles(rope), int(graph_.n_heads));
}

Status CudaFused::step(Stream& stream, std::span<const SequencePart> parts, const RopeTable& rope, int64_t n_best,
                       MatrixView logits) const {
  BN_RETURN_IF_ERROR(backend_.enter());
  CudaStream& cuda_stream = static_cast<CudaStream&>(stream);
  State& state = static_cast<State&>(*cuda_stream.fused);
  if (n_best == 1 && logits.n_rows == 1) {
    return step_for_best(logits, [&](std::span<BestToken> best) { return step_best(stream, parts, rope, best); });
  }
  if (is_token(parts, rope)) {
    BN_RETURN_IF_ERROR(token_step(cuda_stream, state, parts[0], rope, {}));
  } else {
    BN_RETURN_IF_ERROR(rows_step(cuda_stream, state, parts, rope));
  }
  if (logits.n_rows == 0) return ok();
  const float* x = state.x + (int64_t(parts[0].ids.size()) - logits.n_rows) * graph_.d_model;
  if (parts.size() > 1) {
    BN_ASSIGN_OR_RETURN(x, last_rows(cuda_stream, state, parts));
  }
  return n_best > 0 && has_sketch() ? some_logits(cuda_stream, state, x, n_best, logits)
                                    : all_logits(cuda_stream, state, x, logits);
}

Status CudaFused::step_best(Stream& stream, std::span<const SequencePart> parts, const RopeTable& rope,
                            std::span<BestToken> best) const {
  BN_RETURN_IF_ERROR(backend_.enter());
  CudaStream& cuda_stream = static_cast<CudaStream&>(stream);
  State& state = static_cast<State&>(*cuda_stream.fused);
  if (is_token(parts, rope)) {
    BN_RETURN_IF_ERROR(token_step(cuda_stream, state, parts[0], rope, {kBest, {}, 0}));
    const cuda::StepResult result = state.token_results[parts[0].first_position % 2];
    best[0] = {result.id, result.logit};
    return ok();
  }
  BN_RETURN_IF_ERROR(rows_step(cuda_stream, state, parts, rope));
  BN_ASSIGN_OR_RETURN(const float* const x, last_rows(cuda_stream, state, parts));
  return best_tokens(cuda_stream, state, x, best);
}

bool CudaFused::samples(const SequencePart& part, const RopeTable& rope, const TokenSampling& sampling) const {
  return is_token({&part, 1}, rope) && sampling.top_k <= cuda::kMaxDrawnFrom && sampling.top_k < graph_.vocab_size;
}

Result<BestToken> CudaFused::step_sampled(Stream& stream, const SequencePart& part, const RopeTable& rope,
                                          const TokenSampling& sampling, uint64_t draw) const {
  BN_RETURN_IF_ERROR(backend_.enter());
  CudaStream& cuda_stream = static_cast<CudaStream&>(stream);
  State& state = static_cast<State&>(*cuda_stream.fused);
  BN_RETURN_IF_ERROR(token_step(cuda_stream, state, part, rope, {kDrawn, sampling, draw}));
  const cuda::StepResult result = state.token_results[part.first_position % 2];
  return BestToken{result.id, result.logit};
}

// Whether this step is what the last one went on to.
bool CudaFused::follows(const State& state, const SequencePart& part, const Draw& draw) {
  const Draw& last = state.last_draw;
  return draw.ending != kActivations && draw.ending == last.ending && part.first_position == state.last_position + 1 &&
         part.ids[0] == state.last_chosen &&
         (draw.ending != kDrawn || (draw.sampling == last.sampling && draw.number == last.number + 1));
}

// With a token chosen, its result is there when this returns; otherwise the last activations lie in state.x.
Status CudaFused::token_step(CudaStream& stream, State& state, const SequencePart& part, const RopeTable& rope,
                             const Draw& draw) const {
  const int64_t position = part.first_position;
  const bool follows = this->follows(state, part, draw), chooses = draw.ending != kActivations;
  const auto launch = [&](int64_t at) -> Status {
    BN_ASSIGN_OR_RETURN(cudaGraphExec_t const graph, token_graph(stream, state, part.kv, rope, at, draw.ending));
    BN_CUDA_RETURN_IF_ERROR(cudaGraphLaunch(graph, stream.get()), "starting a token's graph");
    BN_CUDA_RETURN_IF_ERROR(cudaEventRecord(state.done[at % 2], stream.get()), "recording an event");
    return ok();
  };
  if (!(follows && state.ahead)) {
    // What may still run with the last start has taken it: its result was waited for.
    *state.start = {part.ids[0], int32_t(position), draw.number, draw.sampling};
    BN_CUDA_RETURN_IF_ERROR(
        cudaMemcpyAsync(state.control, state.start, sizeof(cuda::StepControl), cudaMemcpyHostToDevice, stream.get()),
        "copying a token to the device");
    BN_RETURN_IF_ERROR(launch(position));
  }
  state.ahead = follows && position + 1 < std::min(part.kv[0].n_ctx, rope.n_positions);
  if (state.ahead) BN_RETURN_IF_ERROR(launch(position + 1));
  BN_CUDA_RETURN_IF_ERROR(cudaEventSynchronize(state.done[position % 2]), "computing a token");
  state.last_position = chooses ? position : -1;
  state.last_chosen = chooses ? state.token_results[position % 2].id : -1;
  state.last_draw = draw;
  return ok();
}

Result<cudaGraphExec_t> CudaFused::token_graph(CudaStream& stream, State& state, std::span<const KvLayer> kv,
                                               const RopeTable& rope, int64_t position, Ending ending) const {
  if (state.token_kv != kv[0].k || state.token_rope != rope.cos) {
    State::drop_graphs(state.token_graphs);
    state.token_kv = kv[0].k;
    state.token_rope = rope.cos;
    state.one_kernel_positions = cuda::token_layers_positions(launcher(stream), layers_of(state, kv, rope));
  }
  const Reach reach = this->reach(state, position);
  cudaGraphExec_t& graph = state.token_graphs[3 * size_t(reach) + size_t(ending)];
  if (graph != nullptr) return graph;
  const auto launch_all = [&]() -> Status {
    BN_RETURN_IF_ERROR(launch_token(stream, state, kv, rope, reach));
    return launch_ending(stream, state, ending);
  };
  BN_RETURN_IF_ERROR(capture(stream, graph, launch_all));
  return graph;
}

cuda::TokenLayers CudaFused::layers_shape() const {
  cuda::TokenLayers call;
  call.n_layers = int(graph_.layers.size());
  call.d_model = int(graph_.d_model);
  call.d_q = int(d_q());
  call.d_kv = int(d_kv());
  call.d_ff = int(graph_.d_ff);
  call.n_heads = int(graph_.n_heads);
  call.cache.n_kv_heads = graph_.n_kv_heads;
  call.cache.head_dim = graph_.head_dim;
  return call;
}

cuda::TokenLayers CudaFused::layers_of(const State& state, std::span<const KvLayer> kv, const RopeTable& rope) const {
  cuda::TokenLayers call = layers_shape();
  call.model_col_tiles = int(weights_of(graph_.layers[0].q).n_col_tiles);
  call.q_col_tiles = int(weights_of(graph_.layers[0].o).n_col_tiles);
  call.ff_col_tiles = int(weights_of(graph_.layers[0].down).n_col_tiles);
  call.cache = cuda_cache(kv[0]);
  call.rope = angles(rope);
  call.eps = graph_.rms_eps;
  call.relu2 = graph_.gate_activation == GateActivation::kRelu2;
  call.x = state.x;
  call.exchange = state.exchange;
  call.epoch = state.epoch;
  call.position = &state.control->position;
  for (size_t i = 0; i < std::min<size_t>(graph_.layers.size(), cuda::kMaxLayers); ++i) {
    const LayerGraph& layer = graph_.layers[i];
    cuda::LayerWeights& to = call.layers[i];
    const Matrix* const matrices[] = {layer.q, layer.k, layer.v, layer.o, layer.gate, layer.up, layer.down};
    for (size_t m = 0; m < std::size(matrices); ++m) {
      to.tiles[m] = reinterpret_cast<const uint4*>(weights_of(matrices[m]).words);
      to.alphas[m] = weights_of(matrices[m]).alpha;
    }
    const float* const norms[] = {layer.attn_norm, layer.attn_sub_norm, layer.ffn_norm, layer.ffn_sub_norm};
    std::copy(std::begin(norms), std::end(norms), to.norms);
    to.k_cache = static_cast<uint8_t*>(kv[i].k);
    to.v_cache = static_cast<uint8_t*>(kv[i].v);
  }
  return call;
}

// Puts a token's kernels on the stream.
Status CudaFused::launch_token(CudaStream& stream, State& state, std::span<const KvLayer> kv, const RopeTable& rope,
                               Reach reach) const {
  if ((state.kinds & kEmbed) != 0) {
    BN_CUDA_RETURN_IF_ERROR(
        cuda::token_embedding(launcher(stream), float_matrix(graph_.embedding).table(), state.control, state.x),
        kStartingKernel);
  }
  if (reach != kOneKernel) return launch_kernels(stream, state, kv, rope, reach == kFew);
  if ((state.kinds & kLayers) == 0) return ok();
  BN_CUDA_RETURN_IF_ERROR(cuda::token_layers(launcher(stream), layers_of(state, kv, rope)), kStartingKernel);
  return ok();
}

Status CudaFused::launch_kernels(CudaStream& stream, State& state, std::span<const KvLayer> kv, const RopeTable& rope,
                                 bool few_positions) const {
  const cuda::Launcher launcher = this->launcher(stream);
  const auto product = [&](const float* x, const float* norm, cuda::Epilogue epilogue,
                           std::initializer_list<cuda::Segment> segments, const Matrix* first, Kind kind) {
    if ((state.kinds & kind) == 0) return cudaSuccess;
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
  for (size_t i = 0; i < graph_.layers.size(); ++i) {
    const LayerGraph& layer = graph_.layers[i];
    BN_CUDA_RETURN_IF_ERROR(
        product(state.x, layer.attn_norm, cuda::Epilogue::kStore,
                {segment(layer.q, state.q), segment(layer.k, state.k), segment(layer.v, state.v)}, layer.q, kQkv),
        kStartingKernel);
    cuda::TokenAttention attention;
    attention.q = state.q;
    attention.k = state.k;
    attention.v = state.v;
    attention.cache = cuda_cache(kv[i]);
    attention.rope = angles(rope);
    attention.n_heads = int(graph_.n_heads);
    attention.positions = &state.control->position;
    attention.few_positions = few_positions;
    attention.out = state.attn;
    attention.scratch = stream.scores();
    if ((state.kinds & kAttention) != 0) {
      BN_CUDA_RETURN_IF_ERROR(cuda::token_attention(launcher, attention), kStartingKernel);
    }
    BN_CUDA_RETURN_IF_ERROR(
        product(state.attn, layer.attn_sub_norm, cuda::Epilogue::kAdd, {segment(layer.o, state.x)}, layer.o, kO),
        kStartingKernel);
    BN_CUDA_RETURN_IF_ERROR(product(state.x, layer.ffn_norm, gate_epilogue(),
                                    {segment(layer.gate, state.act), segment(layer.up, state.act)}, layer.gate, kGate),
                            kStartingKernel);
    BN_CUDA_RETURN_IF_ERROR(
        product(state.act, layer.ffn_sub_norm, cuda::Epilogue::kAdd, {segment(layer.down, state.x)}, layer.down, kDown),
        kStartingKernel);
  }
  return ok();
}

}  // namespace bitnet
