#include "kernels/cuda/cuda_fused_state.h"
#include "kernels/cuda/row_block.cuh"

#include <algorithm>
#include <bit>

// Steps of several rows: prompts, and tokens of many sequences.
namespace bitnet {

cuda::Cache paged_cuda_cache(const KvLayer& kv, int64_t n_positions, const int32_t* pages) {
  cuda::Cache cache = cuda_cache(kv);
  cache.n_positions = n_positions;
  cache.page_rows = kv.n_kv_heads * cuda::kPagePositions;
  cache.head_rows = cuda::kPagePositions;
  cache.pages = pages;
  return cache;
}

Status CudaFused::rows_step(CudaStream& stream, State& state, std::span<const SequencePart> parts,
                            const RopeTable& rope) const {
  int64_t n_rows = 0;
  for (const SequencePart& part : parts) n_rows += int64_t(part.ids.size());
  if (n_rows > state.max_tokens || int64_t(parts.size()) > state.max_parts) {
    return make_error(ErrorCode::kInternal, "{} tokens of {} sequences in a step of at most {} of {}", n_rows,
                      parts.size(), state.max_tokens, state.max_parts);
  }
  state.ahead = false;
  state.last_position = -1;
  Step step = plan_rows(state, parts, rope);
  if (state.runs.size() > 1 || !state.runs[0].single_tokens) {
    BN_RETURN_IF_ERROR(send(stream, state, parts, n_rows));
    return launch_rows(stream, state, step);
  }
  // Single tokens only: a graph for as many sequences or a few more, whose rows belong to nobody.
  const int64_t n_padded = int64_t(std::bit_ceil(uint64_t(n_rows)));
  BN_RETURN_IF_ERROR(send(stream, state, parts, n_padded));
  if (state.batch_kv != step.kv[0].k || state.batch_rope != rope.cos) {
    State::drop_graphs(state.batch_graphs);
    state.batch_kv = step.kv[0].k;
    state.batch_rope = rope.cos;
  }
  cudaGraphExec_t& graph = state.batch_graphs[size_t(std::countr_zero(uint64_t(n_padded)))];
  if (graph == nullptr) {
    const Run all{0, int(n_padded), 0, true, 0};
    step.n_rows = int(n_padded);
    step.runs = {&all, 1};
    BN_RETURN_IF_ERROR(capture(stream, graph, [&] { return launch_rows(stream, state, step); }));
  }
  BN_CUDA_RETURN_IF_ERROR(cudaGraphLaunch(graph, stream.get()), "starting a step's graph");
  return ok();
}

CudaFused::Step CudaFused::plan_rows(State& state, std::span<const SequencePart> parts, const RopeTable& rope) const {
  Step step;
  step.kv = parts[0].kv;
  step.paged = !parts[0].pages.empty();
  step.rope = rope;
  const cuda::Launcher launcher{nullptr, backend_.hopper(), backend_.n_multiprocessors()};
  // One token of a cache of its own comes here with several GPUs only.
  const bool tokens_take =
      (step.paged || group_) &&
      cuda::token_attention_takes(
          launcher, step.paged ? paged_cuda_cache(step.kv[0], state.n_ctx, state.tables) : cuda_cache(step.kv[0]),
          angles(rope), int(graph_.n_heads));
  state.runs.clear();
  for (size_t i = 0; i < parts.size(); ++i) {
    const int n = int(parts[i].ids.size());
    const bool single = n == 1 && tokens_take;
    if (single && !state.runs.empty() && state.runs.back().single_tokens) {
      ++state.runs.back().n_rows;
    } else {
      state.runs.push_back({step.n_rows, n, int(i), single, int(parts[i].first_position)});
    }
    step.n_rows += n;
  }
  step.runs = state.runs;
  return step;
}

// Ids, positions and page tables to the device. Rows up to n_padded belong to nobody.
Status CudaFused::send(CudaStream& stream, State& state, std::span<const SequencePart> parts, int64_t n_padded) const {
  BN_CUDA_RETURN_IF_ERROR(cudaEventSynchronize(state.sent), "waiting for the last step's ids");
  int32_t* const positions = state.inputs;
  int32_t* const ids = state.inputs + (state.ids - state.positions);
  int32_t* const tables = state.inputs + (state.tables - state.positions);
  int32_t* id = ids;
  bool same_tables = state.tables_sent;
  for (size_t i = 0; i < parts.size(); ++i) {
    id = std::copy(parts[i].ids.begin(), parts[i].ids.end(), id);
    positions[i] = int32_t(parts[i].first_position);
    const std::span<const int32_t> pages =
        parts[i].pages.first(std::min(parts[i].pages.size(), size_t(state.table_stride)));
    int32_t* const table = tables + int64_t(i) * state.table_stride;
    same_tables = same_tables && std::equal(pages.begin(), pages.end(), table);
    std::copy(pages.begin(), pages.end(), table);
  }
  const int64_t n_nobodys = n_padded - (id - ids);
  std::fill_n(id, n_nobodys, 0);
  std::fill_n(positions + parts.size(), n_nobodys, -1);
  const auto copy = [&](const int32_t* from, const int32_t* end) {
    return cudaMemcpyAsync(state.positions + (from - state.inputs), from, size_t(end - from) * sizeof(int32_t),
                           cudaMemcpyHostToDevice, stream.get());
  };
  const bool paged = !parts[0].pages.empty();
  BN_CUDA_RETURN_IF_ERROR(copy(positions, ids + n_padded), "copying ids to the device");
  if (paged && !same_tables) {
    BN_CUDA_RETURN_IF_ERROR(copy(tables, tables + int64_t(parts.size()) * state.table_stride),
                            "copying page tables to the device");
    state.tables_sent = true;
  }
  BN_CUDA_RETURN_IF_ERROR(cudaEventRecord(state.sent, stream.get()), "recording an event");
  return ok();
}

Status CudaFused::launch_rows(CudaStream& stream, State& state, const Step& step) const {
  if (group_) return launch_split_rows(stream, state, step);
  const cuda::Launcher launcher = this->launcher(stream);
  const int n = step.n_rows;
  if ((state.kinds & kEmbed) != 0) {
    cuda::embed(stream.get(), float_matrix(graph_.embedding).table(), state.ids, {state.x, n, graph_.d_model});
  }
  for (size_t i = 0; i < graph_.layers.size(); ++i) {
    const LayerGraph& layer = graph_.layers[i];
    BN_RETURN_IF_ERROR(launch_product(launcher, state, {state.x, layer.attn_norm}, cuda::Epilogue::kStore,
                                      {segment(layer.q, state.q), segment(layer.k, state.k), segment(layer.v, state.v)},
                                      layer.q, n, kQkv));
    if ((state.kinds & kAttention) != 0) {
      for (const Run& run : step.runs) BN_RETURN_IF_ERROR(launch_attention(stream, state, step.kv[i], step, run));
    }
    BN_RETURN_IF_ERROR(launch_product(launcher, state, {state.attn, layer.attn_sub_norm}, cuda::Epilogue::kAdd,
                                      {segment(layer.o, state.x)}, layer.o, n, kO));
    BN_RETURN_IF_ERROR(launch_product(launcher, state, {state.x, layer.ffn_norm}, gate_epilogue(),
                                      {segment(layer.gate, state.act), segment(layer.up, state.act)}, layer.gate, n,
                                      kGate));
    BN_RETURN_IF_ERROR(launch_product(launcher, state, {state.act, layer.ffn_sub_norm}, cuda::Epilogue::kAdd,
                                      {segment(layer.down, state.x)}, layer.down, n, kDown));
  }
  // Of the operations among them, which say nothing.
  BN_CUDA_RETURN_IF_ERROR(cudaPeekAtLastError(), kStartingKernel);
  return ok();
}

cuda::Epilogue CudaFused::gate_epilogue() const {
  return graph_.gate_activation == GateActivation::kRelu2 ? cuda::Epilogue::kGateRelu2 : cuda::Epilogue::kGateSilu;
}

// Reading weights bounds a product of few tokens, reading activations one of some more.
CudaFused::Form CudaFused::form_of(const cuda::Launcher& launcher, const cuda::PromptProduct& call) {
  if (call.x.n_tokens > kFewTokens && cuda::batch_wgmma_takes(launcher, call)) return Form::kSome;
  const int most = cuda::is_gate(call.epilogue) && launcher.dependent ? cuda::kBatchTokens / 2 : cuda::kBatchTokens;
  return call.x.n_tokens <= most ? Form::kFew : Form::kMany;
}

Status CudaFused::launch_product(const cuda::Launcher& launcher, State& state, const Input& x, cuda::Epilogue epilogue,
                                 std::initializer_list<cuda::Segment> segments, const Matrix* weight, int n_tokens,
                                 Kind kind) const {
  cuda::PromptProduct call;
  for (const cuda::Segment& s : segments) call.segments[call.n_segments++] = s;
  call.epilogue = epilogue;
  call.x.codes = reinterpret_cast<int8_t*>(state.codes);
  call.x.inv_scales = state.inv_scales;
  call.x.sums = reinterpret_cast<int32_t*>(state.sums);
  call.x.n_tokens = n_tokens;
  call.x.n_cols = int(weights_of(weight).n_cols);
  call.x.n_col_tiles = int(weights_of(weight).n_col_tiles);
  const Form form = form_of(launcher, call);
  call.x.fragments = form == Form::kFew;
  if ((state.kinds & kCodes) != 0) {
    BN_CUDA_RETURN_IF_ERROR(cuda::normed_codes(launcher, x.rows, x.norm, graph_.rms_eps, call.x), kStartingKernel);
  }
  if ((state.kinds & kind) == 0) return ok();
  BN_CUDA_RETURN_IF_ERROR(form == Form::kFew    ? cuda::batch_product(launcher, call)
                          : form == Form::kSome ? cuda::batch_wgmma(launcher, call)
                          : backend_.hopper()   ? cuda::prompt_wgmma(launcher, call)
                                                : cuda::prompt_mma(launcher, call),
                          kStartingKernel);
  return ok();
}

Status CudaFused::launch_attention(CudaStream& stream, State& state, const KvLayer& kv, const Step& step,
                                   const Run& run) const {
  const cuda::Launcher launcher = this->launcher(stream);
  const int64_t n = run.n_rows, first = run.first_position;
  float* const q = state.q + run.first_row * d_q();
  float* const k = state.k + run.first_row * d_kv();
  float* const v = state.v + run.first_row * d_kv();
  float* const out = state.attn + run.first_row * d_q();
  const int32_t* const tables = state.tables + run.first_part * state.table_stride;
  const cuda::Cache cache = step.paged ? paged_cuda_cache(kv, state.n_ctx, tables) : cuda_cache(kv);
  const cuda::Rope rope = angles(step.rope);
  const bool tiled = cache.type == cuda::TableType::kI8;
  if (run.single_tokens || tiled) {
    cuda::TokenAttention call;
    call.q = q;
    call.k = k;
    call.v = v;
    call.cache = cache;
    call.rope = rope;
    call.n_heads = int(graph_.n_heads);
    call.n_tokens = run.n_rows;
    if (run.single_tokens) {
      call.positions = state.positions + run.first_part;
      call.tables = step.paged ? tables : nullptr;
      call.table_stride = int(state.table_stride);
    }
    call.first_position = int(first);
    call.out = out;
    call.scratch = stream.scores();
    BN_CUDA_RETURN_IF_ERROR(cuda::token_attention(launcher, call), kStartingKernel);
    return ok();
  }
  if (n > 1 && cuda::prompt_attention_takes(cache)) {
    const int n_heads = int(graph_.n_heads);
    __half* const halves = reinterpret_cast<__half*>(state.q_halves);
    BN_CUDA_RETURN_IF_ERROR(cuda::prompt_rope(launcher, {q, k, v, halves, cache, rope, int(n), n_heads, int(first)}),
                            kStartingKernel);
    const auto attention = backend_.hopper() ? cuda::prompt_attention_wgmma : cuda::prompt_attention;
    BN_CUDA_RETURN_IF_ERROR(attention(launcher, {halves, cache, int(n), n_heads, int(first), out}), kStartingKernel);
    return ok();
  }
  cuda::rope(stream.get(), {q, n, d_q()}, graph_.head_dim, rope, first);
  cuda::rope(stream.get(), {k, n, d_kv()}, graph_.head_dim, rope, first);
  cuda::store_kv(stream.get(), k, v, n, cache, first);
  cuda::attention(stream.get(), {q, n, d_q()}, cache, first, stream.scores(), out);
  return ok();
}

}  // namespace bitnet
