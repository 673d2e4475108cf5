#include "kernels/cuda/cuda_fused_state.h"
#include "kernels/cuda/split_ops.h"

// A step's rows on one of several GPUs. Every matrix is shared by its rows, so that each integer sum and each float has
// one GPU that computes it whole, as one GPU alone would; columns of activations are gathered before anyone quantises
// them.
namespace bitnet {

namespace {

cuda::Shares shares_of(const std::vector<RowShare>& shares) {
  cuda::Shares to;
  to.n_ranks = int(shares.size());
  for (size_t i = 0; i < shares.size(); ++i) to.first[i + 1] = shares[i].first + shares[i].n;
  return to;
}

}  // namespace

Status CudaFused::gather(CudaStream& stream, State& state, const float* part, const std::vector<RowShare>& shares,
                         int n_rows, bool adds, float* out) const {
  const int64_t part_floats = n_rows * widest_share(shares);
  BN_RETURN_IF_ERROR(group_->collectives->all_gather(group_->rank, part, part_floats, state.gathered, stream.get()));
  cuda::join_columns(stream.get(), state.gathered, part_floats, shares_of(shares), n_rows, adds, out);
  return ok();
}

// Every rank gives the rows that it has; of each token one is taken.
Status CudaFused::embed_split(CudaStream& stream, State& state, int n_rows) const {
  const cuda::Rows x{state.x, n_rows, graph_.d_model};
  const cuda::Shares ids = shares_of(group_->ids);
  cuda::embed_share(stream.get(), float_matrix(graph_.embedding).table(), ids.first[group_->rank], state.ids, x);
  BN_RETURN_IF_ERROR(
      group_->collectives->all_gather(group_->rank, state.x, n_rows * graph_.d_model, state.gathered, stream.get()));
  cuda::pick_rows(stream.get(), state.gathered, ids, state.ids, x);
  return ok();
}

Status CudaFused::launch_split_rows(CudaStream& stream, State& state, const Step& step) const {
  const int n = step.n_rows;
  const cuda::Launcher launcher = this->launcher(stream);
  BN_RETURN_IF_ERROR(embed_split(stream, state, n));
  for (size_t i = 0; i < graph_.layers.size(); ++i) {
    const LayerGraph& layer = graph_.layers[i];
    BN_RETURN_IF_ERROR(launch_product(launcher, state, {state.x, layer.attn_norm}, cuda::Epilogue::kStore,
                                      {segment(layer.q, state.q), segment(layer.k, state.k), segment(layer.v, state.v)},
                                      layer.q, n, kQkv));
    for (const Run& run : step.runs) BN_RETURN_IF_ERROR(launch_attention(stream, state, step.kv[i], step, run));
    BN_RETURN_IF_ERROR(gather(stream, state, state.attn, group_->q, n, false, state.whole));
    BN_RETURN_IF_ERROR(launch_product(launcher, state, {state.whole, layer.attn_sub_norm}, cuda::Epilogue::kStore,
                                      {segment(layer.o, state.part)}, layer.o, n, kO));
    BN_RETURN_IF_ERROR(gather(stream, state, state.part, group_->model, n, true, state.x));
    BN_RETURN_IF_ERROR(launch_product(launcher, state, {state.x, layer.ffn_norm}, gate_epilogue(),
                                      {segment(layer.gate, state.act), segment(layer.up, state.act)}, layer.gate, n,
                                      kGate));
    BN_RETURN_IF_ERROR(gather(stream, state, state.act, group_->ff, n, false, state.whole));
    BN_RETURN_IF_ERROR(launch_product(launcher, state, {state.whole, layer.ffn_sub_norm}, cuda::Epilogue::kStore,
                                      {segment(layer.down, state.part)}, layer.down, n, kDown));
    BN_RETURN_IF_ERROR(gather(stream, state, state.part, group_->model, n, true, state.x));
  }
  BN_CUDA_RETURN_IF_ERROR(cudaPeekAtLastError(), kStartingKernel);
  return ok();
}

}  // namespace bitnet
