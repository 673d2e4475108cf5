#pragma once

#include "kernels/cuda/cluster.cuh"
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/prompt_tiles.cuh"
#include "kernels/cuda/wgmma.cuh"

// The way of codes to sums in registers: a ring of stages in shared memory, one warpgroup that fills it, two that
// multiply.
namespace bitnet::cuda::tiles {

#if BN_HAS_WGMMA
// Keeps the compiler from moving what these registers get or give over this place: they belong to the tensor cores
// from multiply() until a wait.
__device__ inline void pin(uint32_t (&planes)[2][2][4]) {
#pragma unroll
  for (int a = 0; a < 2; ++a) {
#pragma unroll
    for (int s = 0; s < 2; ++s) {
      asm volatile(""
                   : "+r"(planes[a][s][0]), "+r"(planes[a][s][1]), "+r"(planes[a][s][2]),
                     "+r"(planes[a][s][3])::"memory");
    }
  }
}
__device__ inline void pin(int (&acc)[2][64]) {
#pragma unroll
  for (int a = 0; a < 2; ++a) {
#pragma unroll
    for (int i = 0; i < 64; ++i) asm volatile("" : "+r"(acc[a][i])::"memory");
  }
}

// Half a column tile: two steps of 32 columns.
__device__ inline void unpack(const uint4 (&words)[2], int half, uint32_t (&planes)[2][2][4]) {
#pragma unroll
  for (int a = 0; a < 2; ++a) {
#pragma unroll
    for (int s = 0; s < 2; ++s) {
      const uint32_t w = half == 0 ? (s == 0 ? words[a].x : words[a].y) : (s == 0 ? words[a].z : words[a].w);
#pragma unroll
      for (int p = 0; p < 4; ++p) planes[a][s][p] = w >> (2 * p) & 0x03030303u;
    }
  }
  pin(planes);
}
__device__ inline void multiply(int (&acc)[2][64], const uint32_t (&planes)[2][2][4], uint64_t descriptor) {
  wgmma_fence();
#pragma unroll
  for (int s = 0; s < 2; ++s) {
#pragma unroll
    for (int a = 0; a < 2; ++a) wgmma_u8s8(acc[a], planes[a][s], descriptor + uint64_t(2 * s));
  }
  wgmma_commit();
}

struct Ring {
  uint8_t* memory;
  uint64_t *full, *empty;
};
struct Place {
  int stage = 0;
  uint32_t parity = 0;
  __device__ void next() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

// Weights do not wait for the kernel in front of this one.
template <int kCluster>
__device__ void produce(const PromptProduct& call, const Schedule<kCluster>& schedule, const Ring& ring,
                        uint64_t* reduced, int tid) {
  constexpr int kWarps = kProducers / 32, kEach = kRowTiles / kWarps;
  const int warp = tid / 32, lane = tid % 32;
  const size_t row_bytes = size_t(schedule.n_col_tiles) * kTileBytes;  // of a row tile
  Piece p;
  Place place;
  int n_shared = 0;
  for (int round = 0; schedule.piece(round, p); ++round) {
    const uint8_t* weights[kEach];
#pragma unroll
    for (int i = 0; i < kEach; ++i) {  // tiles beyond the last repeat it and are not put out
      const RowTile at = row_tile(call, is_gate(call.epilogue), p.row_block, warp / 2, warp % 2, i);
      const Segment& s = call.segments[at.segment];
      weights[i] = reinterpret_cast<const uint8_t*>(s.tiles + lane) + min(at.tile, s.n_row_tiles - 1) * row_bytes;
    }
    const int8_t* const codes = call.x.codes + size_t(p.token_block) * schedule.n_col_tiles * kCodeBytes;
    const auto fetch_weights = [&](int k, int stage) {
      uint8_t* const to = ring.memory + stage * kStage_bytes + kCodeBytes + warp * kEach * kTileBytes + lane * 16;
#pragma unroll
      for (int i = 0; i < kEach; ++i) async_copy16(to + i * kTileBytes, weights[i] + k * kTileBytes);
      barrier_arrive_copied(ring.full + stage);
    };
    const auto fetch_codes = [&](int k, int stage) {
      if (tid > 0) return;
      barrier_expect(ring.full + stage, kCodeBytes);
      bulk_copy(ring.memory + stage * kStage_bytes, codes + size_t(k) * kCodeBytes, kCodeBytes, ring.full + stage);
    };
    if (n_shared > 0) barrier_wait(reduced, uint32_t((n_shared - 1) & 1));
    int k = p.k_begin;
    if (round == 0) {
      const int n_first = min(kStages, p.k_end - p.k_begin);
      for (int i = 0; i < n_first; ++i) fetch_weights(k + i, i);
      wait_for_dependencies();
      for (int i = 0; i < n_first; ++i, ++k, place.next()) fetch_codes(k, i);
    }
    for (; k < p.k_end; ++k, place.next()) {
      barrier_wait(ring.empty + place.stage, place.parity ^ 1);
      fetch_codes(k, place.stage);
      fetch_weights(k, place.stage);
    }
    if (p.shared) {
      ++n_shared;
      for (int i = 0; i < 2; ++i) {
        __syncwarp();
        cluster_arrive();
        cluster_wait();
      }
    }
  }
}

// Of both warpgroups, where one only arrives.
__device__ inline void lead_arrive() { asm volatile("bar.arrive 3, 256;" ::: "memory"); }
__device__ inline void lead_wait() { asm volatile("bar.sync 3, 256;" ::: "memory"); }

__device__ inline uint4 shared_words(uint32_t address) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"(address)
               : "memory");
  return v;
}

// Sums of n_k column tiles. A warpgroup always has a group of products on its way while it unpacks the next.
// leads: the other warpgroup starts when this one has a lead of kLead column tiles, so that from then on one
// multiplies while the other puts out.
__device__ inline void accumulate(const Ring& ring, int n_k, Place& place, int warp, int lane, bool leads,
                                  int (&acc)[2][64]) {
#pragma unroll
  for (int a = 0; a < 2; ++a) {
#pragma unroll
    for (int i = 0; i < 64; ++i) acc[a][i] = 0;
  }
  pin(acc);
  if (n_k == 0) return;
  const uint32_t base = shared_address(ring.memory), full = shared_address(ring.full),
                 empty = shared_address(ring.empty);
  const uint32_t mine = base + uint32_t(kCodeBytes + (warp / 4 * 8 + warp % 4) * kTileBytes + lane * 16);
  uint4 words[2];
  uint32_t low[2][2][4], high[2][2][4];
  const auto load = [&] {
    barrier_wait(full + uint32_t(place.stage) * 8, place.parity);
#pragma unroll
    for (int a = 0; a < 2; ++a) {
      words[a] = shared_words(mine + uint32_t(place.stage * kStage_bytes + a * 4 * kTileBytes));
    }
  };
  load();
  unpack(words, 0, low);
  uint32_t last = 0;  // the stage in front of this one
  for (int k = 0; k < n_k; ++k) {
    const uint64_t descriptor = swizzled_descriptor(base + uint32_t(place.stage * kStage_bytes));
    multiply(acc, low, descriptor);
    wgmma_wait<1>();
    if (k > 0) {
      pin(high);
      if (lane == 0) barrier_arrive(last);
    }
    unpack(words, 1, high);
    multiply(acc, high, descriptor + 4);
    last = empty + uint32_t(place.stage) * 8;
    place.next();
    if (leads && k == min(kLead, n_k - 1)) lead_arrive();
    if (k + 1 < n_k) load();
    wgmma_wait<1>();
    pin(low);
    unpack(words, 0, low);
  }
  wgmma_wait<0>();
  pin(high);
  pin(acc);
  if (lane == 0) barrier_arrive(last);
}
#endif

}  // namespace bitnet::cuda::tiles
