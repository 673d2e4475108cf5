#include "kernels/cuda/cuda_backend.h"

#include "base/copied.h"
#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/cuda_fused.h"
#include "kernels/cuda/cuda_matrix.h"
#include "kernels/cuda/cuda_memory.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/cuda_stream.h"
#include "kernels/cuda/prompt_ops.h"
#include "kernels/fused_model.h"

namespace bitnet {
namespace {

cudaStream_t stream_of(Stream& stream) { return static_cast<CudaStream&>(stream).get(); }
cuda::Rows rows(MatrixView x) { return {x.data, x.n_rows, x.n_cols}; }
cuda::CodeRows rows(const QuantizedView& x) { return {x.codes, x.inv_scales, x.sums, x.n_rows, x.n_cols, x.stride}; }
const cuda::FloatTable& table_of(const Matrix& matrix) { return static_cast<const CudaFloatMatrix&>(matrix).table(); }
// Without rotation: the operations have done it.
cuda::TokenAttention tiled_call(const KvLayer& kv, MatrixView k, MatrixView v, int64_t first_position) {
  cuda::TokenAttention call;
  call.k = k.data;
  call.v = v.data;
  call.cache = cuda_cache(kv);
  call.n_tokens = int(k.n_rows);
  call.first_position = int(first_position);
  return call;
}

}  // namespace

cuda::Cache cuda_cache(const KvLayer& kv) {
  cuda::Cache cache;
  cache.k = static_cast<uint8_t*>(kv.k);
  cache.v = static_cast<uint8_t*>(kv.v);
  cache.type = kv.dtype == DType::kF32   ? cuda::TableType::kF32
               : kv.dtype == DType::kF16 ? cuda::TableType::kF16
               : kv.dtype == DType::kI8  ? cuda::TableType::kI8
                                         : cuda::TableType::kQ8_0;
  cache.n_kv_heads = kv.n_kv_heads;
  cache.head_dim = kv.head_dim;
  cache.row_bytes = kv.tiled() ? kv_tile_bytes(kv.head_dim, kv.bits()) / kTilePositions : kv.row_bytes();
  cache.n_positions = kv.n_ctx;
  cache.page_rows = cuda::kPagePositions;
  cache.head_rows = kv.tiled() ? cuda::n_tiles(kv.n_ctx, kTilePositions) * kTilePositions : kv.n_ctx;
  return cache;
}

CudaBackend::CudaBackend(int device, const cudaDeviceProp& properties)
    : device_(device),
      n_multiprocessors_(properties.multiProcessorCount),
      hopper_(properties.major == 9 && cuda::hopper_code()),
      kernels_(fmt::format("sm_{}{}", properties.major, properties.minor)),
      staging_(device) {}

Status CudaBackend::enter() const {
  BN_CUDA_RETURN_IF_ERROR(cudaSetDevice(device_), "choosing the device");
  return ok();
}

Result<Buffer> CudaBackend::allocate(size_t size_bytes, CallSite) const {
  if (size_bytes == 0) return Buffer();
  if (arena_ != nullptr) {
    if (std::byte* const data = arena_->take(size_bytes)) return Buffer::borrow(data, size_bytes);
  }
  return allocate_alone(size_bytes);
}

Result<Buffer> CudaBackend::allocate_alone(size_t size_bytes) const {
  return Buffer::allocate_from(device_memory(device_), size_bytes);
}

Result<Buffer> CudaBackend::allocate_pinned(size_t size_bytes) const {
  return Buffer::allocate_from(pinned_memory(device_), size_bytes);
}

Status CudaBackend::upload(std::span<const std::byte> from, void* to) const {
  if (from.empty()) return ok();
  count_transferred(from.size());
  BN_RETURN_IF_ERROR(enter());
  BN_CUDA_RETURN_IF_ERROR(cudaMemcpy(to, from.data(), from.size(), cudaMemcpyHostToDevice), "copying to the device");
  // A copy from pageable memory may still be on its way; other streams do not wait for it.
  BN_CUDA_RETURN_IF_ERROR(cudaStreamSynchronize(cudaStreamLegacy), "copying to the device");
  return ok();
}

Status CudaBackend::wait(Stream& stream) const {
  BN_RETURN_IF_ERROR(enter());
  BN_CUDA_RETURN_IF_ERROR(cudaStreamSynchronize(stream_of(stream)), "running the model");
  BN_CUDA_RETURN_IF_ERROR(cudaGetLastError(), "starting a kernel");
  return ok();
}

Status CudaBackend::fetch(Stream& stream, const void* from, std::span<std::byte> to) const {
  BN_RETURN_IF_ERROR(enter());
  BN_CUDA_RETURN_IF_ERROR(cudaMemcpyAsync(to.data(), from, to.size(), cudaMemcpyDeviceToHost, stream_of(stream)),
                          "copying from the device");
  count_transferred(to.size());
  return wait(stream);
}

Result<std::unique_ptr<Stream>> CudaBackend::new_stream(const StreamOptions& options) const {
  staging_.clear();  // the weights are loaded
  BN_ASSIGN_OR_RETURN(std::unique_ptr<CudaStream> stream, CudaStream::create(*this, options));
  if (options.fused != nullptr) {
    BN_ASSIGN_OR_RETURN(stream->fused, static_cast<const CudaFused*>(options.fused)->new_state(options));
  }
  return std::unique_ptr<Stream>(std::move(stream));
}

Result<std::unique_ptr<FusedModel>> CudaBackend::fuse(const ModelGraph& graph) const {
  return std::unique_ptr<FusedModel>(CudaFused::create(*this, graph));
}

Status CudaBackend::embed(Stream& stream, const Matrix& table, std::span<const int32_t> ids, MatrixView out) const {
  BN_RETURN_IF_ERROR(enter());
  BN_ASSIGN_OR_RETURN(const int32_t* const sent, static_cast<CudaStream&>(stream).send_ids(ids));
  cuda::embed(stream_of(stream), table_of(table), sent, rows(out));
  BN_CUDA_RETURN_IF_ERROR(cudaPeekAtLastError(), "starting a kernel");
  return ok();
}

void CudaBackend::rms_norm(Stream& stream, MatrixView x, std::span<const float> weight, float eps,
                           MatrixView out) const {
  cuda::rms_norm(stream_of(stream), rows(x), weight.data(), eps, out.data);
}

void CudaBackend::quantize(Stream& stream, MatrixView x, QuantizedView out) const {
  cuda::quantize(stream_of(stream), rows(x), rows(out));
}

void CudaBackend::fake_quantize(Stream& stream, MatrixView x, MatrixView out) const {
  cuda::fake_quantize(stream_of(stream), rows(x), out.data);
}

void CudaBackend::linear(Stream& stream, std::span<const LinearCall> calls, const QuantizedView& x) const {
  for (const LinearCall& call : calls) {
    const auto& matrix = static_cast<const CudaTernaryMatrix&>(*call.weight);
    cuda::ternary_linear(stream_of(stream), matrix.weights(), rows(x), call.out.data);
  }
}

void CudaBackend::linear(Stream& stream, std::span<const LinearCall> calls, MatrixView x) const {
  for (const LinearCall& call : calls) {
    if (call.weight->ternary()) {
      const auto& matrix = static_cast<const CudaTernaryMatrix&>(*call.weight);
      cuda::ternary_linear(stream_of(stream), matrix.weights(), rows(x), call.out.data);
    } else {
      cuda::float_linear(stream_of(stream), table_of(*call.weight), rows(x), call.out.data);
    }
  }
}

// All of them: the best are among them.
Status CudaBackend::best_logits(Stream& stream, const Matrix& table, MatrixView x, int64_t, MatrixView out) const {
  const LinearCall call{&table, out};
  linear(stream, {&call, 1}, x);
  return ok();
}

void CudaBackend::rope(Stream& stream, MatrixView x, int64_t head_dim, const RopeTable& table,
                       int64_t first_position) const {
  cuda::rope(stream_of(stream), rows(x), head_dim, {table.cos, table.sin, table.n_pairs}, first_position);
}

Status CudaBackend::check_kv(DType dtype, int64_t head_dim) const {
  if (dtype == DType::kI4) {
    return unsupported("the cuda back end has no I4 key/value cache; it has f16, f32, q8_0 and int8");
  }
  BN_RETURN_IF_ERROR(Backend::check_kv(dtype, head_dim));
  if (dtype == DType::kI8 && !cuda::tiled_cache_takes(head_dim)) {
    return unsupported(
        "the cuda back end has int8 key/value caches for heads of 32, 64, 96, 128 and 256 dimensions, "
        "not of {}; use f16 instead",
        head_dim);
  }
  return ok();
}

void CudaBackend::store_kv(Stream& stream, MatrixView k, MatrixView v, const KvLayer& kv,
                           int64_t first_position) const {
  if (kv.tiled()) {
    (void)cuda::tiled_append({stream_of(stream), hopper_, n_multiprocessors_}, tiled_call(kv, k, v, first_position));
    return;
  }
  cuda::store_kv(stream_of(stream), k.data, v.data, k.n_rows, cuda_cache(kv), first_position);
}

void CudaBackend::attention(Stream& stream, MatrixView q, const KvLayer& kv, int64_t first_position,
                            MatrixView out) const {
  if (kv.tiled()) {
    cuda::TokenAttention call = tiled_call(kv, {}, {}, first_position);
    call.q = q.data;
    call.n_heads = int(q.n_cols / kv.head_dim);
    call.n_tokens = int(q.n_rows);
    call.out = out.data;
    call.scratch = static_cast<CudaStream&>(stream).scores();
    (void)cuda::tiled_attention({stream_of(stream), hopper_, n_multiprocessors_}, call);
    return;
  }
  cuda::attention(stream_of(stream), rows(q), cuda_cache(kv), first_position, static_cast<CudaStream&>(stream).scores(),
                  out.data);
}

void CudaBackend::gate(Stream& stream, GateActivation activation, MatrixView gate, MatrixView up,
                       MatrixView out) const {
  cuda::gate(stream_of(stream), activation == GateActivation::kRelu2, gate.data, up.data, gate.n_rows * gate.n_cols,
             out.data);
}

void CudaBackend::add(Stream& stream, MatrixView x, MatrixView y) const {
  cuda::add(stream_of(stream), x.data, x.n_rows * x.n_cols, y.data);
}

}  // namespace bitnet
