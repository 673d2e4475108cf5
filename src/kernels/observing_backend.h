#pragma once

#include "kernels/backend.h"

#include <functional>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

namespace bitnet {

// Another back end whose linear layers' inputs are shown to a function before they are multiplied: for calibration. The
// inputs are those before int8 rounding. One stream at a time, in the host's memory.
class ObservingBackend final : public Backend {
 public:
  using Observer = std::function<void(const Matrix& weight, MatrixView input)>;
  explicit ObservingBackend(std::unique_ptr<Backend> inner) : inner_(std::move(inner)) {}
  void observe(Observer observer) { observer_ = std::move(observer); }

  std::string_view name() const override { return inner_->name(); }
  std::string_view kernels() const override { return inner_->kernels(); }
  std::string_view layout() const override { return inner_->layout(); }
  int layout_version() const override { return inner_->layout_version(); }
  Result<std::unique_ptr<Stream>> new_stream(const StreamOptions& options) const override {
    return inner_->new_stream(options);
  }
  Result<Buffer> allocate(size_t size_bytes, CallSite site = CallSite::here()) const override {
    return inner_->allocate(size_bytes, site);
  }
  bool host_memory() const override { return inner_->host_memory(); }
  Status upload(std::span<const std::byte> from, void* to) const override { return inner_->upload(from, to); }
  Status fetch(Stream& stream, const void* from, std::span<std::byte> to) const override {
    return inner_->fetch(stream, from, to);
  }
  Status wait(Stream& stream) const override { return inner_->wait(stream); }
  Status check_kv(DType dtype, int64_t head_dim) const override { return inner_->check_kv(dtype, head_dim); }
  Result<std::unique_ptr<Matrix>> prepare(const TernarySource& source, ThreadPool& pool) const override {
    return inner_->prepare(source, pool);
  }
  Result<std::unique_ptr<Matrix>> prepare(const FloatSource& source, ThreadPool& pool) const override {
    return inner_->prepare(source, pool);
  }

  Status embed(Stream& stream, const Matrix& table, std::span<const int32_t> ids, MatrixView out) const override {
    return inner_->embed(stream, table, ids, out);
  }
  void rms_norm(Stream& stream, MatrixView x, std::span<const float> weight, float eps, MatrixView out) const override {
    inner_->rms_norm(stream, x, weight, eps, out);
  }
  void quantize(Stream& stream, MatrixView x, QuantizedView out) const override {
    remember(x);
    inner_->quantize(stream, x, out);
  }
  void fake_quantize(Stream& stream, MatrixView x, MatrixView out) const override {
    remember(x);
    inner_->fake_quantize(stream, x, out);
  }
  void linear(Stream& stream, std::span<const LinearCall> calls, const QuantizedView& x) const override {
    show(calls, {before_rounding_.data(), x.n_rows, x.n_cols});
    inner_->linear(stream, calls, x);
  }
  void linear(Stream& stream, std::span<const LinearCall> calls, MatrixView x) const override {
    // Rounded floats come right after fake_quantize(); others have not been remembered.
    const bool rounded = remembered_rows_ == x.n_rows && remembered_cols_ == x.n_cols;
    show(calls, rounded ? MatrixView{before_rounding_.data(), x.n_rows, x.n_cols} : x);
    inner_->linear(stream, calls, x);
  }
  Status best_logits(Stream& stream, const Matrix& table, MatrixView x, int64_t n_best, MatrixView out) const override {
    return inner_->best_logits(stream, table, x, n_best, out);
  }
  void rope(Stream& stream, MatrixView x, int64_t head_dim, const RopeTable& table,
            int64_t first_position) const override {
    inner_->rope(stream, x, head_dim, table, first_position);
  }
  void store_kv(Stream& stream, MatrixView k, MatrixView v, const KvLayer& kv, int64_t first_position) const override {
    inner_->store_kv(stream, k, v, kv, first_position);
  }
  void attention(Stream& stream, MatrixView q, const KvLayer& kv, int64_t first_position,
                 MatrixView out) const override {
    inner_->attention(stream, q, kv, first_position, out);
  }
  void gate(Stream& stream, GateActivation activation, MatrixView gate, MatrixView up, MatrixView out) const override {
    inner_->gate(stream, activation, gate, up, out);
  }
  void add(Stream& stream, MatrixView x, MatrixView y) const override { inner_->add(stream, x, y); }

 private:
  void remember(MatrixView x) const {
    before_rounding_.assign(x.data, x.data + x.n_rows * x.n_cols);
    remembered_rows_ = x.n_rows;
    remembered_cols_ = x.n_cols;
  }
  void show(std::span<const LinearCall> calls, MatrixView x) const {
    if (!observer_) return;
    for (const LinearCall& call : calls) observer_(*call.weight, x);
  }

  std::unique_ptr<Backend> inner_;
  Observer observer_;
  mutable std::vector<float> before_rounding_;
  mutable int64_t remembered_rows_ = 0, remembered_cols_ = 0;
};

}  // namespace bitnet
