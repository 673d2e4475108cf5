#pragma once

// For the few functions that the host's code and a device's compile alike.
#if defined(__CUDACC__)
#define BN_HOST_DEVICE __host__ __device__
#else
#define BN_HOST_DEVICE
#endif
