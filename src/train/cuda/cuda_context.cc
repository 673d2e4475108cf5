#include "train/cuda/cuda_context.h"

#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/cuda_memory.h"

#include <algorithm>
#include <cstring>

namespace bitnet {
namespace {

constexpr int64_t kLogitsAtOnce = int64_t{1} << 29;  // values: 8,192 tokens of a vocabulary of 65,536

// What the kernels take.
Status check_shape(const ModelConfig& c, const cuda::HeadsShape& heads, cuda::Precision precision) {
  for (const auto& [name, n] :
       {std::pair{"d_model", c.d_model}, {"d_ff", c.d_ff}, {"n_heads * head_dim", c.n_heads * c.head_dim}}) {
    const int64_t most = n % 4 == 0 ? cuda::kMaxColumns : cuda::kMaxOddColumns;
    if (n > most) return unsupported("{} is {}: training on a GPU takes {} at most", name, n, most);
  }
  if (cuda::has_tiles(precision, heads.head_dim)) return ok();
  constexpr int64_t kMaxPositions = 24576, kMaxHeadDim = 1024;
  if (heads.n_positions > kMaxPositions || heads.head_dim > kMaxHeadDim) {
    return unsupported(
        "n_ctx is {} and head_dim {}: on a GPU attention of other kinds than bf16 with head_dim 64 or 128 takes {} and "
        "{} at most",
        heads.n_positions, heads.head_dim, kMaxPositions, kMaxHeadDim);
  }
  return ok();
}

}  // namespace

Status DeviceMemory::take(int device) {
  BN_ASSIGN_OR_RETURN(memory_, Buffer::allocate_from(device_memory(device), std::max<size_t>(size_bytes_, kAlignment)));
  for (const Wish& wish : wishes_) *wish.where = memory_.data() + wish.offset;
  return ok();
}

SentNumbers::~SentNumbers() {
  if (sent_ != nullptr) (void)cudaEventDestroy(sent_);
}

Status SentNumbers::create(int device, DeviceMemory& memory, int64_t max_bytes) {
  BN_ASSIGN_OR_RETURN(pinned_, Buffer::allocate_from(pinned_memory(device), size_t(max_bytes)));
  BN_CUDA_RETURN_IF_ERROR(cudaEventCreateWithFlags(&sent_, cudaEventDisableTiming), "making an event");
  memory.plan(&device_, max_bytes);
  return ok();
}

Result<const void*> SentNumbers::send(std::span<const std::byte> bytes, cudaStream_t stream) {
  BN_CUDA_RETURN_IF_ERROR(cudaEventSynchronize(sent_), "waiting for numbers to be sent");
  std::memcpy(pinned_.data(), bytes.data(), bytes.size());
  BN_CUDA_RETURN_IF_ERROR(cudaMemcpyAsync(device_, pinned_.data(), bytes.size(), cudaMemcpyHostToDevice, stream),
                          "sending numbers");
  BN_CUDA_RETURN_IF_ERROR(cudaEventRecord(sent_, stream), "sending numbers");
  return static_cast<const void*>(device_);
}

Result<std::unique_ptr<CudaContext>> CudaContext::create(std::string_view device, cuda::Precision precision,
                                                         const ModelConfig& config, const AttentionShape& shape,
                                                         const RopeTable& rope) {
  if (device.find(',') != std::string_view::npos) {
    return unsupported("device is \"{}\", expected one GPU", device);
  }
  BN_RETURN_IF_ERROR(make_cuda_backend(device));  // which leaves the device the current one
  std::unique_ptr<CudaContext> made(new CudaContext);
  CudaContext& c = *made;
  BN_CUDA_RETURN_IF_ERROR(cudaGetDevice(&c.device_), "asking for the device");
  c.precision_ = precision;
  c.heads_ = {int(shape.n_sequences), int(shape.n_positions), int(shape.n_heads),
              int(shape.n_kv_heads),  int(shape.head_dim),    int(rope.n_pairs)};
  BN_RETURN_IF_ERROR(check_shape(config, c.heads_, precision));
  BN_CUDA_RETURN_IF_ERROR(cudaStreamCreateWithFlags(&c.stream_, cudaStreamNonBlocking), "making a stream");
  const int64_t n = c.n_tokens();
  BN_RETURN_IF_ERROR(c.ids.create(c.device_, c.memory_, n * int64_t{sizeof(int32_t)}));
  BN_RETURN_IF_ERROR(c.targets.create(c.device_, c.memory_, n * int64_t{sizeof(int32_t)}));
  BN_RETURN_IF_ERROR(c.order.create(c.device_, c.memory_, n * int64_t{sizeof(int32_t)}));
  BN_RETURN_IF_ERROR(c.pieces.create(c.device_, c.memory_, n * int64_t{sizeof(cuda::EmbeddingPiece)}));
  BN_RETURN_IF_ERROR(c.piece_sums.create(c.device_, c.memory_, n * int64_t{sizeof(cuda::EmbeddingSum)}));
  c.plan_scratch(config);
  c.memory_.plan(&c.cos_, rope.n_positions * rope.n_pairs * int64_t{sizeof(float)});
  c.memory_.plan(&c.sin_, rope.n_positions * rope.n_pairs * int64_t{sizeof(float)});
  return made;
}

void CudaContext::plan_scratch(const ModelConfig& config) {
  const int64_t n = n_tokens(), value = cuda::value_bytes(precision_), d = config.d_model;
  const int64_t widest = std::max({config.d_ff, d, config.n_heads * config.head_dim});
  // Pieces of ids that have several: at most one and a share of kPieceTokens each.
  const int64_t n_partial = std::max(cuda::norm_chunks(n) * widest, (2 * n / cuda::kPieceTokens + 1) * d);
  logits_at_once = std::clamp<int64_t>(kLogitsAtOnce / config.vocab_size, 1, n);
  memory_.plan(&partial, n_partial * int64_t{sizeof(float)});
  memory_.plan(&sums, std::max(cuda::kSquareParts, cuda::kMeanParts) * int64_t{sizeof(double)});
  memory_.plan(&totals, 4 * int64_t{sizeof(double)});
  memory_.plan(&losses, n * int64_t{sizeof(float)});
  memory_.plan(&output_sums, n * heads_.n_heads * int64_t{sizeof(float)});
  memory_.plan(&logits, logits_at_once * config.vocab_size * value);
  memory_.plan(&head_input, n * d * value);
  memory_.plan(&head_gradient, n * d * value);
  memory_.plan(&product, n * d * value);
  memory_.plan(&table, config.vocab_size * d * value);
  memory_.plan(&constants_, 2 * int64_t{sizeof(float)});
  memory_.plan(&workspace_, int64_t{CublasProducts::kWorkspaceBytes});
}

CudaContext::~CudaContext() {
  products_.reset();
  if (stream_ != nullptr) {
    (void)cudaStreamSynchronize(stream_);
    (void)cudaStreamDestroy(stream_);
  }
}

Status CudaContext::enter() const {
  BN_CUDA_RETURN_IF_ERROR(cudaSetDevice(device_), "choosing the device");
  return ok();
}

Status CudaContext::take_memory(const RopeTable& rope) {
  memory_.plan(&codes_, n_codes_ * cuda::value_bytes(precision_));
  BN_RETURN_IF_ERROR(memory_.take(device_));
  const size_t n_bytes = size_t(rope.n_positions * rope.n_pairs) * sizeof(float);
  BN_RETURN_IF_ERROR(to_device(rope.cos, cos_, n_bytes));
  BN_RETURN_IF_ERROR(to_device(rope.sin, sin_, n_bytes));
  cos = cos_;
  sin = sin_;
  constexpr float kConstants[] = {0, 1};
  BN_RETURN_IF_ERROR(to_device(kConstants, constants_, sizeof kConstants));
  BN_ASSIGN_OR_RETURN(products_, CublasProducts::create(precision_, workspace_, constants_, stream_));
  return ok();
}

Status CudaContext::take_status() {
  note([]() -> Status {
    BN_CUDA_RETURN_IF_ERROR(cudaGetLastError(), "starting a kernel");
    return ok();
  }());
  if (!error_) return ok();
  Error error = *std::move(error_);
  error_.reset();
  return error;
}

Status CudaContext::wait() {
  BN_CUDA_RETURN_IF_ERROR(cudaStreamSynchronize(stream_), "waiting for a training step");
  return ok();
}

Status CudaContext::to_device(const void* from, void* to, size_t n_bytes) {
  BN_CUDA_RETURN_IF_ERROR(cudaMemcpyAsync(to, from, n_bytes, cudaMemcpyHostToDevice, stream_), "copying to the device");
  return wait();
}
Status CudaContext::to_host(const void* from, void* to, size_t n_bytes) {
  BN_CUDA_RETURN_IF_ERROR(cudaMemcpyAsync(to, from, n_bytes, cudaMemcpyDeviceToHost, stream_), "copying to the host");
  return wait();
}

}  // namespace bitnet
