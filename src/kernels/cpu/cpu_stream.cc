#include "kernels/cpu/cpu_stream.h"

#include "base/checked.h"

#include <algorithm>

namespace bitnet {
namespace {

constexpr int64_t kMaxThreads = 1024;
constexpr int64_t kPage_bytes = 4096;  // threads share no page, so each page can lie near its thread

}  // namespace

Result<std::unique_ptr<Stream>> CpuStream::create(const StreamOptions& options, const CpuKernels& kernels) {
  if (options.n_threads < 1 || options.n_threads > kMaxThreads) {
    return invalid_argument("{} threads: expected 1 to {}", options.n_threads, kMaxThreads);
  }
  constexpr int64_t kLimit = int64_t{1} << 31;
  for (const int64_t n : {options.max_tokens, options.max_cols, options.n_ctx, options.n_heads}) {
    if (n >= 1 && n <= kLimit) continue;
    return invalid_argument("a stream for {} tokens, {} columns, {} positions and {} heads: each must be 1 to 2^31",
                            options.max_tokens, options.max_cols, options.n_ctx, options.n_heads);
  }
  const int64_t cols = quantized_stride(options.max_cols);
  const int64_t scores_stride = round_up(options.n_ctx, kTilePositions);
  const int64_t group_tokens = std::max(int64_t{1}, kernels.matmul.n_tokens);
  // A thread's memory; codes() and tile() are large enough for their other uses from the 320 columns on that every
  // stream has.
  constexpr int64_t kLeastCols = quantized_stride(1);
  static_assert(kTilesAtOnce * kTileRows * kLeastCols >= (kLeastCols + 5 * kVectorBytes) * int64_t{sizeof(int32_t)});
  static_assert(kBlockBytes * kLeastCols / kBlockCols >= kLeastCols + 5 * kVectorBytes);
  const int64_t tile_at = kTilesAtOnce * kTileRows * cols;
  const int64_t lists_at = round_up(tile_at + kBlockBytes * cols / kBlockCols, 64);
  const int64_t sums_at = round_up(lists_at + int64_t{sizeof(SparseLists)}, 64);
  const int64_t scores_at = sums_at + round_up(group_tokens * kTileRows * int64_t{sizeof(int32_t)}, 64);
  const int64_t bytes_per_thread =
      round_up(scores_at + kQueriesAtOnce * scores_stride * int64_t{sizeof(float)}, kPage_bytes);
  // Whole groups of tokens, or the codes of a head's inputs; then whole groups of those inputs.
  const int64_t n_tokens = round_up(std::max(options.max_tokens, kInputsAtOnce), group_tokens);
  const auto packed = checked_mul(uint64_t(n_tokens + round_up(kInputsAtOnce, group_tokens)), uint64_t(cols));
  const auto scores = checked_mul(uint64_t(options.n_heads) * sizeof(float), uint64_t(scores_stride + 1));
  const auto shared = packed && scores ? checked_add(*packed, *scores + 2 * kPage_bytes) : packed;
  const auto total = shared ? checked_add(*shared, uint64_t(options.n_threads * bytes_per_thread)) : shared;
  if (!total || !scores) {
    return make_error(ErrorCode::kResource, "scratch memory for {} tokens does not fit", options.max_tokens);
  }
  const int64_t shared_scores_at = round_up(int64_t(*packed), kPage_bytes);
  const int64_t shared_bytes = round_up(shared_scores_at + int64_t(*scores), kPage_bytes);
  BN_ASSIGN_OR_RETURN(Buffer memory, Buffer::allocate(size_t(shared_bytes + options.n_threads * bytes_per_thread)));
  auto stream = std::make_unique<CpuStream>(options.n_threads, std::move(memory));
  stream->packed_inputs_at_ = n_tokens * cols;
  stream->shared_bytes_ = shared_bytes;
  stream->bytes_per_thread_ = bytes_per_thread;
  stream->tile_at_ = tile_at;
  stream->lists_at_ = lists_at;
  stream->sums_at_ = sums_at;
  stream->scores_at_ = scores_at;
  stream->scores_stride_ = scores_stride;
  stream->shared_scores_at_ = shared_scores_at;
  stream->n_heads_ = options.n_heads;
  return std::unique_ptr<Stream>(std::move(stream));
}

}  // namespace bitnet
