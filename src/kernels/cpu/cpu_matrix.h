#pragma once

#include "kernels/backend.h"
#include "kernels/cpu/head_sketch.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/packing.h"
#include "memory/buffer.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>

namespace bitnet {

// Ternary weights, with 2 bits a weight or five to a byte, in one of the layouts of kernel_table.h.
class CpuTernaryMatrix final : public Matrix {
 public:
  CpuTernaryMatrix(const TernarySource& source, Packing packing, int64_t piece_bytes, Buffer pieces)
      : Matrix(source.n_rows, source.n_cols, true),
        scales_(source.scales),
        use_(source.use),
        packing_(packing),
        piece_bytes_(piece_bytes),
        pieces_(std::move(pieces)) {}

  size_t size_bytes() const override { return pieces_.size_bytes() + scales_.groups.size() * sizeof(float); }
  TernaryUse use() const { return use_; }
  Packing packing() const { return packing_; }
  // Tile i, row i (kSomeRows) or column i (kSomeColumns).
  const uint8_t* piece(int64_t i) const { return pieces_.as<uint8_t>() + i * piece_bytes_; }
  int64_t piece_bytes() const { return piece_bytes_; }
  // Tile i of any layout: in place, or put together in `scratch` [n_blocks() * kBlockBytes].
  const uint8_t* tile(int64_t i, uint8_t* scratch) const;
  int64_t rows_in_tile(int64_t i) const { return std::min(kTileRows, n_rows() - i * kTileRows); }
  int64_t n_blocks() const { return packing_.n_blocks(n_cols()); }  // of a tile
  // Blocks of kBlockCols columns that a tile unpacks to.
  int64_t n_code_blocks() const { return packing_.n_code_blocks(n_cols()); }

  const TernaryScales& scales() const { return scales_; }
  int64_t n_groups() const { return scales_.groups.empty() ? 0 : n_cols() / scales_.group_cols; }
  const float* group_scales(int64_t row) const { return scales_.groups.data() + row * n_groups(); }
  // Row `row` as float32: w, or w * alpha_g with grouped scales.
  void widen_row(int64_t row, float* out) const;

 private:
  uint8_t code(int64_t row, int64_t col) const;

  TernaryScales scales_;
  TernaryUse use_;
  Packing packing_;
  int64_t piece_bytes_;
  Buffer pieces_;
};

// Float weights as the file stores them, row after row: in memory, or left in the file until load_rows().
class CpuFloatMatrix final : public Matrix {
 public:
  CpuFloatMatrix(WeightType type, FloatSource source, int64_t row_bytes, std::unique_ptr<HeadSketch> sketch)
      : Matrix(source.n_rows, source.n_cols, false),
        type_(type),
        source_(std::move(source)),
        row_bytes_(row_bytes),
        sketch_(std::move(sketch)) {}

  size_t size_bytes() const override {
    return (loaded() ? rows_.size_bytes() : 0) + (sketch_ ? sketch_->size_bytes() : 0);
  }
  size_t bytes_per_product() const override { return sketch_ ? sketch_->size_bytes() : size_t(n_rows() * row_bytes_); }
  Status load_rows(ThreadPool& pool) const override;

  size_t type_index() const { return size_t(type_); }
  int64_t row_bytes() const { return row_bytes_; }
  // Of a table for best_logits(), otherwise null. To be read once it is ready.
  const HeadSketch* sketch() const { return sketch_.get(); }
  // Makes the sketch ready if it is not. Thread-safe.
  Status fill_sketch(const CpuKernels& kernels, ThreadPool& pool) const;
  // Whether nobody has asked this before. Thread-safe.
  bool begin_first_search() const { return !searched_.exchange(true, std::memory_order_relaxed); }
  bool loaded() const { return loaded_.load(std::memory_order_acquire); }
  const uint8_t* row(int64_t i) const { return rows_.as<uint8_t>() + i * row_bytes_; }  // wants loaded()
  // The rows in memory, or read into `scratch` [n_rows, row_bytes].
  Result<const uint8_t*> read_rows(int64_t first, int64_t n_rows, uint8_t* scratch) const;

 private:
  WeightType type_;
  FloatSource source_;
  int64_t row_bytes_;
  std::unique_ptr<HeadSketch> sketch_;
  mutable std::mutex loading_;
  mutable Buffer rows_;
  mutable std::atomic<bool> loaded_{false}, searched_{false};
};

// How kernels read a stored type; kF32 for those that no product takes.
WeightType weight_type(DType dtype);

Result<std::unique_ptr<Matrix>> prepare_ternary(const TernarySource& source, const CpuKernels& kernels,
                                                ThreadPool& pool);
Result<std::unique_ptr<Matrix>> prepare_float(const FloatSource& source, const CpuKernels& kernels, ThreadPool& pool);

}  // namespace bitnet
