#pragma once

#include "kernels/backend.h"
#include "kernels/cuda/cuda_ops.h"

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
  CudaFloatMatrix(int64_t n_rows, int64_t n_cols, Buffer rows, const cuda::FloatTable& table)
      : Matrix(n_rows, n_cols, false), rows_(std::move(rows)), table_(table) {}
  size_t size_bytes() const override { return rows_.size_bytes(); }
  const cuda::FloatTable& table() const { return table_; }

 private:
  Buffer rows_;
  cuda::FloatTable table_;
};

}  // namespace bitnet
