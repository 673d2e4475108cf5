// Generation of several sequences together, for `bitnet bench --batch`.
#include "bench.h"

#include "runtime/batch.h"
#include "verify_checks.h"

#include <algorithm>
#include <chrono>

namespace bitnet::cli {
namespace {

// Fills the cache with `depth` tokens of each sequence, another part of `ids` for each.
Status fill(Batch& batch, const BenchSizes& sizes, std::span<const int32_t> ids, std::vector<int32_t>& next) {
  std::vector<BestToken> best(1);
  for (size_t i = 0; i < next.size(); ++i) {
    BN_ASSIGN_OR_RETURN(const int32_t sequence, batch.open());
    std::vector<int32_t> text(static_cast<size_t>(sizes.depth));
    for (size_t j = 0; j < text.size(); ++j) text[j] = ids[(i + j) % ids.size()];
    for (size_t begin = 0; begin < text.size(); begin += size_t(sizes.session.chunk)) {
      const size_t n = std::min(size_t(sizes.session.chunk), text.size() - begin);
      const Batch::Part part{sequence, std::span(text).subspan(begin, n)};
      BN_RETURN_IF_ERROR(batch.step({&part, 1}, best));
    }
    next[i] = best[0].id;
  }
  return ok();
}

}  // namespace

Result<double> time_batch(const Model& model, const BenchSizes& sizes, std::span<const int32_t> ids,
                          std::vector<Sampler::Candidate>& found) {
  BatchOptions options;
  options.max_sequences = sizes.batch;
  options.n_ctx = sizes.depth + 1 + sizes.n_generate;
  options.max_tokens = std::max(sizes.batch, std::min(sizes.session.chunk, sizes.depth));
  options.kv_type = sizes.session.kv_type;
  BN_ASSIGN_OR_RETURN(Batch batch, Batch::create(model, options));
  std::vector<int32_t> next(static_cast<size_t>(sizes.batch));
  BN_RETURN_IF_ERROR(fill(batch, sizes, ids, next));
  std::vector<BestToken> best(next.size());
  std::vector<Batch::Part> parts(next.size());
  const auto step = [&]() -> Status {
    for (size_t i = 0; i < next.size(); ++i) parts[i] = {int32_t(i), {&next[i], 1}};
    BN_RETURN_IF_ERROR(batch.step(parts, best));
    for (size_t i = 0; i < next.size(); ++i) next[i] = best[i].id;
    return ok();
  };
  BN_RETURN_IF_ERROR(step());  // a GPU records its kernels in the first step of that many sequences
  const auto start = std::chrono::steady_clock::now();
  for (int64_t i = 0; i < sizes.n_generate; ++i) {
    BN_RETURN_IF_ERROR(step());
    for (const BestToken& token : best) found.push_back({token.logit, token.id});
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  return double(sizes.batch * sizes.n_generate) / seconds.count();
}

}  // namespace bitnet::cli
