#include "kernels/cuda/cuda_stream.h"

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/cuda_ops.h"

#include <cstring>

namespace bitnet {

Result<std::unique_ptr<CudaStream>> CudaStream::create(const CudaBackend& backend, const StreamOptions& options) {
  if (options.max_tokens < 1 || options.n_ctx < 1) {
    return invalid_argument("a stream for {} tokens and {} positions: each must be at least 1", options.max_tokens,
                            options.n_ctx);
  }
  BN_RETURN_IF_ERROR(backend.enter());
  std::unique_ptr<CudaStream> stream(new CudaStream);
  stream->max_tokens_ = options.max_tokens;
  BN_CUDA_RETURN_IF_ERROR(cudaStreamCreateWithFlags(&stream->stream_, cudaStreamNonBlocking), "making a stream");
  BN_CUDA_RETURN_IF_ERROR(cudaEventCreateWithFlags(&stream->ids_sent_, cudaEventDisableTiming), "making an event");
  BN_ASSIGN_OR_RETURN(stream->ids_, backend.allocate(size_t(options.max_tokens) * sizeof(int32_t)));
  BN_ASSIGN_OR_RETURN(stream->pinned_ids_, backend.allocate_pinned(size_t(options.max_tokens) * sizeof(int32_t)));
  BN_ASSIGN_OR_RETURN(stream->scores_,
                      backend.allocate(size_t(cuda::kAttentionBlocks * options.n_ctx) * sizeof(float)));
  return stream;
}

CudaStream::~CudaStream() {
  if (stream_ != nullptr) {
    (void)cudaStreamSynchronize(stream_);
    fused.reset();
    (void)cudaStreamDestroy(stream_);
  }
  if (ids_sent_ != nullptr) (void)cudaEventDestroy(ids_sent_);
}

Result<const int32_t*> CudaStream::send_ids(std::span<const int32_t> ids) {
  BN_CUDA_RETURN_IF_ERROR(cudaEventSynchronize(ids_sent_), "waiting for the last step's ids");
  std::memcpy(pinned_ids_.data(), ids.data(), ids.size_bytes());
  BN_CUDA_RETURN_IF_ERROR(
      cudaMemcpyAsync(ids_.data(), pinned_ids_.data(), ids.size_bytes(), cudaMemcpyHostToDevice, stream_),
      "copying ids to the device");
  BN_CUDA_RETURN_IF_ERROR(cudaEventRecord(ids_sent_, stream_), "recording an event");
  return ids_.as<const int32_t>();
}

}  // namespace bitnet
