#pragma once

#include "kernels/cuda/token_layers.cuh"

// Attention of the one new token in the kernel of all layers (numerics.md 8 in its order). First the blocks compute
// scores, each of some positions for the query heads of one key head; then each sums some dimensions of the output of
// those heads, for which it takes all their scores.
namespace bitnet::cuda {

#if __CUDA_ARCH__ >= 900
template <TableType kType, class Shape>
class LayerAttention {
 public:
  __device__ LayerAttention(const TokenLayers& call, int position, uint8_t* k, uint8_t* v)
      : call_(call),
        k_(k),
        v_(v),
        position_(position),
        part_((position + plan().n_score_parts) / plan().n_score_parts) {}

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
      const int begin = unit % plan().n_score_parts * part_, n = min(part_, n_seen() - begin);
      if (n <= 0) continue;
      if (unit != int(blockIdx.x)) {
        sync_workers();
        fetch_keys(unit);
        async_commit();
        async_wait<0>();
      }
      score_unit(epoch, unit / plan().n_score_parts, begin, n);
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

  static __device__ __forceinline__ decltype(auto) plan() { return the_plan<kType, Shape>(); }
  __device__ uint4* exchange() const { return reinterpret_cast<uint4*>(call_.exchange); }
  __device__ int key_stride() const { return plan().row_bytes + 16; }
  __device__ uint8_t* keys() const { return block_memory() + plan().keys; }      // [part, key_stride()]
  __device__ uint8_t* values() const { return block_memory() + plan().values; }  // [positions, unit_dims] as stored
  __device__ float* weights() const { return block_floats(plan().weights); }     // [positions]
  __device__ int n_seen() const { return position_ + 1; }
  __device__ int n_score_units() const { return plan().n_kv_heads * plan().n_score_parts; }
  __device__ int units_per_head() const { return plan().head_dim / plan().unit_dims; }
  __device__ int n_value_units() const { return plan().n_kv_heads * plan().heads_per_kv * units_per_head(); }
  __device__ uint8_t* row_of(uint8_t* plane, int kv_head, int p) const {
    return plane + (kv_head * call_.cache.head_rows + p) * plan().row_bytes;
  }
  __device__ uint64_t* sent_scores(int head) const {
    return reinterpret_cast<uint64_t*>(exchange() + plan().scores) + head * layers_positions(kType);
  }
  __device__ void fetch_keys(int unit) const {
    const int kv_head = unit / plan().n_score_parts, begin = unit % plan().n_score_parts * part_;
    const int n = min(part_, position_ - begin), pieces = plan().row_bytes / 16;
    for (int i = thread_index(); i < n * pieces; i += kWorkers) {
      const int p = i / pieces, piece = i - p * pieces;
      async_copy16(keys() + p * key_stride() + piece * 16, row_of(k_, kv_head, begin + p) + piece * 16);
    }
  }
  __device__ void fetch_values(int unit) const {
    const int units = units_per_head(), kv_head = unit / (units * plan().heads_per_kv), bytes = unit_bytes();
    const int pieces = bytes / 16, n = position_ * pieces;
    const uint8_t* const from = row_of(v_, kv_head, 0) + unit % units * bytes;
    for (int i = thread_index(); i < n; i += kWorkers) {
      const int p = i / pieces, piece = i - p * pieces;
      async_copy16(values() + i * 16, from + p * plan().row_bytes + piece * 16);
    }
  }
  __device__ int unit_bytes() const { return plan().unit_dims * kBytes; }

  // Eight values at `to`, as the cache stores them.
  static __device__ void store_eight(const float (&x)[kGroup], uint8_t* to) {
    if constexpr (kType == TableType::kF16) {
      const auto pair = [&](int e) {
        const __half2 both = __floats2half2_rn(x[e], x[e + 1]);
        return *reinterpret_cast<const uint32_t*>(&both);
      };
      *reinterpret_cast<uint4*>(to) = make_uint4(pair(0), pair(2), pair(4), pair(6));
    } else {
      reinterpret_cast<float4*>(to)[0] = make_float4(x[0], x[1], x[2], x[3]);
      reinterpret_cast<float4*>(to)[1] = make_float4(x[4], x[5], x[6], x[7]);
    }
  }

  // A part's query heads and the new key come from other blocks, two groups of rotated pairs a thread. The key goes to
  // the part that has the newest position; with the new value to the cache, by the first part.
  __device__ void receive_heads(uint32_t epoch, int kv_head, int begin, int n, float* queries) const {
    const int groups = plan().head_dim / kGroup, pairs = plan().n_pairs / kGroup, per_head = groups - pairs;
    const int n_heads = plan().heads_per_kv, q_groups = plan().d_q / kGroup, kv_groups = plan().d_kv / kGroup;
    const int n_words = q_groups + 2 * kv_groups, n_rotated = (n_heads + 1) * per_head;
    const bool stores = begin == 0, newest = begin + n == n_seen();
    const uint4* const qkv = exchange() + plan().outputs[kStepQkv];
    for (int i = thread_index(); i < n_rotated + (stores ? groups : 0); i += kWorkers) {
      const bool is_value = i >= n_rotated;
      const int head = is_value ? n_heads : i / per_head, at = is_value ? i - n_rotated : i - head * per_head;
      const bool rotates = !is_value && at < pairs, is_query = head < n_heads;
      const int place = is_value || rotates ? at : at + pairs;
      float angles[2][kGroup];
      if (rotates) {
        const int64_t angle = int64_t(position_) * plan().n_pairs + at * kGroup;
#pragma unroll
        for (int e = 0; e < kGroup; ++e) angles[0][e] = __ldg(call_.rope.cos + angle + e);
#pragma unroll
        for (int e = 0; e < kGroup; ++e) angles[1][e] = __ldg(call_.rope.sin + angle + e);
      }
      const int first = is_query ? (kv_head * n_heads + head) * groups + place
                                 : q_groups + (is_value ? kv_groups : 0) + kv_head * groups + place;
      float x[2][kGroup];
      receive<2>(qkv, first, pairs, rotates ? n_words : first + 1, n_words, epoch, x);
      if (rotates) {
#pragma unroll
        for (int e = 0; e < kGroup; ++e) {
          const float a = x[0][e], b = x[1][e], c = angles[0][e], s = angles[1][e];
          x[0][e] = a * c - b * s;
          x[1][e] = b * c + a * s;
        }
      }
      const auto put = [&](const float(&values)[kGroup], int group) {
        const int bytes = kGroup * kBytes * group;
        if (is_query) {
          float4* const to = reinterpret_cast<float4*>(queries + head * query_stride() + group * kGroup);
          to[0] = make_float4(values[0], values[1], values[2], values[3]);
          to[1] = make_float4(values[4], values[5], values[6], values[7]);
        } else {
          if (stores) store_eight(values, row_of(is_value ? v_ : k_, kv_head, position_) + bytes);
          if (newest && !is_value) store_eight(values, keys() + (position_ - begin) * key_stride() + bytes);
        }
      };
      put(x[0], place);
      if (rotates) put(x[1], place + pairs);
    }
  }

  // Four consecutive values at `at`, a multiple of four, of a row.
  static __device__ float4 four_at(const uint8_t* row, int at) {
    return four(reinterpret_cast<const Element*>(row) + at);
  }

  __device__ int query_stride() const { return plan().head_dim + 16; }  // heads in other banks

  __device__ void score_unit(uint32_t epoch, int kv_head, int begin, int n) const {
    __shared__ __align__(16) float queries[kMaxHeadsPerKv * (kMaxLayersHeadDim + 16)];
    const int warp = thread_index() / 32, lane = thread_index() % 32, d = plan().head_dim;
    const int n_heads = plan().heads_per_kv;
    receive_heads(epoch, kv_head, begin, n, queries);
    __syncwarp();
    sync_workers();
    // Four threads a score, four lanes of the lane sum each.
    const float scale = 1.0f / sqrtf(float(d));
    const int n_items = 4 * n * n_heads;
    for (int first = warp * 32; first < n_items; first += kWorkers) {
      const int item = min(first + lane, n_items - 1), quarter = item % 4;
      const int p = item / 4 / n_heads, head = item / 4 - p * n_heads;
      const uint8_t* const key = keys() + p * key_stride();
      const float* const query = queries + head * query_stride() + 4 * quarter;
      float4 lanes = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll 4
      for (int i = 0; i < d; i += 16) {
        const float4 k = four_at(key, i + 4 * quarter), q = *reinterpret_cast<const float4*>(query + i);
        lanes.x += k.x * q.x;
        lanes.y += k.y * q.y;
        lanes.z += k.z * q.z;
        lanes.w += k.w * q.w;
      }
#pragma unroll
      for (int apart = 2; apart > 0; apart /= 2) {
        lanes.x += __shfl_xor_sync(kFullWarp, lanes.x, apart);
        lanes.y += __shfl_xor_sync(kFullWarp, lanes.y, apart);
        lanes.z += __shfl_xor_sync(kFullWarp, lanes.z, apart);
        lanes.w += __shfl_xor_sync(kFullWarp, lanes.w, apart);
      }
      if (first + lane < n_items && quarter == 0) {
        send_score(sent_scores(kv_head * n_heads + head) + begin + p,
                   ((lanes.x + lanes.z) + (lanes.y + lanes.w)) * scale, epoch);
      }
    }
  }

  // Bits of floats in the order of the floats, but for NaNs.
  static __device__ uint32_t ordered(float x) {
    const uint32_t bits = __float_as_uint(x);
    return int(bits) < 0 ? ~bits : bits | 0x80000000u;
  }
  static __device__ float from_ordered(uint32_t bits) {
    return __uint_as_float(int(bits) < 0 ? bits & 0x7fffffffu : ~bits);
  }

  // Some dimensions of a head's output. A warp sums a tile of positions at a time, a lane a dimension.
  __device__ void sum_unit(uint32_t epoch, int unit) const {
    constexpr int kMostTiles = layers_positions(kType) / kValueTile;
    constexpr int kPairs = (layers_positions(kType) / 2 + kWorkers - 1) / kWorkers;
    static_assert(layers_positions(kType) % kValueTile == 0);
    __shared__ uint32_t maxima[kRingWarps];
    __shared__ float inverse, tiles[kMostTiles][32];
    const int tid = thread_index(), warp = tid / 32, lane = tid % 32, n = n_seen();
    const int units = units_per_head(), head = unit / units, kv_head = head / plan().heads_per_kv;
    const int unit_dims = plan().unit_dims, unit_groups = unit_dims / kGroup, group_of = unit % units * unit_groups;
    if (warp == kRingWarps - 1 && lane < unit_groups) {  // the new value
      const int q_groups = plan().d_q / kGroup, kv_groups = plan().d_kv / kGroup;
      const int at = q_groups + kv_groups + kv_head * (plan().head_dim / kGroup) + group_of + lane;
      float x[1][kGroup];
      receive<1>(exchange() + plan().outputs[kStepQkv], at, 0, at + 1, q_groups + 2 * kv_groups, epoch, x);
      store_eight(x[0], values() + position_ * unit_bytes() + lane * kGroup * kBytes);
    }
    // Each thread has pairs of positions.
    const uint64_t* const from = sent_scores(head);
    ScorePair pairs[kPairs];
    const auto position_of = [&](int i) { return 2 * (tid + i * kWorkers); };
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      if (position_of(i) < n) pairs[i] = look(from + position_of(i));
    }
    float scores[kPairs][2], largest = -INFINITY;
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      const int p = position_of(i);
      const bool both = p + 1 < n;
      while (p < n && !pairs[i].has_arrived(epoch, both)) pairs[i] = look(from + p);
      scores[i][0] = p < n ? __uint_as_float(uint32_t(pairs[i].first)) : -INFINITY;
      scores[i][1] = both ? __uint_as_float(uint32_t(pairs[i].second)) : -INFINITY;
      largest = spec_max(scores[i][1], spec_max(scores[i][0], largest));
    }
    __syncwarp();
    const uint32_t bits = __reduce_max_sync(kFullWarp, ordered(largest));
    if (lane == 0) maxima[warp] = bits;
    async_wait<0>();
    sync_workers();
    const float m = from_ordered(__reduce_max_sync(kFullWarp, lane < kRingWarps ? maxima[lane] : 0u));
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      const int p = position_of(i);
      if (p < n) {
        *reinterpret_cast<float2*>(weights() + p) = make_float2(spec_exp(scores[i][0] - m), spec_exp(scores[i][1] - m));
      }
    }
    __syncwarp();
    sync_workers();
    for (int tile = warp; tile * kValueTile < n; tile += kRingWarps) {
      if (lane < unit_dims) {
        const int begin = tile * kValueTile;
        tiles[tile][lane] =
            weighted_sum(weights() + begin, reinterpret_cast<const Element*>(values()) + begin * unit_dims + lane,
                         unit_dims, min(n - begin, kValueTile));
      }
    }
    if (warp == kRingWarps - 1) {
      float sum = 0.0f;
#pragma unroll 8
      for (int p = lane % 16; p < n; p += 16) sum += weights()[p];
      sum = fold_lanes(sum);
      if (lane == 0) inverse = 1.0f / sum;
    }
    __syncwarp();
    sync_workers();
    if (warp == 0) {
      float sum = 0.0f;
      for (int tile = 0; tile * kValueTile < n; ++tile) sum += tiles[tile][lane];
      const bool sends = lane < unit_dims;
      send_group<1>(exchange() + plan().attn + head * (plan().head_dim / kGroup) + group_of + lane / kGroup,
                    plan().d_q / kGroup, sends ? sum * inverse : 0.0f, epoch, sends);
    }
  }

  static __device__ float4 four(const float* at) { return *reinterpret_cast<const float4*>(at); }
  static __device__ float4 four(const __half* at) {
    const uint2 raw = *reinterpret_cast<const uint2*>(at);
    const float2 a = __half22float2(*reinterpret_cast<const __half2*>(&raw.x));
    const float2 b = __half22float2(*reinterpret_cast<const __half2*>(&raw.y));
    return make_float4(a.x, a.y, b.x, b.y);
  }
  // The additions are a chain; what they add is loaded ahead of them.
  static __device__ float weighted_sum(const float* weights, const Element* values, int stride, int n) {
    float sum = 0.0f;
    int p = 0;
#pragma unroll 1
    for (; p + 16 <= n; p += 16) {
      float terms[16];
#pragma unroll
      for (int j = 0; j < 16; j += 4) {
        const float4 e = four(weights + p + j);
        terms[j] = e.x * float(values[(p + j) * stride]);
        terms[j + 1] = e.y * float(values[(p + j + 1) * stride]);
        terms[j + 2] = e.z * float(values[(p + j + 2) * stride]);
        terms[j + 3] = e.w * float(values[(p + j + 3) * stride]);
      }
#pragma unroll
      for (int j = 0; j < 16; ++j) sum += terms[j];
    }
    for (; p < n; ++p) sum += weights[p] * float(values[p * stride]);
    return sum;
  }

  const TokenLayers& call_;
  uint8_t *const k_, *const v_;
  const int position_;
  const int part_;  // positions
};
#endif

}  // namespace bitnet::cuda
