#pragma once

#include "kernels/backend.h"
#include "kernels/cpu/kernel_table.h"

#include <memory>

namespace bitnet {

// Threads, tiling and memory around one instruction set's table.
class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(const CpuKernels& kernels) : kernels_(kernels) {}

  std::string_view name() const override { return "cpu"; }
  std::string_view kernels() const override { return kernels_.name; }
  std::string_view layout() const override { return kernels_.digits != nullptr ? "base3" : "base4"; }
  int layout_version() const override { return 2; }  // of Packing, CpuTernaryMatrix and HeadSketch
  Result<std::unique_ptr<Stream>> new_stream(const StreamOptions& options) const override;
  // A session's memory: most of it is a cache that fills up position by position.
  Result<Buffer> allocate(size_t size_bytes, CallSite site = CallSite::here()) const override {
    return Buffer::allocate(size_bytes, false, site);
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

 private:
  const CpuKernels& kernels_;
};

}  // namespace bitnet
