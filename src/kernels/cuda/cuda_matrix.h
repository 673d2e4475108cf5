#pragma once

#include "kernels/backend.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/decode_ops.h"

#include <cuda_runtime.h>

#include <utility>

namespace bitnet {

// Tiles of 2-bit codes (cuda/fragment_layout.h).
class CudaTernaryMatrix final : public Matrix {
 public:
  CudaTernaryMatrix(int64_t n_rows, int64_t n_cols, Buffer words, Buffer groups, const cuda::TernaryWeights& weights)
      : Matrix(n_rows, n_cols, true), words_(std::move(words)), groups_(std::move(groups)), weights_(weights) {}
  size_t size_bytes() const override { return words_.size_bytes() + groups_.size_bytes(); }
  const cuda::TernaryWeights& weights() const { return weights_; }

 private:
  Buffer words_, groups_;
  cuda::TernaryWeights weights_;
};

// The host's memory, pinned, so that the device reads it by itself.
class PinnedRows {
 public:
  PinnedRows() = default;
  // Not pinned where the system does not allow it: data() is null then.
  explicit PinnedRows(Buffer rows) : rows_(std::move(rows)) {
    const unsigned flags = cudaHostRegisterMapped | cudaHostRegisterPortable;
    pinned_ = cudaHostRegister(rows_.data(), rows_.size_bytes(), flags) == cudaSuccess;
    void* data = nullptr;
    if (pinned_ && cudaHostGetDevicePointer(&data, rows_.data(), 0) == cudaSuccess) data_ = static_cast<uint8_t*>(data);
    if (data_ == nullptr) (void)cudaGetLastError();
  }
  ~PinnedRows() {
    if (pinned_) (void)cudaHostUnregister(rows_.data());
  }
  PinnedRows(PinnedRows&& other) noexcept { *this = std::move(other); }
  PinnedRows& operator=(PinnedRows&& other) noexcept {
    std::swap(rows_, other.rows_);
    std::swap(data_, other.data_);
    std::swap(pinned_, other.pinned_);
    return *this;
  }
  const uint8_t* data() const { return data_; }  // as the device sees it
  const std::byte* host() const { return rows_.data(); }

 private:
  Buffer rows_;
  const uint8_t* data_ = nullptr;
  bool pinned_ = false;
};

// Rows as the file stores them, in the device's memory or in the host's, and the sketch of a head.
class CudaFloatMatrix final : public Matrix {
 public:
  CudaFloatMatrix(const cuda::FloatTable& table, Buffer rows, PinnedRows host_rows, Buffer sketch_memory,
                  const cuda::Sketch& sketch)
      : Matrix(table.n_rows, table.n_cols, false),
        rows_(std::move(rows)),
        host_rows_(std::move(host_rows)),
        sketch_memory_(std::move(sketch_memory)),
        table_(table),
        sketch_(sketch) {}
  size_t size_bytes() const override { return rows_.size_bytes() + sketch_memory_.size_bytes(); }  // the device's
  size_t bytes_per_product() const override {
    return sketch_.codes == nullptr ? size_t(table_.n_rows * table_.row_bytes) : sketch_memory_.size_bytes();
  }
  const cuda::FloatTable& table() const { return table_; }
  const cuda::Sketch& sketch() const { return sketch_; }
  // Null where the device has the rows.
  const std::byte* host_rows() const { return host_rows_.data() == nullptr ? nullptr : host_rows_.host(); }

 private:
  Buffer rows_;
  PinnedRows host_rows_;
  Buffer sketch_memory_;
  cuda::FloatTable table_;
  cuda::Sketch sketch_;
};

}  // namespace bitnet
