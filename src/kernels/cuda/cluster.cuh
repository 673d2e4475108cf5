#pragma once

#include "kernels/cuda/hopper.cuh"

// Blocks that run together and reach each other's shared memory, from compute capability 9.0 on. Before it there are
// none: nobody calls these.
namespace bitnet::cuda {

__device__ inline void cluster_arrive() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
#endif
}
__device__ inline void cluster_wait() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}
// *to = x in the shared memory of the cluster's block `rank`.
__device__ inline void cluster_store(float* to, int rank, float x) {
#if __CUDA_ARCH__ >= 900
  asm volatile("{.reg .u32 there; mapa.shared::cluster.u32 there, %0, %1; st.shared::cluster.f32 [there], %2;}" ::"r"(
                   shared_address(to)),
               "r"(rank), "f"(x)
               : "memory");
#else
  (void)to, (void)rank, (void)x;
#endif
}
__device__ inline void cluster_store(int4* to, int rank, int4 x) {
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "{.reg .u32 there; mapa.shared::cluster.u32 there, %0, %1; "
      "st.shared::cluster.v4.s32 [there], {%2, %3, %4, %5};}" ::"r"(shared_address(to)),
      "r"(rank), "r"(x.x), "r"(x.y), "r"(x.z), "r"(x.w)
      : "memory");
#else
  (void)to, (void)rank, (void)x;
#endif
}

}  // namespace bitnet::cuda
