# BITNET_HAVE_CUDA: the CUDA back end is built. AUTO builds it where nvcc is found.
set(BITNET_HAVE_CUDA OFF)
if(NOT BITNET_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "BITNET_CUDA is ${BITNET_CUDA}, expected AUTO, ON or OFF")
endif()
if(NOT BITNET_CUDA STREQUAL "OFF" AND NOT CMAKE_CROSSCOMPILING AND NOT BITNET_SANITIZE)
  find_program(BITNET_NVCC nvcc PATHS /usr/local/cuda/bin)
  if(BITNET_NVCC)
    get_filename_component(nvcc_path ${BITNET_NVCC} REALPATH)
    get_filename_component(cuda_root ${nvcc_path} DIRECTORY)
    get_filename_component(cuda_root ${cuda_root} DIRECTORY)
    find_path(BITNET_CUDA_INCLUDE cuda_runtime.h REQUIRED PATHS ${cuda_root}/include)
    find_library(BITNET_CUDART libcudart_static.a REQUIRED PATHS ${cuda_root}/lib64 ${cuda_root}/lib)
    set(BITNET_HAVE_CUDA ON)
  endif()
endif()
if(BITNET_CUDA STREQUAL "ON" AND NOT BITNET_HAVE_CUDA)
  message(FATAL_ERROR "BITNET_CUDA is ON, but there is no nvcc (or this is a cross or sanitizer build)")
endif()
# Machine code for the least architecture that the kernels take and for Hopper with its own instructions; the former
# also as PTX, for what comes later.
set(BITNET_CUDA_TARGETS -gencode=arch=compute_80,code=[sm_80,compute_80] -gencode=arch=compute_90a,code=sm_90a
    CACHE STRING "What nvcc compiles for")
