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

constexpr int kThreads = kWorkers + 32;
constexpr int kMostShared_bytes = 227 * 1024 - 10 * 1024;  // without the kernel's own arrays

int n_blocks(const Launcher& launcher, const TokenLayers& call) {
  return min(launcher.n_multiprocessors, call.d_model / kTileRows);
}

LayersShape shape_of(const TokenLayers& call, int n_blocks) {
  return {call.d_model,
          call.d_q,
          call.d_kv,
          call.d_ff,
          call.n_heads,
          int(call.cache.n_kv_heads),
          int(call.cache.head_dim),
          int(call.rope.n_pairs),
          n_blocks};
}
int shared_bytes_of(const TokenLayers& call, const LayersPlan& plan) {
  return plan.layers + call.n_layers * int(sizeof(LayerWeights));
}

#if __CUDA_ARCH__ >= 900
// The matrix of row tile `tile` of a step, counted in `tile` within that matrix from then on.
template <int kStep>
__device__ __forceinline__ int matrix_of(const LayersPlan& plan, int& tile) {
  if (kStep != kStepQkv) return kStep == kStepO ? kLayerO : kStep == kStepGate ? kLayerGate : kLayerDown;
  const int q_tiles = plan.d_q / kTileRows, kv_tiles = plan.d_kv / kTileRows;
  if (tile < q_tiles) return kLayerQ;
  tile -= q_tiles;
  if (tile < kv_tiles) return kLayerK;
  tile -= kv_tiles;
  return kLayerV;
}

template <TableType kType, class Shape, int kStep>
__device__ __forceinline__ void fetch_step(const LayerWeights& layer, int& count) {
  constexpr int kPerTile = kStep == kStepGate ? 2 : 1;
  const auto& plan = the_plan<kType, Shape>();
  const TilePart part = tiles_of_block<kType, Shape, kStep>();
  const int n_col_tiles = int(n_tiles(plan.n_cols[kStep], kTileCols));
#pragma unroll 1
  for (int i = 0; i < part.n * kPerTile; ++i) {
    int tile = part.first + i / kPerTile;
    const int matrix = matrix_of<kStep>(plan, tile) + i % kPerTile;
    const uint4* const from = layer.tiles[matrix] + size_t(tile) * n_col_tiles * 32;
#pragma unroll 1
    for (int j = 0; j < chunks_of(kStep); ++j) {  // slots behind the row's end stay empty
      const int at = j * kSlotTiles, n = max(min(kSlotTiles, n_col_tiles - at), 0);
      fetch_slot(block_memory(), block().barriers, count++, from + at * 32, uint32_t(n) * kTileBytes);
    }
  }
}
// In the order in which the other warps multiply.
template <TableType kType, class Shape>
__device__ void fetch_weights(const TokenLayers& call, const LayerWeights* layers) {
  int count = 0;
#pragma unroll 1
  for (int l = 0; l < call.n_layers; ++l) {
    fetch_step<kType, Shape, kStepQkv>(layers[l], count);
    fetch_step<kType, Shape, kStepO>(layers[l], count);
    fetch_step<kType, Shape, kStepGate>(layers[l], count);
    fetch_step<kType, Shape, kStepDown>(layers[l], count);
  }
}
#endif

template <TableType kType, class Shape>
__global__ void __launch_bounds__(kThreads, 1)
    token_layers_kernel(const __grid_constant__ TokenLayers call, const __grid_constant__ LayersPlan any_plan) {
#if __CUDA_ARCH__ >= 900
  const auto& plan = the_plan<kType, Shape>();
  if (thread_index() == 0) {
    block().plan = any_plan;
    for (int step = 0; step < kLayerSteps; ++step) {
      const TilePart part = tile_part(any_plan.n_rows[step], gridDim.x);
      block().plan.first_tile[step] = part.first;
      block().plan.n_tiles[step] = part.n;
    }
    init_ring(block().barriers);
  }
  __syncthreads();
  // Constants that each layer reads for the first time would be waited for.
  LayerWeights* const layers = reinterpret_cast<LayerWeights*>(block_memory() + plan.layers);
  for (int i = thread_index(); i < call.n_layers * int(sizeof(LayerWeights) / 8); i += kThreads) {
    reinterpret_cast<uint64_t*>(layers)[i] = reinterpret_cast<const uint64_t*>(call.layers)[i];
  }
  __syncthreads();
  if (thread_index() / 32 == kFetchWarp) {
    if (thread_index() % 32 == 0) fetch_weights<kType, Shape>(call, layers);
    return;
  }

  uint4* const exchange = reinterpret_cast<uint4*>(call.exchange);
  const uint32_t base = *call.epoch;
  const int position = *call.position;
  const float eps = call.eps;
  const bool relu2 = call.relu2;
  // A thread's row of a step's rows that the block has, if it has one, and of all.
  const int row = thread_index() / kRowThreads;
  // The residual stream, of the row that this thread has of o and of down.
  const TilePart outputs = tiles_of_block<kType, Shape, kStepO>();
  const bool has_output = row < outputs.n * kTileRows;
  float residual = has_output ? load1(call.x + outputs.first * kTileRows + row) : 0.0f;

  const int* const partial = reinterpret_cast<const int*>(block_memory() + plan.partial);
  RingPlace place;
#pragma unroll 1
  for (int l = 0; l < call.n_layers; ++l) {
    const LayerWeights& layer = layers[l];
    const uint32_t epoch = base + uint32_t(l) + 1;
    const LayerAttention<kType, Shape> attention(call, position, layer.k_cache, layer.v_cache);
    attention.prefetch_rows();
    const auto step = [&](auto which) {
      constexpr int kStep = decltype(which)::value;
      const float* const plain = kStep == kStepQkv && l == 0 ? call.x : nullptr;
      const float inv_scale = product_phase<kType, Shape, kStep>(
          place, exchange, plain, kStep == kStepQkv ? epoch - 1 : epoch, layer.norms[kStep], eps);
      const TilePart part = tiles_of_block<kType, Shape, kStep>();
      if (row >= part.n * kTileRows) return;
      const int own = kStep == kStepGate ? row / kTileRows * 2 * kTileRows + row % kTileRows : row;
      const int of_all = part.first * kTileRows + row;
      int tile = of_all / kTileRows;
      float y = product_of(partial, own, inv_scale, layer.alphas[matrix_of<kStep>(plan, tile)]);
      if (kStep == kStepGate) {
        y = gated(relu2, y, product_of(partial, own + kTileRows, inv_scale, layer.alphas[kLayerUp]));
      } else if (kStep != kStepQkv) {
        y = residual += y;
      }
      send_group<kRowThreads>(exchange + plan.outputs[kStep] + of_all / kGroup, plan.n_rows[kStep] / kGroup, y, epoch);
    };
    step(std::integral_constant<int, kStepQkv>());
    attention.score(epoch);
    attention.sum(epoch);
    step(std::integral_constant<int, kStepO>());
    step(std::integral_constant<int, kStepGate>());
    step(std::integral_constant<int, kStepDown>());
  }
  if (has_output && thread_index() % kRowThreads == 0) call.x[outputs.first * kTileRows + row] = residual;
  // Every block has read it: this one has had something of each.
  if (blockIdx.x == 0 && thread_index() == 0) *call.epoch = base + uint32_t(call.n_layers);
#endif
}

template <TableType kType, class Shape>
cudaError_t launch(const Launcher& launcher, const TokenLayers& call) {
  const auto kernel = token_layers_kernel<kType, Shape>;
  const LayersShape shape = shape_of(call, n_blocks(launcher, call));
  const LayersPlan plan = plan_of(kType, shape);
  const size_t shared_bytes = size_t(shared_bytes_of(call, plan));
  const cudaError_t error = prepare_kernel(reinterpret_cast<const void*>(kernel), shared_bytes);
  if (error != cudaSuccess) return error;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(unsigned(shape.n_blocks));
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = shared_bytes;
  config.stream = launcher.stream;
  cudaLaunchAttribute together = {};  // the blocks wait for each other
  together.id = cudaLaunchAttributeCooperative;
  together.val.cooperative = 1;
  config.attrs = &together;
  config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, kernel, call, plan);
}
template <TableType kType>
cudaError_t launch(const Launcher& launcher, const TokenLayers& call) {
  return shape_of(call, n_blocks(launcher, call)) == ReferenceShape::kShape
             ? launch<kType, ReferenceShape>(launcher, call)
             : launch<kType, AnyShape>(launcher, call);
}

}  // namespace

int64_t token_layers_positions(const Launcher& launcher, const TokenLayers& call) {
  const Cache& cache = call.cache;
  const int n_kv_heads = int(cache.n_kv_heads), d = int(cache.head_dim);
  const auto whole = [](int n) { return n > 0 && n % kTileRows == 0; };
  if (!launcher.dependent || (cache.type != TableType::kF16 && cache.type != TableType::kF32)) return 0;
  if (call.n_layers > kMaxLayers || !whole(call.d_model) || !whole(call.d_q) || !whole(call.d_kv) ||
      !whole(call.d_ff) || d % 16 != 0 || d > kMaxLayersHeadDim || call.n_heads / n_kv_heads > kMaxHeadsPerKv ||
      call.rope.n_pairs % kGroup != 0 || cache.page_rows != kPagePositions || cache.pages != nullptr ||
      max(call.model_col_tiles, call.q_col_tiles) > kSlotTiles || call.ff_col_tiles > kMaxChunks * kSlotTiles) {
    return 0;
  }
  const int blocks = n_blocks(launcher, call);
  if (shared_bytes_of(call, plan_of(cache.type, shape_of(call, blocks))) > kMostShared_bytes) return 0;
  const auto most = [&](int n) { return int(n_tiles(n / kTileRows, blocks)); };
  if (most(call.d_q + 2 * call.d_kv) > 2 || most(call.d_model) > 2 || 2 * most(call.d_ff) > kMaxRowTiles) return 0;
  return layers_positions(cache.type);
}

size_t token_layers_words(const TokenLayers& call) {
  return 2 * size_t(plan_of(TableType::kF16, shape_of(call, 1)).n_words);  // which takes the more positions
}

cudaError_t token_layers(const Launcher& launcher, const TokenLayers& call) {
  return call.cache.type == TableType::kF16 ? launch<TableType::kF16>(launcher, call)
                                            : launch<TableType::kF32>(launcher, call);
}

}  // namespace bitnet::cuda
