#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/cuda_fused.h"
#include "kernels/cuda/cuda_fused_state.h"

namespace bitnet {
namespace {

constexpr const char* kDoing = "starting a kernel";

}  // namespace

Status CudaFused::prompt_step(CudaStream& stream, State& state, const SequencePart& part, const RopeTable& rope,
                              int64_t n_best, MatrixView logits) const {
  const int64_t n = int64_t(part.ids.size()), d = graph_.d_model;
  if (n > state.max_tokens) {
    return make_error(ErrorCode::kInternal, "{} tokens in a step of at most {}", n, state.max_tokens);
  }
  cuda::embed(stream.get(), table_of(graph_.embedding), stream.send_ids(part.ids), {state.xs, n, d});
  for (size_t i = 0; i < graph_.layers.size(); ++i) {
    BN_RETURN_IF_ERROR(launch_layer(stream, state, graph_.layers[i], part.kv[i], part, rope));
  }
  state.ahead = false;
  state.last_position = -1;
  const cuda::Launcher launcher{stream.get(), backend_.hopper(), backend_.n_multiprocessors()};
  for (int64_t row = 0; row < logits.n_rows; ++row) {
    const int64_t token = n - logits.n_rows + row, position = part.first_position + token;
    // Whatever read the last start is done: its result was waited for.
    state.start->token = part.ids[size_t(token)];
    state.start->position = int32_t(position);
    BN_CUDA_RETURN_IF_ERROR(
        cudaMemcpyAsync(state.control, state.start, 2 * sizeof(int32_t), cudaMemcpyHostToDevice, stream.get()),
        "copying a token to the device");
    BN_RETURN_IF_ERROR(launch_head(launcher, state, state.xs + token * d, n_best == 1));
    const std::span<float> out(logits.row(row), size_t(logits.n_cols));
    if (n_best == 1) {
      BN_RETURN_IF_ERROR(backend_.wait(stream));
      put_best(state.result[position % 2], out.data(), logits.n_cols);
    } else {
      BN_RETURN_IF_ERROR(backend_.fetch(stream, state.logits, std::as_writable_bytes(out)));
    }
    state.last_position = position;
    state.last_best = state.result[position % 2].id;
  }
  return ok();
}

Status CudaFused::launch_layer(CudaStream& stream, State& state, const LayerGraph& layer, const KvLayer& kv,
                               const SequencePart& part, const RopeTable& rope) const {
  const cuda::Launcher launcher{stream.get(), backend_.hopper(), backend_.n_multiprocessors()};
  const int n = int(part.ids.size()), first = int(part.first_position);
  const auto product = [&](const float* x, const float* norm, cuda::Epilogue epilogue,
                           std::initializer_list<cuda::Segment> segments, const Matrix* weight) {
    cuda::PromptProduct call;
    call.x = {reinterpret_cast<int8_t*>(state.codes), state.inv_scales,
              reinterpret_cast<int32_t*>(state.sums), n,
              int(weights_of(weight).n_cols),         int(weights_of(weight).n_col_tiles)};
    for (const cuda::Segment& s : segments) call.segments[call.n_segments++] = s;
    call.epilogue = epilogue;
    const cudaError_t error = cuda::normed_codes(launcher, x, norm, graph_.rms_eps, call.x);
    if (error != cudaSuccess) return error;
    return backend_.hopper() ? cuda::prompt_wgmma(launcher, call) : cuda::prompt_mma(launcher, call);
  };
  BN_CUDA_RETURN_IF_ERROR(
      product(state.xs, layer.attn_norm, cuda::Epilogue::kStore,
              {segment(layer.q, state.qs), segment(layer.k, state.ks), segment(layer.v, state.vs)}, layer.q),
      kDoing);
  const cuda::Cache cache = cuda_cache(kv);
  const cuda::Rope angles{rope.cos, rope.sin, rope.n_pairs};
  if (cuda::prompt_attention_takes(cache)) {
    __half* const q = reinterpret_cast<__half*>(state.q_halves);
    BN_CUDA_RETURN_IF_ERROR(
        cuda::prompt_rope(launcher, {state.qs, state.ks, state.vs, q, cache, angles, n, int(graph_.n_heads), first}),
        kDoing);
    BN_CUDA_RETURN_IF_ERROR(cuda::prompt_attention(launcher, {q, cache, n, int(graph_.n_heads), first, state.attns}),
                            kDoing);
  } else {
    cuda::rope(stream.get(), {state.qs, n, d_q()}, graph_.head_dim, angles, first);
    cuda::rope(stream.get(), {state.ks, n, d_kv()}, graph_.head_dim, angles, first);
    cuda::store_kv(stream.get(), state.ks, state.vs, n, cache, first);
    cuda::attention(stream.get(), {state.qs, n, d_q()}, cache, first, stream.scores(), state.attns);
  }
  BN_CUDA_RETURN_IF_ERROR(
      product(state.attns, layer.attn_sub_norm, cuda::Epilogue::kAdd, {segment(layer.o, state.xs)}, layer.o), kDoing);
  const cuda::Epilogue gate =
      graph_.gate_activation == GateActivation::kRelu2 ? cuda::Epilogue::kGateRelu2 : cuda::Epilogue::kGateSilu;
  BN_CUDA_RETURN_IF_ERROR(product(state.xs, layer.ffn_norm, gate,
                                  {segment(layer.gate, state.acts), segment(layer.up, state.acts)}, layer.gate),
                          kDoing);
  BN_CUDA_RETURN_IF_ERROR(
      product(state.acts, layer.ffn_sub_norm, cuda::Epilogue::kAdd, {segment(layer.down, state.xs)}, layer.down),
      kDoing);
  return ok();
}

}  // namespace bitnet
