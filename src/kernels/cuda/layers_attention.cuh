#pragma once

#include "kernels/cuda/cached_rows.cuh"
#include "kernels/cuda/token_layers.cuh"

#include <type_traits>

// Attention of the one new token in the kernel of all layers (numerics.md 8 in its order). First the blocks compute
// scores, each of some positions for the query heads of one key head; then each sums some dimensions of the output of
// those heads, for which it takes all their scores.
namespace bitnet::cuda {

constexpr int kUnitDims = kGroup;  // of the output, that a block sums at once
constexpr int kMaxHeadsPerKv = 8;
constexpr int kMaxLayersHeadDim = 128;

// Positions whose values have room in a block.
BN_HOST_DEVICE constexpr int layers_positions(TableType type) { return type == TableType::kF16 ? 768 : 384; }
BN_HOST_DEVICE constexpr int element_bytes(TableType type) { return type == TableType::kF16 ? 2 : 4; }
// Of scores, and of a dimension's values: a multiple of four that is none of 32.
BN_HOST_DEVICE constexpr int position_stride(TableType type) { return layers_positions(type) + 4; }

#if __CUDA_ARCH__ >= 900
template <TableType kType>
class LayerAttention {
 public:
  __device__ LayerAttention(int position, uint8_t* k, uint8_t* v)
      : plan_(block().plan),
        k_(k),
        v_(v),
        position_(position),
        part_((position + plan_.n_score_parts) / plan_.n_score_parts) {}

  // Asks for what the cache has for this block's part of a layer.
  __device__ void prefetch_rows() const {
    if (int(blockIdx.x) < n_score_units()) fetch_keys(int(blockIdx.x));
    async_commit();
    if (int(blockIdx.x) < n_value_units()) fetch_values(int(blockIdx.x));
    async_commit();
  }

  __device__ void score(uint32_t epoch) const {
    async_wait<1>();  // the keys; the first barrier of a unit follows
    for (int unit = int(blockIdx.x); unit < n_score_units(); unit += int(gridDim.x)) {
      const int begin = unit % plan_.n_score_parts * part_, n = min(part_, n_seen() - begin);
      if (n <= 0) continue;
      if (unit != int(blockIdx.x)) {
        fetch_keys(unit);
        async_commit();
        async_wait<0>();
      }
      score_unit(epoch, unit / plan_.n_score_parts, begin, n);
    }
  }

  __device__ void sum(uint32_t epoch) const {
    for (int unit = int(blockIdx.x); unit < n_value_units(); unit += int(gridDim.x)) {
      if (unit != int(blockIdx.x)) {
        sync_workers();
        fetch_values(unit);
        async_commit();
      }
      sum_unit(epoch, unit);
    }
  }

 private:
  static constexpr int kBytes = element_bytes(kType), kStride = position_stride(kType);
  using Element = std::conditional_t<kType == TableType::kF16, __half, float>;

  __device__ int key_stride() const { return plan_.row_bytes + 16; }
  __device__ uint8_t* keys() const { return block_memory() + plan_.keys; }      // [part, key_stride()]
  __device__ uint8_t* values() const { return block_memory() + plan_.values; }  // [positions, kUnitDims] as stored
  __device__ Element* turned() const {                                          // [kUnitDims, kStride]
    return reinterpret_cast<Element*>(block_memory() + plan_.turned);
  }
  __device__ float* scores() const { return block_floats(plan_.score_rows); }  // [heads_per_kv, kStride]
  __device__ int n_seen() const { return position_ + 1; }
  __device__ int n_score_units() const { return plan_.n_kv_heads * plan_.n_score_parts; }
  __device__ int n_value_units() const { return plan_.n_kv_heads * plan_.n_dim_units; }
  __device__ uint8_t* row_of(uint8_t* plane, int kv_head, int p) const {
    const int64_t page = p / kPagePositions;
    return plane + (page * plan_.page_rows + int64_t(kv_head) * plan_.head_rows + p % kPagePositions) * plan_.row_bytes;
  }
  __device__ uint64_t* sent_scores(int head) const {
    return reinterpret_cast<uint64_t*>(plan_.exchange + plan_.scores) + head * layers_positions(kType);
  }
  __device__ void fetch_keys(int unit) const {
    const int kv_head = unit / plan_.n_score_parts, begin = unit % plan_.n_score_parts * part_;
    const int n = min(part_, position_ - begin), pieces = plan_.row_bytes / 16;
    for (int i = thread_index(); i < n * pieces; i += kWorkers) {
      const int p = i / pieces, piece = i - p * pieces;
      async_copy16(keys() + p * key_stride() + piece * 16, row_of(k_, kv_head, begin + p) + piece * 16);
    }
  }
  __device__ void fetch_values(int unit) const {
    constexpr int kPieces = kUnitDims * kBytes / 16;
    const int units = plan_.n_dim_units, kv_head = unit / units, at = unit % units * kUnitDims * kBytes;
    for (int i = thread_index(); i < position_ * kPieces; i += kWorkers) {
      const int p = i / kPieces, piece = i % kPieces;
      async_copy16(values() + i * 16, row_of(v_, kv_head, p) + at + piece * 16);
    }
  }

  __device__ void score_unit(uint32_t epoch, int kv_head, int begin, int n) const {
    // The rotated queries of the heads, the new key, the new value.
    __shared__ __align__(16) float rows[(kMaxHeadsPerKv + 2) * kMaxLayersHeadDim];
    const int tid = thread_index(), warp = tid / 32, lane = tid % 32, d = plan_.head_dim;
    const int n_heads = plan_.heads_per_kv, groups = d / kGroup, n_pairs = plan_.n_pairs;
    const bool stores = begin == 0, newest = begin + n == n_seen();
    const uint4* const qkv = plan_.exchange + plan_.outputs[kStepQkv];
    float* const new_k = rows + n_heads * d;
    float* const new_v = new_k + d;
    const int n_groups = (plan_.d_q + 2 * plan_.d_kv) / kGroup, q_groups = n_heads * groups;
    for (int i = tid; i < q_groups + (stores ? 2 : 1) * groups; i += kWorkers) {
      const int key = plan_.d_q / kGroup + kv_head * groups + i - q_groups;
      const int from = i < q_groups            ? kv_head * q_groups + i
                       : i < q_groups + groups ? key
                                               : key - groups + plan_.d_kv / kGroup;
      receive_group(qkv + from, n_groups, epoch, [&](int e, float x) { rows[i * kGroup + e] = x; });
    }
    __syncwarp();
    sync_workers();
    for (int i = tid; i < (n_heads + 1) * n_pairs; i += kWorkers) {
      const int head = i / n_pairs, at = i - head * n_pairs;
      float* const pair = rows + head * d + at;
      const int64_t angle = int64_t(position_) * n_pairs + at;
      const float c = __ldg(plan_.cos + angle), s = __ldg(plan_.sin + angle), a = pair[0], b = pair[n_pairs];
      pair[0] = a * c - b * s;
      pair[n_pairs] = b * c + a * s;
    }
    sync_workers();
    if (newest) {
      for (int i = tid; i < d; i += kWorkers) {
        store_value<kType>(new_k[i], i, keys() + (position_ - begin) * key_stride());
      }
    }
    if (stores) {
      for (int i = tid; i < d; i += kWorkers) {
        store_value<kType>(new_k[i], i, row_of(k_, kv_head, position_));
        store_value<kType>(new_v[i], i, row_of(v_, kv_head, position_));
      }
    }
    if (newest) sync_workers();
    // Two threads a score: one has lanes 0 to 7 of the lane sum, the other lanes 8 to 15.
    const float scale = 1.0f / sqrtf(float(d));
    const int n_items = 2 * n * n_heads;
    for (int first = warp * 32; first < n_items; first += kWorkers) {
      const int item = first + lane, half = item % 2, p = item / 2 / n_heads, head = item / 2 - p * n_heads;
      float lanes[8] = {};
      if (item < n_items) {
        const uint8_t* const key = keys() + p * key_stride();
#pragma unroll 4
        for (int i = 0; i < d / 16; ++i) {
          Stored<kType> k;
          Stored<TableType::kF32> q;
          k.load(key, 16 * i + 8 * half, 0);
          q.load(reinterpret_cast<const uint8_t*>(rows + head * d), 16 * i + 8 * half, 0);
#pragma unroll
          for (int e = 0; e < 8; ++e) lanes[e] += k.at(e) * q.at(e);
        }
      }
#pragma unroll
      for (int e = 0; e < 8; ++e) lanes[e] += __shfl_xor_sync(kFullWarp, lanes[e], 1);
#pragma unroll
      for (int e = 0; e < 4; ++e) lanes[e] += lanes[e + 4];
      if (item < n_items && half == 0) {
        send_score(sent_scores(kv_head * n_heads + head) + begin + p,
                   ((lanes[0] + lanes[2]) + (lanes[1] + lanes[3])) * scale, epoch);
      }
    }
    sync_workers();
  }

  __device__ void sum_unit(uint32_t epoch, int unit) const {
    __shared__ float maxima[kRingWarps], inverses[kMaxHeadsPerKv];
    const int tid = thread_index(), warp = tid / 32, lane = tid % 32, n_heads = plan_.heads_per_kv, n = n_seen();
    const int units = plan_.n_dim_units, kv_head = unit / units, group_of = unit - kv_head * units;
    // Some warps have a head each; each thread takes two scores at a time.
    const int warps_per_head = kRingWarps / n_heads, head = warp / warps_per_head, step = warps_per_head * 64;
    const int begin = (warp - head * warps_per_head) * 64 + lane * 2;
    const bool active = head < n_heads;
    float* const mine = scores() + (active ? head : 0) * kStride;
    const uint64_t* const from = sent_scores(kv_head * n_heads + (active ? head : 0));
    float largest = -INFINITY;
    constexpr int kAhead = 6;
    for (int p0 = begin; active && p0 < n; p0 += kAhead * step) {
      ScorePair pairs[kAhead];
#pragma unroll
      for (int j = 0; j < kAhead; ++j) {
        if (p0 + j * step < n) pairs[j] = look(from + p0 + j * step);
      }
#pragma unroll
      for (int j = 0; j < kAhead; ++j) {
        const int p = p0 + j * step;
        if (p >= n) continue;
        while (!pairs[j].has_arrived(epoch, p + 1 < n)) pairs[j] = look(from + p);
        mine[p] = __uint_as_float(uint32_t(pairs[j].first));
        largest = spec_max(mine[p], largest);
        if (p + 1 < n) {
          mine[p + 1] = __uint_as_float(uint32_t(pairs[j].second));
          largest = spec_max(mine[p + 1], largest);
        }
      }
    }
    for (int half = 16; half > 0; half /= 2) largest = fmaxf(largest, __shfl_xor_sync(kFullWarp, largest, half));
    if (lane == 0) maxima[warp] = largest;
    if (tid == kWorkers - 1) {
      const int n_groups = (plan_.d_q + 2 * plan_.d_kv) / kGroup;
      receive_group(
          plan_.exchange + plan_.outputs[kStepQkv] + (plan_.d_q + plan_.d_kv) / kGroup + kv_head * units + group_of,
          n_groups, epoch, [&](int e, float x) { store_value<kType>(x, position_ * kUnitDims + e, values()); });
    }
    async_wait<0>();
    __syncwarp();
    sync_workers();
    if (active) {
      float m = maxima[head * warps_per_head];
      for (int i = 1; i < warps_per_head; ++i) m = fmaxf(m, maxima[head * warps_per_head + i]);
      for (int p = begin; p < n; p += step) {
        mine[p] = spec_exp(mine[p] - m);
        if (p + 1 < n) mine[p + 1] = spec_exp(mine[p + 1] - m);
      }
    }
    for (int p = tid; p < n; p += kWorkers) {
#pragma unroll
      for (int i = 0; i < kUnitDims; ++i) {
        turned()[i * kStride + p] = reinterpret_cast<const Element*>(values())[p * kUnitDims + i];
      }
    }
    sync_workers();
    if (const int summed = kRingWarps - 1 - warp; summed < n_heads) {
      float sum = 0.0f;
#pragma unroll 8
      for (int p = lane % 16; p < n; p += 16) sum += scores()[summed * kStride + p];
      sum = fold_lanes(sum);
      if (lane == 0) inverses[summed] = 1.0f / sum;
    }
    // A thread sums one dimension of one head; idle ones stay for the shuffles of sending.
    const int out_head = tid / kUnitDims, dim = tid % kUnitDims;
    const bool sums = out_head < n_heads;
    const float sum = sums ? weighted_sum(scores() + out_head * kStride, turned() + dim * kStride, n) : 0.0f;
    __syncwarp();
    sync_workers();
    if (warp * 32 < n_heads * kUnitDims) {
      const int to_head = kv_head * n_heads + min(out_head, n_heads - 1);
      send_group<1>(plan_.exchange + plan_.attn + to_head * units + group_of, plan_.d_q / kGroup,
                    sums ? sum * inverses[out_head] : 0.0f, epoch, sums);
    }
  }

  static __device__ float4 four(const float* at) { return *reinterpret_cast<const float4*>(at); }
  static __device__ float4 four(const __half* at) {
    const uint2 raw = *reinterpret_cast<const uint2*>(at);
    const float2 a = __half22float2(*reinterpret_cast<const __half2*>(&raw.x));
    const float2 b = __half22float2(*reinterpret_cast<const __half2*>(&raw.y));
    return make_float4(a.x, a.y, b.x, b.y);
  }
  // The additions are a chain; what they add is loaded sixteen positions ahead of them.
  static __device__ float weighted_sum(const float* weights, const Element* values, int n) {
    float sum = 0.0f;
    const int last = n / 16 * 16 - 16;  // of whole sixteens
    float4 e[4], v[4];
    const auto load = [&](int p) {
#pragma unroll
      for (int j = 0; j < 4; ++j) e[j] = four(weights + p + 4 * j), v[j] = four(values + p + 4 * j);
    };
    if (last >= 0) load(0);
#pragma unroll 1
    for (int p = 0; p <= last; p += 16) {
      float4 terms[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        terms[j] = make_float4(e[j].x * v[j].x, e[j].y * v[j].y, e[j].z * v[j].z, e[j].w * v[j].w);
      }
      load(min(p + 16, last));
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        sum += terms[j].x;
        sum += terms[j].y;
        sum += terms[j].z;
        sum += terms[j].w;
      }
    }
    for (int p = last + 16; p < n; ++p) sum += weights[p] * float(values[p]);
    return sum;
  }

  const LayersPlan& plan_;
  uint8_t *const k_, *const v_;
  const int position_;
  const int part_;  // positions
};

template <TableType kType>
__device__ __forceinline__ void prefetch_phase(int position, uint8_t* k, uint8_t* v) {
  LayerAttention<kType>(position, k, v).prefetch_rows();
}
template <TableType kType>
__device__ __forceinline__ void score_phase(int position, uint8_t* k, uint8_t* v, uint32_t epoch) {
  LayerAttention<kType>(position, k, v).score(epoch);
}
template <TableType kType>
__device__ __forceinline__ void sum_phase(int position, uint8_t* k, uint8_t* v, uint32_t epoch) {
  LayerAttention<kType>(position, k, v).sum(epoch);
}
#endif

}  // namespace bitnet::cuda
