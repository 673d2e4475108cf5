#pragma once

#include "kernels/backend.h"

#include <gtest/gtest.h>

#include <memory>
#include <utility>
#include <vector>

namespace bitnet {

// For tests: a back end with memory of its own, called with the host's. Every operation copies its inputs to the device
// and its results back, so that suites which know host pointers only run on any back end.
class StagedBackend final : public Backend {
 public:
  explicit StagedBackend(std::unique_ptr<Backend> inner) : inner_(std::move(inner)) {}
  const Backend& inner() const { return *inner_; }

  std::string_view name() const override { return inner_->name(); }
  std::string_view kernels() const override { return inner_->kernels(); }
  Result<std::unique_ptr<Stream>> new_stream(const StreamOptions& options) const override {
    return inner_->new_stream(options);
  }
  Result<Buffer> allocate(size_t size_bytes, CallSite site = CallSite::here()) const override {
    return Buffer::allocate(size_bytes, true, site);
  }
  Result<std::unique_ptr<Matrix>> prepare(const TernarySource& source, ThreadPool& pool) const override {
    return inner_->prepare(source, pool);
  }
  Result<std::unique_ptr<Matrix>> prepare(const FloatSource& source, ThreadPool& pool) const override {
    return inner_->prepare(source, pool);
  }

  Status embed(Stream& stream, const Matrix& table, std::span<const int32_t> ids, MatrixView out) const override {
    Stage stage(*inner_, stream);
    return inner_->embed(stream, table, ids, stage.rows(out));
  }
  void rms_norm(Stream& stream, MatrixView x, std::span<const float> weight, float eps, MatrixView out) const override {
    Stage stage(*inner_, stream);
    const std::span<const float> w{stage.copy(const_cast<float*>(weight.data()), weight.size()), weight.size()};
    inner_->rms_norm(stream, stage.rows(x), w, eps, stage.rows(out));
  }
  void quantize(Stream& stream, MatrixView x, QuantizedView out) const override {
    Stage stage(*inner_, stream);
    inner_->quantize(stream, stage.rows(x), stage.rows(out));
  }
  void fake_quantize(Stream& stream, MatrixView x, MatrixView out) const override {
    Stage stage(*inner_, stream);
    inner_->fake_quantize(stream, stage.rows(x), stage.rows(out));
  }
  void linear(Stream& stream, std::span<const LinearCall> calls, const QuantizedView& x) const override {
    Stage stage(*inner_, stream);
    inner_->linear(stream, stage.calls(calls), stage.rows(x));
  }
  void linear(Stream& stream, std::span<const LinearCall> calls, MatrixView x) const override {
    Stage stage(*inner_, stream);
    inner_->linear(stream, stage.calls(calls), stage.rows(x));
  }
  Status best_logits(Stream& stream, const Matrix& table, MatrixView x, int64_t n_best, MatrixView out) const override {
    Stage stage(*inner_, stream);
    return inner_->best_logits(stream, table, stage.rows(x), n_best, stage.rows(out));
  }
  void rope(Stream& stream, MatrixView x, int64_t head_dim, const RopeTable& table,
            int64_t first_position) const override {
    Stage stage(*inner_, stream);
    const size_t n = size_t(table.n_positions * table.n_pairs);
    RopeTable there = table;
    there.cos = stage.copy(const_cast<float*>(table.cos), n);
    there.sin = stage.copy(const_cast<float*>(table.sin), n);
    inner_->rope(stream, stage.rows(x), head_dim, there, first_position);
  }
  void store_kv(Stream& stream, MatrixView k, MatrixView v, const KvLayer& kv, int64_t first_position) const override {
    Stage stage(*inner_, stream);
    inner_->store_kv(stream, stage.rows(k), stage.rows(v), stage.cache(kv), first_position);
  }
  void attention(Stream& stream, MatrixView q, const KvLayer& kv, int64_t first_position,
                 MatrixView out) const override {
    Stage stage(*inner_, stream);
    inner_->attention(stream, stage.rows(q), stage.cache(kv), first_position, stage.rows(out));
  }
  void gate(Stream& stream, GateActivation activation, MatrixView gate, MatrixView up, MatrixView out) const override {
    Stage stage(*inner_, stream);
    inner_->gate(stream, activation, stage.rows(gate), stage.rows(up), stage.rows(out));
  }
  void add(Stream& stream, MatrixView x, MatrixView y) const override {
    Stage stage(*inner_, stream);
    inner_->add(stream, stage.rows(x), stage.rows(y));
  }

 private:
  // Host arrays on the device while one operation runs; all of them come back at its end. The same host array twice is
  // one array there.
  class Stage {
   public:
    Stage(const Backend& backend, Stream& stream) : backend_(backend), stream_(stream) {}
    ~Stage() {
      for (const Array& array : arrays_) {
        EXPECT_TRUE(backend_.fetch(stream_, array.device.data(), {array.host, array.device.size_bytes()}));
      }
    }
    template <class T>
    T* copy(T* host, size_t n) {
      auto* const bytes = reinterpret_cast<std::byte*>(host);
      if (n == 0) return nullptr;
      for (const Array& array : arrays_) {
        if (array.host == bytes && array.device.size_bytes() == n * sizeof(T)) return array.device.as<T>();
      }
      Buffer device = *backend_.allocate(n * sizeof(T));
      EXPECT_TRUE(backend_.upload({bytes, n * sizeof(T)}, device.data()));
      arrays_.push_back({bytes, std::move(device)});
      return arrays_.back().device.as<T>();
    }
    MatrixView rows(MatrixView x) { return {copy(x.data, size_t(x.n_rows * x.n_cols)), x.n_rows, x.n_cols}; }
    QuantizedView rows(QuantizedView x) {
      x.codes = copy(x.codes, size_t(x.n_rows * x.stride));
      x.inv_scales = copy(x.inv_scales, size_t(x.n_rows));
      x.sums = copy(x.sums, size_t(x.n_rows));
      return x;
    }
    KvLayer cache(KvLayer kv) {
      const size_t bytes = size_t(kv.n_kv_heads * kv.head_bytes());
      kv.k = copy(static_cast<std::byte*>(kv.k), bytes);
      kv.v = copy(static_cast<std::byte*>(kv.v), bytes);
      return kv;
    }
    std::span<const LinearCall> calls(std::span<const LinearCall> calls) {
      for (const LinearCall& call : calls) calls_.push_back({call.weight, rows(call.out)});
      return calls_;
    }

   private:
    struct Array {
      std::byte* host;
      Buffer device;
    };
    const Backend& backend_;
    Stream& stream_;
    std::vector<Array> arrays_;
    std::vector<LinearCall> calls_;
  };

  std::unique_ptr<Backend> inner_;
};

// The GPU as a back end over host memory, or null where there is none.
inline const StagedBackend* staged_gpu() {
  static const std::unique_ptr<StagedBackend> backend = [] {
    auto made = make_backend("cuda");
    return made ? std::make_unique<StagedBackend>(*std::move(made)) : nullptr;
  }();
  return backend.get();
}

}  // namespace bitnet
