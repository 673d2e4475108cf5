#include "bitnet/session.h"

#include "base/result.h"
#include "memory/buffer.h"
#include "model/forward.h"
#include "model/model.h"
#include "runtime/kv_cache.h"
#include "runtime/sampler.h"

#include <algorithm>
#include <atomic>
#include <new>
#include <system_error>

namespace bitnet {
namespace {

constexpr int64_t kDefaultContext = 4096;
constexpr int kMaxThreads = 1024;
// Rows of logits in memory at once when a sink wants them all; 128256 tokens make 33 MB.
constexpr int64_t kSinkRows = 64;

// The options with every default filled in.
Result<SessionOptions> resolve(const SessionOptions& options, const ModelConfig& config) {
  SessionOptions o = options;
  if (o.n_ctx < 0) return invalid_argument("session option n_ctx is {}, expected 0 (default) or more", o.n_ctx);
  if (o.n_ctx == 0) o.n_ctx = std::min(config.n_ctx_train, kDefaultContext);
  if (o.n_ctx > config.n_ctx_train) {
    return invalid_argument(
        "session option n_ctx is {}, but the model was trained for {} positions and knows no others", o.n_ctx,
        config.n_ctx_train);
  }
  if (o.n_threads < 0 || o.n_threads > kMaxThreads) {
    return invalid_argument("session option n_threads is {}, expected 0 (all processors) to {}", o.n_threads,
                            kMaxThreads);
  }
  if (o.n_threads == 0) o.n_threads = std::min(available_cpus(), kMaxThreads);
  if (o.chunk < 1) return invalid_argument("session option chunk is {}, expected 1 or more", o.chunk);
  o.chunk = std::min(o.chunk, o.n_ctx);
  if (o.min_n_ctx < 0 || o.min_n_ctx > o.n_ctx) {
    return invalid_argument("session option min_n_ctx is {}, expected 0 (n_ctx) to n_ctx, {}", o.min_n_ctx, o.n_ctx);
  }
  return o;
}

StreamOptions stream_options(const SessionOptions& options, const ModelImpl& model) {
  const ModelConfig& config = model.config;
  StreamOptions s;
  s.fused = model.fused.get();
  s.n_threads = options.n_threads;
  s.max_tokens = options.chunk;
  s.max_cols = std::max({config.d_model, config.d_ff, config.n_heads * config.head_dim});
  s.n_ctx = options.n_ctx;
  s.n_heads = config.n_heads;
  return s;
}

Error interrupted() { return make_error(ErrorCode::kInterrupted, "stopped on request"); }

}  // namespace

struct Session::Impl {
  explicit Impl(Model m) : model(std::move(m)), weights(*model.impl()) {}

  Status take_memory();
  Status check(std::span<const int32_t> new_ids) const;
  // Runs tokens at `position`...
  Status run_chunk(int64_t position, std::span<const int32_t> chunk, const WantedLogits& wanted);
  Status run_last(std::span<const int32_t> new_ids);
  Status run_all(std::span<const int32_t> new_ids, const LogitsSink& sink);
  // Runs the last token again where truncate() dropped the logits after it or more of them are wanted.
  Status restore_logits();
  void remember(std::span<const int32_t> new_ids);
  void hold(const float* row) {
    logits = {row, size_t(vocab_size())};
    n_best_held = n_best;
  }

  int64_t vocab_size() const { return weights.config.vocab_size; }

  Model model;
  const ModelImpl& weights;
  SessionOptions options;
  std::unique_ptr<Stream> stream;
  Workspace workspace;
  KvCache kv;
  RopeTables rope;
  Buffer ids;          // int32 [n_ctx]
  Buffer last_logits;  // float [vocab_size]
  Buffer all_logits;   // float [kSinkRows, vocab_size], taken when a sink first asks
  int64_t n_past = 0;
  std::span<const float> logits;
  int64_t n_best = 0;       // wanted of the logits, 0: all
  int64_t n_best_held = 0;  // in `logits`
  std::atomic<bool> stop{false};
  static_assert(std::atomic<bool>::is_always_lock_free, "request_stop() is called from signal handlers");
};

Status Session::Impl::take_memory() {
  const ModelConfig& config = weights.config;
  // The cache first: of everything here it alone can be too large for a machine that holds the model.
  BN_ASSIGN_OR_RETURN(kv, KvCache::create(*weights.backend, config, cache_dtype(options.kv_type), options.n_ctx));
  BN_ASSIGN_OR_RETURN(stream, weights.backend->new_stream(stream_options(options, weights)));
  // A fused model runs every step of one sequence and brings its own.
  if (!weights.fused) {
    BN_ASSIGN_OR_RETURN(workspace, Workspace::create(weights, options.chunk));
  }
  BN_ASSIGN_OR_RETURN(rope, make_rope_tables(*weights.backend, config, options.n_ctx));
  BN_ASSIGN_OR_RETURN(ids, Buffer::allocate(size_t(options.n_ctx) * sizeof(int32_t)));
  BN_ASSIGN_OR_RETURN(last_logits, Buffer::allocate(size_t(vocab_size()) * sizeof(float), false));
  return ok();
}

Status Session::Impl::check(std::span<const int32_t> new_ids) const {
  for (size_t i = 0; i < new_ids.size(); ++i) {
    if (new_ids[i] < 0 || new_ids[i] >= vocab_size()) {
      return invalid_argument("token id {} (number {} of {}) is outside the vocabulary of {} tokens", new_ids[i], i,
                              new_ids.size(), vocab_size());
    }
  }
  if (int64_t(new_ids.size()) > options.n_ctx - n_past) {
    Error error = invalid_argument("{} tokens do not fit: the context has {} positions, {} of them taken",
                                   new_ids.size(), options.n_ctx, n_past);
    if (options.n_ctx < weights.config.n_ctx_train) {
      error.suggestion = fmt::format("a session with a larger n_ctx, up to {}", weights.config.n_ctx_train);
    }
    return error;
  }
  return ok();
}

Status Session::Impl::run_chunk(int64_t position, std::span<const int32_t> chunk, const WantedLogits& wanted) {
  Status status = stop.load(std::memory_order_relaxed)
                      ? Status(interrupted())
                      : forward(weights, *stream, workspace, kv.layers(), rope.view, chunk, position, wanted, stop);
  if (!status && status.error().code == ErrorCode::kInterrupted) stop.store(false, std::memory_order_relaxed);
  return status;
}

Status Session::Impl::run_last(std::span<const int32_t> new_ids) {
  const MatrixView row{last_logits.as<float>(), 1, vocab_size()};
  for (size_t begin = 0; begin < new_ids.size();) {
    const size_t n = std::min(new_ids.size() - begin, size_t(options.chunk));
    const bool last = begin + n == new_ids.size();
    const MatrixView rows{row.data, last ? 1 : 0, row.n_cols};
    BN_RETURN_IF_ERROR(run_chunk(n_past + int64_t(begin), new_ids.subspan(begin, n), {rows, n_best}));
    begin += n;
  }
  hold(row.data);
  return ok();
}

Status Session::Impl::run_all(std::span<const int32_t> new_ids, const LogitsSink& sink) {
  const int64_t max_rows = std::min(options.chunk, kSinkRows);
  const size_t row_floats = size_t(vocab_size());
  if (all_logits.size_bytes() == 0) {
    BN_ASSIGN_OR_RETURN(all_logits, Buffer::allocate(size_t(max_rows) * row_floats * sizeof(float), false));
  }
  float* const data = all_logits.as<float>();
  for (size_t begin = 0; begin < new_ids.size();) {
    const size_t n = std::min(new_ids.size() - begin, size_t(max_rows));
    const int64_t position = n_past + int64_t(begin);
    const MatrixView rows{data, int64_t(n), vocab_size()};
    BN_RETURN_IF_ERROR(run_chunk(position, new_ids.subspan(begin, n), {rows, n_best}));
    for (size_t i = 0; i < n; ++i) {
      if (!sink(position + int64_t(i), {data + i * row_floats, row_floats})) return interrupted();
    }
    begin += n;
    hold(data + (n - 1) * row_floats);
  }
  return ok();
}

Status Session::Impl::restore_logits() {
  const bool enough = n_best_held == 0 || (n_best > 0 && n_best <= n_best_held);
  if (n_past == 0 || (!logits.empty() && enough)) return ok();
  const MatrixView row{last_logits.as<float>(), 1, vocab_size()};
  BN_RETURN_IF_ERROR(run_chunk(n_past - 1, {ids.as<int32_t>() + n_past - 1, 1}, {row, n_best}));
  hold(row.data);
  return ok();
}

void Session::Impl::remember(std::span<const int32_t> new_ids) {
  std::copy(new_ids.begin(), new_ids.end(), ids.as<int32_t>() + n_past);
  n_past += int64_t(new_ids.size());
}

Result<Session> Model::new_session() const { return new_session(SessionOptions()); }

namespace {

// The most positions, halving n_ctx, whose cache the back end can give now; 0: none.
int64_t fitting_n_ctx(const ModelImpl& model, DType dtype, int64_t n_ctx) {
  for (n_ctx /= 2; n_ctx > 0; n_ctx /= 2) {
    if (KvCache::create(*model.backend, model.config, dtype, n_ctx)) return n_ctx;
  }
  return 0;
}

}  // namespace

Result<Session> Model::new_session(const SessionOptions& options) const {
  BN_ASSIGN_OR_RETURN(SessionOptions resolved, resolve(options, impl_->config));
  try {
    while (true) {
      auto session = std::make_unique<Session::Impl>(*this);
      session->options = resolved;
      Status taken = session->take_memory();
      if (taken) return Session(std::move(session));
      session.reset();
      Error& error = taken.error();
      if (error.code != ErrorCode::kResource) return error;
      if (resolved.min_n_ctx == 0 || resolved.n_ctx == resolved.min_n_ctx) {
        const int64_t fitting = fitting_n_ctx(*impl_, cache_dtype(resolved.kv_type), resolved.n_ctx);
        if (fitting > 0) error.suggestion = fmt::format("an n_ctx (--ctx) of {}, whose cache fits now", fitting);
        return error;
      }
      resolved.n_ctx = std::max(resolved.n_ctx / 2, resolved.min_n_ctx);
      resolved.chunk = std::min(resolved.chunk, resolved.n_ctx);
    }
  } catch (const std::bad_alloc&) {
    return make_error(ErrorCode::kResource, "no memory for a session of {} positions", resolved.n_ctx);
  } catch (const std::system_error& error) {
    return make_error(ErrorCode::kResource, "cannot start {} threads: {}", resolved.n_threads, error.what());
  }
}

Session::Session(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;
Session::~Session() = default;

const Model& Session::model() const { return impl_->model; }
int64_t Session::n_ctx() const { return impl_->options.n_ctx; }
int64_t Session::n_past() const { return impl_->n_past; }
std::span<const int32_t> Session::ids() const { return {impl_->ids.as<int32_t>(), size_t(impl_->n_past)}; }
std::span<const float> Session::logits() const { return impl_->logits; }

void Session::want_logits(int64_t n_best) { impl_->n_best = std::max<int64_t>(0, n_best); }

Status Session::append(std::span<const int32_t> ids) { return append(ids, {}); }

Status Session::append(std::span<const int32_t> ids, const LogitsSink& sink) {
  BN_RETURN_IF_ERROR(impl_->check(ids));
  if (ids.empty()) return impl_->restore_logits();
  impl_->logits = {};
  Status status = sink ? impl_->run_all(ids, sink) : impl_->run_last(ids);
  if (!status) {
    impl_->logits = {};
    return status;
  }
  impl_->remember(ids);
  return ok();
}

Result<std::optional<int32_t>> Session::append_sampled(int32_t id, const SamplingOptions& options, uint64_t draw) {
  const std::optional<TokenSampling> sampling = Sampler::without_penalties(options);
  if (!sampling) return std::optional<int32_t>();
  BN_RETURN_IF_ERROR(impl_->check({&id, 1}));
  if (impl_->stop.exchange(false, std::memory_order_relaxed)) return interrupted();
  const Impl& s = *impl_;
  BN_ASSIGN_OR_RETURN(const std::optional<int32_t> next,
                      forward_sampled(s.weights, *s.stream, s.kv.layers(), s.rope.view, id, s.n_past, *sampling, draw));
  if (!next) return next;
  impl_->logits = {};
  impl_->remember({&id, 1});
  return next;
}

Status Session::truncate(int64_t n_past) {
  if (n_past < 0 || n_past > impl_->n_past) {
    return invalid_argument("cannot truncate to {} tokens: the session holds {}", n_past, impl_->n_past);
  }
  impl_->n_past = n_past;
  impl_->logits = {};
  return ok();
}

void Session::reset() {
  impl_->n_past = 0;
  impl_->logits = {};
  clear_stop();
}

void Session::request_stop() { impl_->stop.store(true, std::memory_order_relaxed); }

void Session::clear_stop() { impl_->stop.store(false, std::memory_order_relaxed); }

uint64_t Session::weight_bytes_read() const { return impl_->stream->weight_bytes_read(); }
uint64_t Session::memory_bytes() const {
  const Impl& s = *impl_;
  return s.kv.size_bytes() + s.workspace.size_bytes() + s.ids.size_bytes() + s.last_logits.size_bytes() +
         s.all_logits.size_bytes() + s.rope.memory.size_bytes();
}

}  // namespace bitnet
