#include "kernels/timed_backend.h"

#include <algorithm>
#include <chrono>

namespace bitnet {

// Adds the time until the end of fn() to a phase.
template <class Fn>
auto TimedBackend::timed(std::string_view name, Stream& stream, const Fn& fn) const {
  class Timer {
   public:
    Timer(std::vector<Phase>& phases, std::string_view name, const Stream& stream)
        : phases_(phases), name_(name), stream_(stream), bytes_(stream.weight_bytes_read()) {}
    ~Timer() {
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
      auto phase = std::find_if(phases_.begin(), phases_.end(), [&](const Phase& p) { return p.name == name_; });
      if (phase == phases_.end()) phase = phases_.insert(phase, Phase{std::string(name_), 0, 0, 0});
      ++phase->n_calls;
      phase->seconds += seconds;
      phase->weight_bytes += stream_.weight_bytes_read() - bytes_;
    }

   private:
    std::vector<Phase>& phases_;
    std::string_view name_;
    const Stream& stream_;
    uint64_t bytes_;
    std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  };
  const Timer timer(phases_, name, stream);
  if constexpr (std::is_void_v<decltype(fn())>) {
    fn();
    (void)inner_->wait(stream);  // what went wrong is told again when the results are fetched
  } else {
    auto result = fn();
    (void)inner_->wait(stream);
    return result;
  }
}

std::string_view TimedBackend::name_of(const Matrix& matrix) const {
  const auto named = names_.find(&matrix);
  return named == names_.end() ? std::string_view("other products") : std::string_view(named->second);
}

Result<std::unique_ptr<Stream>> TimedBackend::new_stream(const StreamOptions& options) const {
  return inner_->new_stream(options);
}
Result<Buffer> TimedBackend::allocate(size_t size_bytes, CallSite site) const {
  return inner_->allocate(size_bytes, site);
}
Result<std::unique_ptr<Matrix>> TimedBackend::prepare(const TernarySource& source, ThreadPool& pool) const {
  return inner_->prepare(source, pool);
}
Result<std::unique_ptr<Matrix>> TimedBackend::prepare(const FloatSource& source, ThreadPool& pool) const {
  return inner_->prepare(source, pool);
}

Status TimedBackend::embed(Stream& stream, const Matrix& table, std::span<const int32_t> ids, MatrixView out) const {
  return timed("embedding", stream, [&] { return inner_->embed(stream, table, ids, out); });
}
void TimedBackend::rms_norm(Stream& stream, MatrixView x, std::span<const float> weight, float eps,
                            MatrixView out) const {
  timed("norms", stream, [&] { inner_->rms_norm(stream, x, weight, eps, out); });
}
void TimedBackend::quantize(Stream& stream, MatrixView x, QuantizedView out) const {
  timed("quantise", stream, [&] { inner_->quantize(stream, x, out); });
}
void TimedBackend::fake_quantize(Stream& stream, MatrixView x, MatrixView out) const {
  timed("quantise", stream, [&] { inner_->fake_quantize(stream, x, out); });
}
void TimedBackend::linear(Stream& stream, std::span<const LinearCall> calls, const QuantizedView& x) const {
  timed(name_of(*calls[0].weight), stream, [&] { inner_->linear(stream, calls, x); });
}
void TimedBackend::linear(Stream& stream, std::span<const LinearCall> calls, MatrixView x) const {
  timed(name_of(*calls[0].weight), stream, [&] { inner_->linear(stream, calls, x); });
}
Status TimedBackend::best_logits(Stream& stream, const Matrix& table, MatrixView x, int64_t n_best,
                                 MatrixView out) const {
  return timed(name_of(table), stream, [&] { return inner_->best_logits(stream, table, x, n_best, out); });
}
void TimedBackend::rope(Stream& stream, MatrixView x, int64_t head_dim, const RopeTable& table,
                        int64_t first_position) const {
  timed("rope, cache", stream, [&] { inner_->rope(stream, x, head_dim, table, first_position); });
}
void TimedBackend::store_kv(Stream& stream, MatrixView k, MatrixView v, const KvLayer& kv,
                            int64_t first_position) const {
  timed("rope, cache", stream, [&] { inner_->store_kv(stream, k, v, kv, first_position); });
}
void TimedBackend::attention(Stream& stream, MatrixView q, const KvLayer& kv, int64_t first_position,
                             MatrixView out) const {
  timed("attention", stream, [&] { inner_->attention(stream, q, kv, first_position, out); });
}
void TimedBackend::gate(Stream& stream, GateActivation activation, MatrixView gate, MatrixView up,
                        MatrixView out) const {
  timed("activation", stream, [&] { inner_->gate(stream, activation, gate, up, out); });
}
void TimedBackend::add(Stream& stream, MatrixView x, MatrixView y) const {
  timed("residual", stream, [&] { inner_->add(stream, x, y); });
}

}  // namespace bitnet
