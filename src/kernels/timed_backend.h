#pragma once

#include "kernels/backend.h"

#include <string>
#include <unordered_map>
#include <vector>

namespace bitnet {

// Another back end whose operations are timed, for `bitnet bench --phases`. One stream at a time.
class TimedBackend final : public Backend {
 public:
  struct Phase {
    std::string name;  // "attention", or a matrix's
    int64_t n_calls = 0;
    double seconds = 0;
    uint64_t weight_bytes = 0;  // as Stream::weight_bytes_read()
  };

  explicit TimedBackend(std::unique_ptr<Backend> inner) : inner_(std::move(inner)) {}
  // Calls whose first matrix is this one count under `name`.
  void name_matrix(const Matrix& matrix, std::string_view name) { names_[&matrix] = name; }
  void reset() { phases_.clear(); }
  const std::vector<Phase>& phases() const { return phases_; }  // in the order of their first call

  std::string_view name() const override { return inner_->name(); }
  std::string_view kernels() const override { return inner_->kernels(); }
  std::string_view layout() const override { return inner_->layout(); }
  int layout_version() const override { return inner_->layout_version(); }
  Result<std::unique_ptr<Stream>> new_stream(const StreamOptions& options) const override;
  Result<Buffer> allocate(size_t size_bytes, CallSite site = CallSite::here()) const override;
  bool host_memory() const override { return inner_->host_memory(); }
  Status upload(std::span<const std::byte> from, void* to) const override { return inner_->upload(from, to); }
  Status fetch(Stream& stream, const void* from, std::span<std::byte> to) const override {
    return inner_->fetch(stream, from, to);
  }
  Status wait(Stream& stream) const override { return inner_->wait(stream); }
  Status check_kv(DType dtype, int64_t head_dim) const override { return inner_->check_kv(dtype, head_dim); }
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
  template <class Fn>
  auto timed(std::string_view name, Stream& stream, const Fn& fn) const;
  std::string_view name_of(const Matrix& matrix) const;

  std::unique_ptr<Backend> inner_;
  std::unordered_map<const Matrix*, std::string> names_;
  mutable std::vector<Phase> phases_;
};

}  // namespace bitnet
