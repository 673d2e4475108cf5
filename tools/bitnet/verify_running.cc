// The checks of `bitnet verify` that run the model.
#include "base/rng.h"
#include "interrupt.h"
#include "output.h"
#include "progress.h"
#include "runtime/perplexity.h"
#include "verify_checks.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace bitnet::cli {
namespace {

// The reference back end takes about a second for this many weights and tokens.
constexpr int64_t kSmallModel = 100'000'000;
constexpr int64_t kReferenceTokens = 4;

// Limits of agreement between two float32 implementations of one model (docs/numerics.md).
constexpr double kMaxRelativeRms = 3e-2;
constexpr double kMaxMeanKl = 1e-4;
constexpr float kClearMargin = 0.1f;

// All logits of a sequence, [n, vocab_size].
Result<std::vector<float>> all_logits(const Model& model, std::span<const int32_t> ids, int64_t chunk, int n_threads) {
  SessionOptions options;
  options.n_ctx = int64_t(ids.size());
  options.chunk = chunk;
  options.n_threads = n_threads;
  options.kv_type = KvType::kF32;
  BN_ASSIGN_OR_RETURN(Session session, model.new_session(options));
  std::vector<float> logits;
  logits.reserve(ids.size() * size_t(model.info().vocab_size));
  const InterruptScope scope(&session);
  const auto keep = [&](int64_t, std::span<const float> row) {
    logits.insert(logits.end(), row.begin(), row.end());
    return !interrupted();
  };
  for (size_t begin = 0; begin < ids.size(); begin += size_t(chunk)) {
    BN_RETURN_IF_ERROR(session.append(ids.subspan(begin, std::min(size_t(chunk), ids.size() - begin)), keep));
  }
  return logits;
}

Result<std::string> same_bits(std::span<const float> a, std::span<const float> b, int64_t vocab_size,
                              const std::string& what) {
  const size_t n = std::min(a.size(), b.size());
  for (size_t i = 0; i < n; ++i) {
    if (std::memcmp(&a[i], &b[i], sizeof(float)) != 0) {
      return make_error(ErrorCode::kInternal, "{}: the logit of token {} at position {} is {:.9g} and {:.9g}", what,
                        int64_t(i) % vocab_size, int64_t(i) / vocab_size, a[i], b[i]);
    }
  }
  return fmt::format("{} logits equal, bit for bit", n);
}

Result<std::string> finite(std::span<const float> logits, int64_t vocab_size) {
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!std::isfinite(logits[i])) {
      return invalid_input("the logit of token {} at position {} is {}", int64_t(i) % vocab_size,
                           int64_t(i) / vocab_size, logits[i]);
    }
  }
  return fmt::format("{} logits of {} positions are finite", logits.size(), int64_t(logits.size()) / vocab_size);
}

int64_t argmax(std::span<const float> row) { return std::max_element(row.begin(), row.end()) - row.begin(); }

// Distance of the two largest values.
float margin(std::span<const float> row) {
  float first = -INFINITY, second = -INFINITY;
  for (const float value : row) {
    if (value > first) {
      second = first;
      first = value;
    } else if (value > second) {
      second = value;
    }
  }
  return first - second;
}

}  // namespace

std::vector<int32_t> fixed_ids(int64_t n, int64_t vocab_size) {
  const CounterRng rng(1);
  std::vector<int32_t> ids(size_t(std::max<int64_t>(n, 0)));
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = int32_t(rng.bits(i) % uint64_t(vocab_size));
  return ids;
}

Status verify_running(const Model& model, const VerifyOptions& options, VerifyReport& report) {
  const int64_t vocab_size = model.info().vocab_size;
  const std::vector<int32_t> ids = fixed_ids(std::min(options.n_tokens, model.info().n_ctx_train), vocab_size);
  const auto add = [&](const std::string& name, const Result<std::string>& result) -> Status {
    if (interrupted()) return interrupted_error();
    report.add(name, result);
    return ok();
  };
  const auto whole = all_logits(model, ids, int64_t(ids.size()), options.model.n_threads);
  BN_RETURN_IF_ERROR(add("forward pass", whole ? finite(*whole, vocab_size) : Result<std::string>(whole.error())));
  if (!whole) return ok();

  const auto single = all_logits(model, ids, 1, 1);
  BN_RETURN_IF_ERROR(
      add("one token at a time", single ? same_bits(*whole, *single, vocab_size, "together and one at a time")
                                        : Result<std::string>(single.error())));

  if (model.info().device == "reference") return ok();
  if (!options.deep && model.info().n_parameters > kSmallModel) {
    return add("reference back end", fmt::format("left out for {} parameters; --deep runs it",
                                                 human_count(uint64_t(model.info().n_parameters))));
  }
  LoadOptions load;
  load.device = "reference";
  load.n_threads = options.model.n_threads;
  load.i2s_arm64 = options.model.i2s_layout == "arm64";
  const Result<Model> reference = Model::load(model.info().path, load);
  if (!reference) return add("reference back end", reference.error());
  const auto few = std::span(ids).first(std::min<size_t>(ids.size(), kReferenceTokens));
  const auto expected = all_logits(*reference, few, int64_t(few.size()), options.model.n_threads);
  return add("reference back end",
             expected ? same_bits(*expected, *whole, vocab_size, "reference and " + model.info().kernels)
                      : Result<std::string>(expected.error()));
}

Status verify_against(const Model& model, const Model& other, const VerifyOptions& options, VerifyReport& report) {
  const int64_t vocab_size = model.info().vocab_size;
  if (other.info().vocab_size != vocab_size) {
    report.add("same vocabulary size", invalid_input("{} has {} tokens, {} has {}", model.info().path, vocab_size,
                                                     other.info().path, other.info().vocab_size));
    return ok();
  }
  const int64_t n = std::min({options.n_tokens, model.info().n_ctx_train, other.info().n_ctx_train});
  const std::vector<int32_t> ids = fixed_ids(n, vocab_size);
  const auto a = all_logits(model, ids, n, options.model.n_threads);
  const auto b = all_logits(other, ids, n, options.model.n_threads);
  if (interrupted()) return interrupted_error();
  if (!a || !b) {
    report.add("comparison", !a ? a.error() : b.error());
    return ok();
  }
  double difference = 0, square = 0, kl = 0;
  int64_t n_same = 0, n_clear_changes = 0;
  for (int64_t t = 0; t < n; ++t) {
    const auto row_a = std::span(*a).subspan(size_t(t * vocab_size), size_t(vocab_size));
    const auto row_b = std::span(*b).subspan(size_t(t * vocab_size), size_t(vocab_size));
    for (size_t i = 0; i < row_a.size(); ++i) {
      const double d = double(row_a[i]) - double(row_b[i]);
      difference += d * d;
      square += double(row_a[i]) * double(row_a[i]);
    }
    kl += kl_divergence(row_a, row_b);
    const bool same = argmax(row_a) == argmax(row_b);
    n_same += same;
    n_clear_changes += !same && margin(row_a) > kClearMargin;
  }
  const double rms = square > 0 ? std::sqrt(difference / square) : 0;
  const std::string on = fmt::format(" over {} positions", n);
  const auto limit = [](bool holds, std::string text) {
    return holds ? Result<std::string>(std::move(text))
                 : Result<std::string>(Error{ErrorCode::kInvalidInput, std::move(text)});
  };
  report.add("relative RMS of logits",
             limit(rms <= kMaxRelativeRms, fmt::format("{:.3g}, at most {}{}", rms, kMaxRelativeRms, on)));
  report.add("mean KL divergence",
             limit(kl / double(n) <= kMaxMeanKl, fmt::format("{:.3g}, at most {}{}", kl / double(n), kMaxMeanKl, on)));
  report.add(
      "most likely token",
      limit(n_clear_changes == 0, fmt::format("the same at {} of {} positions; {} changes where the margin exceeds {}",
                                              n_same, n, n_clear_changes, kClearMargin)));
  return ok();
}

}  // namespace bitnet::cli
