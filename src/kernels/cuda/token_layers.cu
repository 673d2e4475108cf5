#include "kernels/cuda/kernel_setup.h"
#include "kernels/cuda/layers_attention.cuh"

// All layers of one token in one kernel, whose blocks all run at once. What one block computes reaches the others as
// words with epochs (exchange.cuh), so that nobody waits at a barrier of all; weights come through a ring
// (weight_ring.cuh) that is filled without waiting for activations at all.
//
// Each block sends some of the last product's outputs of every layer and receives all of the layer before first. So
// when a word of a layer is overwritten, every block has read it the layer before.
namespace bitnet::cuda {
namespace {

constexpr int kThreads = kWorkers + 2 * 32;
constexpr int kMostShared_bytes = 227 * 1024 - 10 * 1024;  // without the kernel's own arrays

int n_blocks(const Launcher& launcher, const TokenLayers& call) {
  return min(launcher.n_multiprocessors, call.d_model / kTileRows);
}

// Fours of columns that a thread quantises, of a row of so many column tiles.
__host__ __device__ constexpr int fours_of(int n_col_tiles) { return n_col_tiles <= 2 * kRingWarps ? 2 : 6; }

LayersPlan plan_of(const TokenLayers& call, int n_blocks) {
  const TableType type = call.cache.type;
  LayersPlan p = {};
  p.n_kv_heads = int(call.cache.n_kv_heads);
  p.heads_per_kv = call.n_heads / p.n_kv_heads;
  p.head_dim = int(call.cache.head_dim);
  p.row_bytes = int(call.cache.row_bytes);
  p.n_score_parts = max(n_blocks / p.n_kv_heads, 1);
  p.key_rows = int(n_tiles(layers_positions(type), p.n_score_parts));
  p.n_dim_units = p.head_dim / kUnitDims;
  p.d_q = call.d_q;
  p.d_kv = call.d_kv;
  p.n_pairs = int(call.rope.n_pairs);
  p.cos = call.rope.cos;
  p.sin = call.rope.sin;
  p.eps = call.eps;
  p.page_rows = int(call.cache.page_rows);
  p.head_rows = int(call.cache.head_rows);
  p.exchange = reinterpret_cast<uint4*>(call.exchange);
  const auto take = [](int& total, int& place, int64_t n) {
    place = total;
    total += int(n);
  };
  const auto take_words = [&](int& place, int n_floats) { take(p.n_words, place, n_floats / kGroup * kGroupWords); };
  take_words(p.outputs[kStepQkv], call.d_q + 2 * call.d_kv);
  take_words(p.attn, call.d_q);
  take_words(p.outputs[kStepO], call.d_model);
  take_words(p.outputs[kStepGate], call.d_ff);
  take_words(p.outputs[kStepDown], call.d_model);
  take(p.n_words, p.scores, call.n_heads * layers_positions(type) / 2);
  const auto step = [&](int step, int input, int n_cols, int n_col_tiles) {
    p.inputs[step] = input;
    p.n_cols[step] = n_cols;
    p.n_col_tiles[step] = n_col_tiles;
  };
  const int n_outputs[kLayerSteps] = {call.d_q + 2 * call.d_kv, call.d_model, call.d_ff, call.d_model};
  for (int i = 0; i < kLayerSteps; ++i) p.n_out_groups[i] = n_outputs[i] / kGroup;
  step(kStepQkv, p.outputs[kStepDown], call.d_model, call.model_col_tiles);
  step(kStepO, p.attn, call.d_q, call.q_col_tiles);
  step(kStepGate, p.outputs[kStepO], call.d_model, call.model_col_tiles);
  step(kStepDown, p.outputs[kStepGate], call.d_ff, call.ff_col_tiles);
  const auto take_bytes = [&](int& place, int64_t n) { take(p.shared_bytes, place, (n + 15) / 16 * 16); };
  const int widest = max(max(call.d_model, call.d_q), call.d_ff);
  p.shared_bytes = kSlots * kSlot_bytes;
  take_bytes(p.row, int64_t(squares_bytes(widest)));
  take_bytes(p.codes,
             fours_of(int(n_tiles(widest, kTileCols))) * kRingWarps * kTileCols);  // a thread writes all of its
  take_bytes(p.partial, kMaxRowTiles * kTileRows * kPartialStride * 4);
  take_bytes(p.keys, p.key_rows * (p.row_bytes + 16));
  take_bytes(p.values, layers_positions(type) * kUnitDims * element_bytes(type));
  take_bytes(p.turned, position_stride(type) * kUnitDims * element_bytes(type));
  take_bytes(p.score_rows, p.heads_per_kv * position_stride(type) * 4);
  take_bytes(p.layers, call.n_layers * int64_t(sizeof(LayerWeights)));
  return p;
}

#if __CUDA_ARCH__ >= 900
// The matrix of row tile `tile` of a step, counted in `tile` within that matrix from then on.
__device__ int matrix_of(const TokenLayers& call, int step, int& tile) {
  if (step != kStepQkv) return step == kStepO ? kLayerO : step == kStepGate ? kLayerGate : kLayerDown;
  const int q_tiles = call.d_q / kTileRows, kv_tiles = call.d_kv / kTileRows;
  if (tile < q_tiles) return kLayerQ;
  tile -= q_tiles;
  if (tile < kv_tiles) return kLayerK;
  tile -= kv_tiles;
  return kLayerV;
}

// In the order in which the other warps multiply.
__device__ void fetch_weights(const TokenLayers& call, const LayerWeights* layers) {
  const BlockState& state = block();
  int count = 0;
#pragma unroll 1
  for (int l = 0; l < call.n_layers; ++l) {
#pragma unroll 1
    for (int step = 0; step < kLayerSteps; ++step) {
      const int n_col_tiles = state.plan.n_col_tiles[step], per_tile = step == kStepGate ? 2 : 1;
#pragma unroll 1
      for (int i = 0; i < state.n_tiles[step] * per_tile; ++i) {
        int tile = state.first_tile[step] + i / per_tile;
        const int matrix = matrix_of(call, step, tile) + i % per_tile;
        const uint4* const from = layers[l].tiles[matrix] + size_t(tile) * n_col_tiles * 32;
#pragma unroll 1
        for (int at = 0; at < n_col_tiles; at += kSlotTiles) {
          fetch_slot(block_memory(), block().barriers, count++, from + at * 32,
                     uint32_t(min(kSlotTiles, n_col_tiles - at)) * kTileBytes);
        }
      }
    }
  }
}

// The factors of rows' norms, whenever the other warps have put a row into the block's memory.
__device__ void sum_norms(const TokenLayers& call, const LayerWeights* layers) {
#pragma unroll 1
  for (int i = 0; i < call.n_layers * kLayerSteps; ++i) {
    const int step = i % kLayerSteps;
    sync_with_norms<2>();
    if (layers[i / kLayerSteps].norms[step] != nullptr) {
      const float factor = norm_factor(block().plan.n_cols[step]);
      if (thread_index() % 32 == 0) block().factor = factor;
    }
    sync_with_norms<3>();
  }
}
#endif

template <TableType kType>
__global__ void __launch_bounds__(kThreads, 1)
    token_layers_kernel(const __grid_constant__ TokenLayers call, const __grid_constant__ LayersPlan plan) {
#if __CUDA_ARCH__ >= 900
  // Constants that each layer reads for the first time would be waited for.
  LayerWeights* const layers = reinterpret_cast<LayerWeights*>(block_memory() + plan.layers);
  for (int i = thread_index(); i < call.n_layers * int(sizeof(LayerWeights) / 8); i += kThreads) {
    reinterpret_cast<uint64_t*>(layers)[i] = reinterpret_cast<const uint64_t*>(call.layers)[i];
  }
  if (thread_index() == 0) {
    block().plan = plan;
    const int n_rows[kLayerSteps] = {call.d_q + 2 * call.d_kv, call.d_model, call.d_ff, call.d_model};
    for (int step = 0; step < kLayerSteps; ++step) {  // parts differ by one tile at most
      const int64_t n = n_rows[step] / kTileRows;
      const int first = int(blockIdx.x * n / gridDim.x);
      block().first_tile[step] = first;
      block().n_tiles[step] = int((blockIdx.x + 1) * n / gridDim.x) - first;
    }
    init_ring(block().barriers);
  }
  __syncthreads();
  const int warp = thread_index() / 32;
  if (warp >= kRingWarps) {
    if (warp == kNormWarp) sum_norms(call, layers);
    if (warp == kFetchWarp && thread_index() % 32 == 0) fetch_weights(call, layers);
    return;
  }

  const BlockState& state = block();
  uint4* const exchange = plan.exchange;
  const uint32_t base = *call.epoch;
  const int position = *call.position;
  // A thread's row of a step's rows that the block has, if it has one, and of all.
  const auto row = [] { return thread_index() / kRowThreads; };
  const auto row_of_all = [&](int step) { return state.first_tile[step] * kTileRows + row(); };
  const auto has_row = [&](int step) { return row() < state.n_tiles[step] * kTileRows; };
  // The residual stream, of the row that this thread has of o and of down.
  float residual = has_row(kStepO) ? load1(call.x + row_of_all(kStepO)) : 0.0f;

  int n_taken = 0;
#pragma unroll 1
  for (int l = 0; l < call.n_layers; ++l) {
    const LayerWeights& layer = layers[l];
    const uint32_t epoch = base + uint32_t(l) + 1;
    const LayerAttention<kType> attention(position, layer.k_cache, layer.v_cache);
    attention.prefetch_rows();
#pragma unroll 1
    for (int step = 0; step < kLayerSteps; ++step) {
      if (step == kStepO) {
        attention.score(epoch);
        attention.sum(epoch);
      }
      const bool first = l == 0 && step == kStepQkv;
      const int n_col_tiles = state.plan.n_col_tiles[step], n = state.n_tiles[step] * (step == kStepGate ? 2 : 1);
      const auto phase = [&](auto fours) {
        return product_phase<decltype(fours)::value>(n_taken, first ? nullptr : exchange + state.plan.inputs[step],
                                                     call.x, step == kStepQkv ? epoch - 1 : epoch, layer.norms[step],
                                                     state.plan.n_cols[step], n, n_col_tiles);
      };
      const float inv_scale = fours_of(n_col_tiles) == 2 ? phase(std::integral_constant<int, 2>())
                                                         : phase(std::integral_constant<int, 6>());
      n_taken += n * ((n_col_tiles + kSlotTiles - 1) / kSlotTiles);
      if (!has_row(step)) continue;
      const int own = step == kStepGate ? row() / kTileRows * 2 * kTileRows + row() % kTileRows : row();
      int tile = row_of_all(step) / kTileRows;
      const int matrix = matrix_of(call, step, tile);
      float y = product_of(own, inv_scale, layer.alphas[matrix]);
      if (step == kStepGate) {
        y = gated(call.relu2, y, product_of(own + kTileRows, inv_scale, layer.alphas[kLayerUp]));
      } else if (step != kStepQkv) {
        y = residual += y;
      }
      send_group<kRowThreads>(exchange + state.plan.outputs[step] + row_of_all(step) / kGroup,
                              state.plan.n_out_groups[step], y, epoch);
    }
  }
  if (has_row(kStepO) && thread_index() % kRowThreads == 0) call.x[row_of_all(kStepO)] = residual;
  // Every block has read it: this one has had something of each.
  if (blockIdx.x == 0 && thread_index() == 0) *call.epoch = base + uint32_t(call.n_layers);
#endif
}

template <TableType kType>
cudaError_t launch(const Launcher& launcher, const TokenLayers& call) {
  const auto kernel = token_layers_kernel<kType>;
  const int blocks = n_blocks(launcher, call);
  const LayersPlan plan = plan_of(call, blocks);
  const cudaError_t error = prepare_kernel(reinterpret_cast<const void*>(kernel), size_t(plan.shared_bytes));
  if (error != cudaSuccess) return error;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(unsigned(blocks));
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = size_t(plan.shared_bytes);
  config.stream = launcher.stream;
  cudaLaunchAttribute together = {};  // the blocks wait for each other
  together.id = cudaLaunchAttributeCooperative;
  together.val.cooperative = 1;
  config.attrs = &together;
  config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, kernel, call, plan);
}

}  // namespace

int64_t token_layers_positions(const Launcher& launcher, const TokenLayers& call) {
  const Cache& cache = call.cache;
  const int n_kv_heads = int(cache.n_kv_heads), d = int(cache.head_dim);
  const auto whole = [](int n) { return n > 0 && n % kTileRows == 0; };
  if (!launcher.dependent || (cache.type != TableType::kF16 && cache.type != TableType::kF32)) return 0;
  if (call.n_layers > kMaxLayers || !whole(call.d_model) || !whole(call.d_q) || !whole(call.d_kv) ||
      !whole(call.d_ff) || d % 16 != 0 || d > kMaxLayersHeadDim || call.n_heads / n_kv_heads > kMaxHeadsPerKv ||
      max(call.model_col_tiles, call.q_col_tiles) > 2 * kSlotTiles || call.ff_col_tiles > 6 * kSlotTiles) {
    return 0;
  }
  const int blocks = n_blocks(launcher, call);
  if (plan_of(call, blocks).shared_bytes > kMostShared_bytes) return 0;
  const auto most = [&](int n) { return int(n_tiles(n / kTileRows, blocks)); };
  if (most(call.d_q + 2 * call.d_kv) > 2 || most(call.d_model) > 2 || 2 * most(call.d_ff) > kMaxRowTiles) return 0;
  return layers_positions(cache.type);
}

size_t token_layers_words(const TokenLayers& call) { return 2 * size_t(plan_of(call, 1).n_words); }

cudaError_t token_layers(const Launcher& launcher, const TokenLayers& call) {
  return call.cache.type == TableType::kF16 ? launch<TableType::kF16>(launcher, call)
                                            : launch<TableType::kF32>(launcher, call);
}

}  // namespace bitnet::cuda
