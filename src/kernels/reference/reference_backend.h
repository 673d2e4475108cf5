#pragma once

#include "kernels/backend.h"

#include <memory>
#include <vector>

namespace bitnet {

// docs/numerics.md as plain loops on one thread: the specification that every other back end is compared with, bit for
// bit. Written to be read, not to be fast.
class ReferenceBackend final : public Backend {
 public:
  std::string_view name() const override { return "reference"; }
  std::string_view kernels() const override { return "scalar"; }
  Result<std::unique_ptr<Stream>> new_stream(const StreamOptions& options) const override;
  Result<Buffer> allocate(size_t size_bytes, CallSite site = CallSite::here()) const override {
    return Buffer::allocate(size_bytes, true, site);
  }

  Result<std::unique_ptr<Matrix>> prepare(const TernarySource& source, ThreadPool& pool) const override;
  Result<std::unique_ptr<Matrix>> prepare(const FloatSource& source, ThreadPool& pool) const override;

  Status embed(Stream& stream, const Matrix& table, std::span<const int32_t> ids, MatrixView out) const override;
  void rms_norm(Stream& stream, MatrixView x, std::span<const float> weight, float eps, MatrixView out) const override;
  void quantize(Stream& stream, MatrixView x, QuantizedView out) const override;
  void fake_quantize(Stream& stream, MatrixView x, MatrixView out) const override;
  void linear(Stream& stream, std::span<const LinearCall> calls, const QuantizedView& x) const override;
  void linear(Stream& stream, std::span<const LinearCall> calls, MatrixView x) const override;
  Status best_logits(Stream& stream, const Matrix& table, MatrixView x, int64_t n_best, MatrixView out) const override;
  void rope(Stream& stream, MatrixView x, int64_t head_dim, const RopeTable& table,
            int64_t first_position) const override;
  void store_kv(Stream& stream, MatrixView k, MatrixView v, const KvLayer& kv, int64_t first_position) const override;
  void attention(Stream& stream, MatrixView q, const KvLayer& kv, int64_t first_position,
                 MatrixView out) const override;
  void gate(Stream& stream, GateActivation activation, MatrixView gate, MatrixView up, MatrixView out) const override;
  void add(Stream& stream, MatrixView x, MatrixView y) const override;
};

// One thread; a row of weights and a query's scores.
class ReferenceStream final : public Stream {
 public:
  explicit ReferenceStream(const StreamOptions& options)
      : weights(size_t(options.max_cols)), quantized(size_t(options.max_cols)), scores(size_t(options.n_ctx)) {}
  ThreadPool& pool() override { return pool_; }

  std::vector<float> weights;
  std::vector<int8_t> quantized;
  std::vector<float> scores;

 private:
  ThreadPool pool_{1};
};

// Codes as bytes, [n_rows, n_cols].
class ReferenceTernaryMatrix final : public Matrix {
 public:
  ReferenceTernaryMatrix(int64_t n_rows, int64_t n_cols, TernaryScales scales, Buffer codes)
      : Matrix(n_rows, n_cols, true), scales_(std::move(scales)), codes_(std::move(codes)) {}
  size_t size_bytes() const override { return codes_.size_bytes() + scales_.groups.size() * sizeof(float); }
  const TernaryScales& scales() const { return scales_; }
  const uint8_t* row(int64_t i) const { return codes_.as<uint8_t>() + i * n_cols(); }
  // Columns that share a scale, and that scale.
  int64_t group_cols() const { return scales_.groups.empty() ? n_cols() : scales_.group_cols; }
  float alpha(int64_t row, int64_t group) const {
    return scales_.groups.empty() ? scales_.tensor : scales_.groups[size_t(row * (n_cols() / group_cols()) + group)];
  }

 private:
  TernaryScales scales_;
  Buffer codes_;
};

// The file's bytes; rows are rebuilt as float32 by quant/blocks.h.
class ReferenceFloatMatrix final : public Matrix {
 public:
  ReferenceFloatMatrix(DType dtype, int64_t n_rows, int64_t n_cols, int64_t row_bytes, Buffer bytes)
      : Matrix(n_rows, n_cols, false), dtype_(dtype), row_bytes_(row_bytes), bytes_(std::move(bytes)) {}
  size_t size_bytes() const override { return bytes_.size_bytes(); }
  void widen_row(int64_t row, float* out) const;

 private:
  DType dtype_;
  int64_t row_bytes_;
  Buffer bytes_;
};

}  // namespace bitnet
