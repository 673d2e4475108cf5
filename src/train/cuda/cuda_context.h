#pragma once

#include "base/result.h"
#include "kernels/backend.h"
#include "memory/buffer.h"
#include "model/config.h"
#include "train/core/quantization.h"
#include "train/core/rows.h"
#include "train/cuda/cublas_products.h"
#include "train/cuda/train_kernels.h"

#include <cuda_runtime.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace bitnet {

// Everything that training has on one GPU, in one piece: who wants memory says so first, take() gives it to all.
class DeviceMemory {
 public:
  template <class T>
  void plan(T** where, int64_t n_bytes) {
    wishes_.push_back({reinterpret_cast<void**>(where), size_bytes_});
    size_bytes_ += (size_t(n_bytes) + kAlignment - 1) / kAlignment * kAlignment;
  }
  // Zeroed. kResource where the device has not so much.
  Status take(int device);
  bool taken() const { return memory_.data() != nullptr; }
  size_t size_bytes() const { return size_bytes_; }

 private:
  static constexpr size_t kAlignment = 256;
  struct Wish {
    void** where;
    size_t offset;
  };
  std::vector<Wish> wishes_;
  size_t size_bytes_ = 0;
  Buffer memory_;
};

// Whole numbers on their way to the device: the host may go on and fill the next ones.
class SentNumbers {
 public:
  ~SentNumbers();
  Status create(int device, DeviceMemory& memory, int64_t max_bytes);
  // Where `bytes` lie on the device once the stream gets there; as many as max_bytes.
  Result<const void*> send(std::span<const std::byte> bytes, cudaStream_t stream);

 private:
  Buffer pinned_;
  void* device_ = nullptr;
  cudaEvent_t sent_ = nullptr;
};

// One GPU as the stages of a training step see it (cuda_stages.h): its stream, products, tables and scratch memory. One
// caller at a time.
class CudaContext {
 public:
  // `device`: of make_backend(). The rotations are the host's. Memory is there after take_memory().
  static Result<std::unique_ptr<CudaContext>> create(std::string_view device, cuda::Precision precision,
                                                     const ModelConfig& config, const AttentionShape& shape,
                                                     const RopeTable& rope);
  ~CudaContext();
  CudaContext(const CudaContext&) = delete;
  CudaContext& operator=(const CudaContext&) = delete;

  DeviceMemory& memory() { return memory_; }
  // A place among the codes of all linears, in the order of the calls and without gaps.
  int64_t plan_codes(int64_t n) {
    n_codes_ += n;
    return n_codes_ - n;
  }
  int64_t n_codes() const { return n_codes_; }
  // Gives memory to all that was planned and fills the tables.
  Status take_memory(const RopeTable& rope);

  int device() const { return device_; }
  cudaStream_t stream() const { return stream_; }
  cuda::Precision precision() const { return precision_; }
  const cuda::HeadsShape& heads() const { return heads_; }
  int64_t n_tokens() const { return heads_.n_tokens(); }
  CublasProducts& products() { return *products_; }
  void* codes_at(int64_t place) const {
    return static_cast<std::byte*>(codes_) + place * cuda::value_bytes(precision_);
  }
  Status enter() const;

  void set_quantization(const QuantizationOptions& options) { rule_ = {options.enabled, float(options.lambda)}; }
  const cuda::QuantizeRule& rule() const { return rule_; }

  // Remembers the first failure of an operation until take_status().
  void note(Status status) {
    if (!status && !error_) error_ = std::move(status.error());
  }
  // With what the launches since the last call have to say.
  Status take_status();
  // Waits for the stream.
  Status wait();
  Status to_device(const void* from, void* to, size_t n_bytes);
  Status to_host(const void* from, void* to, size_t n_bytes);

  const float *cos = nullptr, *sin = nullptr;
  float* partial = nullptr;      // of the gradients of norms, and of embeddings
  double* sums = nullptr;        // [kSquareParts]
  double* totals = nullptr;      // of the loss, and of the gradient's squares
  float* losses = nullptr;       // [n_tokens]
  float* output_sums = nullptr;  // [n_heads, n_tokens]
  void *logits = nullptr, *head_input = nullptr, *head_gradient = nullptr, *table = nullptr, *product = nullptr;
  int64_t logits_at_once = 0;  // tokens
  SentNumbers ids, targets, order, pieces, piece_sums;

 private:
  CudaContext() = default;
  void plan_scratch(const ModelConfig& config);

  int device_ = 0;
  cuda::Precision precision_ = cuda::Precision::kBf16;
  cuda::HeadsShape heads_;
  cudaStream_t stream_ = nullptr;
  DeviceMemory memory_;
  int64_t n_codes_ = 0;
  void *codes_ = nullptr, *workspace_ = nullptr;
  float *constants_ = nullptr, *cos_ = nullptr, *sin_ = nullptr;
  std::unique_ptr<CublasProducts> products_;
  cuda::QuantizeRule rule_;
  std::optional<Error> error_;
};

}  // namespace bitnet
