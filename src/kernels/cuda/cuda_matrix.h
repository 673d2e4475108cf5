#pragma once

#include "kernels/backend.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/decode_ops.h"

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

// Rows as the file stores them.
class CudaFloatMatrix final : public Matrix {
 public:
  CudaFloatMatrix(int64_t n_rows, int64_t n_cols, Buffer rows, const cuda::FloatTable& table, Buffer sketch_memory,
                  const cuda::Sketch& sketch)
      : Matrix(n_rows, n_cols, false),
        rows_(std::move(rows)),
        sketch_memory_(std::move(sketch_memory)),
        table_(table),
        sketch_(sketch) {}
  size_t size_bytes() const override { return rows_.size_bytes() + sketch_memory_.size_bytes(); }
  size_t bytes_per_product() const override {
    return sketch_.codes == nullptr ? rows_.size_bytes() : sketch_memory_.size_bytes();
  }
  const cuda::FloatTable& table() const { return table_; }
  const cuda::Sketch& sketch() const { return sketch_; }

 private:
  Buffer rows_, sketch_memory_;
  cuda::FloatTable table_;
  cuda::Sketch sketch_;
};

}  // namespace bitnet
