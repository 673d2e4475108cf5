#pragma once

#include "kernels/cuda/fragment_layout.h"
#include "kernels/cuda/hopper.cuh"

// Ternary weights on their way through a block's shared memory: one thread fetches them in the order in which warps
// multiply, as far ahead as there are slots, whatever those wait for.
namespace bitnet::cuda {

constexpr int kRingWarps = 10;              // that multiply
constexpr int kSlotTiles = 2 * kRingWarps;  // column tiles of a row tile in a slot, two a warp
constexpr int kSlot_bytes = kSlotTiles * kTileBytes;
constexpr int kSlots = 13;

struct RingBarriers {
  uint64_t full[kSlots], empty[kSlots];
};

#if __CUDA_ARCH__ >= 900
// By one thread, before anybody uses them; a barrier has to follow.
__device__ inline void init_ring(RingBarriers& barriers) {
  for (int i = 0; i < kSlots; ++i) {
    barrier_init(&barriers.full[i], 1);
    barrier_init(&barriers.empty[i], kRingWarps);
  }
  barrier_init_fence();
}

// Slots are counted from the first one ever; the count tells which slot it is and its barriers' parity.
__device__ inline int slot_of(int count) { return count % kSlots; }
__device__ inline uint32_t parity_of(int count) { return uint32_t(count / kSlots) & 1; }

__device__ inline void fetch_slot(uint8_t* slots, RingBarriers& barriers, int count, const void* from,
                                  uint32_t n_bytes) {
  const int slot = slot_of(count);
  barrier_wait(&barriers.empty[slot], parity_of(count) ^ 1);
  barrier_expect(&barriers.full[slot], n_bytes);
  if (n_bytes > 0) bulk_copy(slots + slot * kSlot_bytes, from, n_bytes, &barriers.full[slot]);
}
#endif

}  // namespace bitnet::cuda
