#include "kernels/cuda/cuda_fused_state.h"

#include <algorithm>

// The memory of one stream's steps: one piece of the device's and one of the host's.
namespace bitnet {
namespace {

constexpr int64_t kPanel_bytes = int64_t{16} << 20;
constexpr int64_t kManyLogits = 32;  // rows that share one reading of a head in the host's memory

// Places arrays one after the other, each at a multiple of 256 bytes; without memory it only counts.
class Layout {
 public:
  explicit Layout(std::byte* base) : base_(base) {}
  template <class T>
  void place(T*& array, int64_t n) {
    array = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + used_bytes_);
    used_bytes_ += (size_t(n) * sizeof(T) + 255) / 256 * 256;
  }
  size_t used_bytes() const { return used_bytes_; }

 private:
  std::byte* base_;
  size_t used_bytes_ = 0;
};

}  // namespace

Result<std::unique_ptr<FusedState>> CudaFused::new_state(const StreamOptions& options) const {
  auto made = std::make_unique<State>();
  State& state = *made;
  if (options.max_parts < 1 || options.max_parts > kMaxParts) {
    return invalid_argument("{} sequences in a step, expected 1 to {}", options.max_parts, kMaxParts);
  }
  const CudaFloatMatrix& head = float_matrix(graph_.head);
  const bool by_panels = head.host_rows() != nullptr;
  // Graphs pad their rows up to a power of two.
  int64_t padded_parts = 1;
  while (padded_parts < options.max_parts) padded_parts *= 2;
  state.max_parts = options.max_parts;
  state.max_tokens = std::max(options.max_tokens, padded_parts);
  state.n_ctx = options.n_ctx;
  state.table_stride = cuda::n_tiles(options.n_ctx, kPagePositions);
  state.head_rows = std::min<int64_t>(state.max_tokens, options.max_parts > 1 ? cuda::head_tokens(head.table())
                                                        : by_panels           ? kManyLogits
                                                                              : 1);
  state.panel_rows = by_panels ? std::max<int64_t>(kPanel_bytes / head.table().row_bytes, 1) : 0;
  state.runs.reserve(size_t(options.max_parts));
  const int64_t n = state.max_tokens, d = graph_.d_model, n_parts = padded_parts;
  const int64_t n_states = std::max(n_parts, state.head_rows);
  const cuda::Launcher launcher{nullptr, backend_.hopper(), backend_.n_multiprocessors()};
  const auto lay_out = [&](std::byte* base) {
    Layout layout(base);
    int64_t widest = std::max({d, d_q(), graph_.d_ff});
    int64_t attn_width = d_q(), act_width = graph_.d_ff;
    if (group_) {
      const GroupRank& g = *group_;
      attn_width = widest_share(g.q);
      act_width = widest_share(g.ff);
      widest = std::max({d, total_rows(g.q), total_rows(g.ff)});
      const int64_t part = widest_share(g.model), n_ranks = int64_t(g.q.size());
      layout.place(state.gathered, n * n_ranks * std::max({d, attn_width, act_width}));
      layout.place(state.whole, n * widest);
      layout.place(state.part, n * part);
    }
    const int64_t blocks = cuda::n_tiles(n, cuda::kTokenBlock);
    layout.place(state.x, n * d);
    layout.place(state.q, n * d_q());
    layout.place(state.k, n * d_kv());
    layout.place(state.v, n * d_kv());
    layout.place(state.attn, n * attn_width);
    layout.place(state.act, n * act_width);
    layout.place(state.q_halves, n * d_q() / 2 + 1);
    layout.place(state.codes,
                 blocks * cuda::kTokenBlock * cuda::n_tiles(widest, cuda::kTileCols) * cuda::kTileCols / 4);
    layout.place(state.inv_scales, n);
    layout.place(state.sums, n);
    layout.place(state.logits, state.head_rows * graph_.vocab_size);
    layout.place(state.normed, state.head_rows * d);
    layout.place(state.last, n_parts > 1 ? n_parts * d : 0);
    layout.place(state.head_codes, state.head_rows > 1 ? int64_t(cuda::head_code_bytes(d) / sizeof(float)) : 0);
    layout.place(state.panel, state.panel_rows * head.table().row_bytes / int64_t(sizeof(float)));
    layout.place(state.head_state, n_states);
    layout.place(state.floors, has_sketch() ? cuda::sketch_warps(launcher) : 0);
    layout.place(state.candidates, has_sketch() ? cuda::kMaxCandidates : 0);
    layout.place(state.control, 1);
    layout.place(state.exchange, int64_t(cuda::token_layers_words(layers_shape())));
    layout.place(state.epoch, 1);
    layout.place(state.positions, n + n_parts * (1 + state.table_stride));
    return layout.used_bytes();
  };
  BN_ASSIGN_OR_RETURN(state.memory, backend_.allocate(lay_out(nullptr)));
  lay_out(state.memory.data());
  state.n_inputs = size_t(n + n_parts * (1 + state.table_stride));
  state.ids = state.positions + n_parts;
  state.tables = state.ids + n;
  const auto lay_out_host = [&](std::byte* base) {
    Layout layout(base);
    layout.place(state.token_results, 2);
    layout.place(state.results, n_states);
    layout.place(state.start, 1);
    layout.place(state.inputs, int64_t(state.n_inputs));
    return layout.used_bytes();
  };
  BN_ASSIGN_OR_RETURN(state.host_memory, backend_.allocate_pinned(lay_out_host(nullptr)));
  lay_out_host(state.host_memory.data());
  for (cudaEvent_t* event : {&state.done[0], &state.done[1], &state.sent}) {
    BN_CUDA_RETURN_IF_ERROR(cudaEventCreateWithFlags(event, cudaEventDisableTiming), "making an event");
  }
  return std::unique_ptr<FusedState>(std::move(made));
}

}  // namespace bitnet
