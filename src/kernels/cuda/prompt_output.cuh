#pragma once

#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/prompt_tiles.cuh"

// The way of a tile's sums from registers to the outputs.
namespace bitnet::cuda::tiles {

constexpr int kMagic = 0x4b400000;  // 1.5 * 2^23 as float32: adding an integer to its bits makes a float of it
// Of a token's sums: what is subtracted, with kMagic added to it, and the factor.
struct TokenScale {
  int less;
  float inv;
};

// Where a warpgroup's sums go: a lane has four rows, with a gate those of both segments and every other token.
class Output {
 public:
  __device__ Output(const PromptProduct& call, const Piece& p, int group, int lane)
      : call_(call),
        gate_(is_gate(call.epilogue)),
        column_(lane % (gate_ ? 16 : 32) * 4),
        odd_(gate_ ? lane / 16 : 0),
        first_token_(p.token_block * kTokenBlock + odd_) {
    const RowTile at = row_tile(call, gate_, p.row_block, group, column_ / 64, column_ % 64 / kTileRows);
    const Segment& s = call.segments[at.segment];
    const int row = at.tile * kTileRows + column_ % kTileRows;
    n_rows_ = s.n_rows;
    alpha_ = s.alpha;
    out_ = s.out + row;
    n_valid_ = min(s.n_rows - row, 4);
    // The same for all lanes of all tiles but the last ones.
    const bool fits = n_valid_ == 4 && s.n_rows % 4 == 0 && (p.token_block + 1) * kTokenBlock <= call.x.n_tokens;
    whole_ = __all_sync(kFullWarp, fits);
  }
  // What group `group` of the piece's tokens is added to.
  __device__ void read(int group, float4 (&before)[8]) const {
    const float* const from = out_ + size_t(first_token_ + group * 8) * n_rows_;
    if (whole_) {
#pragma unroll
      for (int i = 0; i < 8; ++i) before[i] = load4(from + size_t(i) * n_rows_);
    }
  }
  // The group's sums, by a warp. Scales are those of the piece's tokens. Reads what group `next` is added to, if there
  // is such a group.
  __device__ void put(const int* sums, const TokenScale* scales, int group, int next, float4 (&before)[8]) const {
    const int* const from = sums + odd_ * kSumStride + column_;
    const TokenScale* const scale = scales + group * 8 + odd_;
    float* const to = out_ + size_t(first_token_ + group * 8) * n_rows_;
    const size_t stride = size_t(n_rows_);
    if (!whole_) {
      put_part(from, scale, group, to);
    } else if (call_.epilogue == Epilogue::kGateRelu2) {
#pragma unroll
      for (int i = 0; i < 8; i += 2) store4(to + i * stride, gate(true, from + i * kSumStride, scale[i]));
    } else if (gate_) {
#pragma unroll 1
      for (int i = 0; i < 8; i += 2) store4(to + i * stride, gate(false, from + i * kSumStride, scale[i]));
    } else if (call_.epilogue == Epilogue::kAdd) {
      const ptrdiff_t ahead = ptrdiff_t(next < kGroups ? next - group : 0) * 8 * n_rows_;
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const float4 y = values(from + i * kSumStride, scale[i], alpha_), x = before[i];
        before[i] = load4(to + i * stride + ahead);
        store4(to + i * stride, make_float4(x.x + y.x, x.y + y.y, x.z + y.z, x.w + y.w));
      }
    } else {
#pragma unroll
      for (int i = 0; i < 8; ++i) store4(to + i * stride, values(from + i * kSumStride, scale[i], alpha_));
    }
  }

 private:
  // The conversion is exact: sums are far from 2^22.
  static __device__ float4 values(const int* sums, const TokenScale& scale, float alpha) {
    const int4 v = *reinterpret_cast<const int4*>(sums);
    const auto value = [&](int sum) {
      return ((__int_as_float(sum + scale.less) - __int_as_float(kMagic)) * scale.inv) * alpha;
    };
    return make_float4(value(v.x), value(v.y), value(v.z), value(v.w));
  }
  __device__ float4 gate(bool relu2, const int* sums, const TokenScale& scale) const {
    const float4 y = values(sums, scale, alpha_), up = values(sums + 64, scale, call_.segments[1].alpha);
    return make_float4(gated(relu2, y.x, up.x), gated(relu2, y.y, up.y), gated(relu2, y.z, up.z),
                       gated(relu2, y.w, up.w));
  }
  static __device__ void store4(float* to, const float4& y) { *reinterpret_cast<float4*>(to) = y; }
  // Where there are fewer tokens or rows, or rows that do not begin at 16 bytes.
  __device__ void put_part(const int* sums, const TokenScale* scale, int group, float* to) const {
#pragma unroll 1
    for (int i = 0; i < 8; i += gate_ ? 2 : 1) {
      if (first_token_ + group * 8 + i >= call_.x.n_tokens) return;
      const float4 y = gate_ ? gate(call_.epilogue == Epilogue::kGateRelu2, sums + i * kSumStride, scale[i])
                             : values(sums + i * kSumStride, scale[i], alpha_);
      const float all[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        float* const place = to + size_t(i) * n_rows_ + e;
        if (e < n_valid_) *place = call_.epilogue == Epilogue::kAdd ? load1(place) + all[e] : all[e];
      }
    }
  }

  const PromptProduct& call_;
  bool gate_, whole_;
  int column_, odd_, first_token_;
  float* out_;
  int n_rows_, n_valid_;
  float alpha_;
};

// Of a warpgroup.
__device__ inline void group_barrier(int group) { asm volatile("bar.sync %0, 128;" ::"r"(group + 1) : "memory"); }

// Groups of tokens first, first + step, ... of the piece, which acc has one after the other. They go through shared
// memory, so that rows of an output lie side by side and the code is short: it is fetched once in so many products.
__device__ inline void put_out(const PromptProduct& call, const Piece& p, int* memory, const TokenScale* scales,
                               int warp, int lane, int first, int step, const int (&acc)[2][64]) {
  const int group = warp / 4, quarter = warp % 4, g = lane / 4, t = lane % 4;
  const Output output(call, p, group, lane);
  const bool adds = call.epilogue == Epilogue::kAdd;
  float4 before[8];
  if (adds) output.read(quarter * step + first, before);
#pragma unroll 1
  for (int pass = 0; pass * kPassGroups * step + first < kGroups; ++pass) {
    int* const sums = memory + (2 * group + pass % 2) * kSums;
    int* const to = sums + 2 * t * kSumStride + quarter * kTileRows + g;
#pragma unroll
    for (int u = 0; u < kGroups; ++u) {
      if (u / kPassGroups != pass) continue;
#pragma unroll
      for (int a = 0; a < 2; ++a) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          to[(u % kPassGroups * 8 + e % 2) * kSumStride + a * 64 + e / 2 * 8] = acc[a][4 * u + e];
        }
      }
    }
    group_barrier(group);  // which all pass that have read the buffer of the pass before
    const int mine = (pass * kPassGroups + quarter) * step + first, next = mine + kPassGroups * step;
    if (mine < kGroups) output.put(sums + quarter * 8 * kSumStride, scales, mine, next, before);
  }
}

}  // namespace bitnet::cuda::tiles
