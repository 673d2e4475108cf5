#include "kernels/test_support.h"

#include <algorithm>
#include <cmath>

namespace bitnet {
namespace {

BN_EVERY_ISA(AttentionOp);

struct Shape {
  int64_t n_heads, n_kv_heads, head_dim;
};

// Keys and values of one layer with their memory.
struct Cache {
  Cache(const Cache&) = delete;
  Cache(const Shape& shape, DType dtype, int64_t n_ctx)
      : k(size_t(shape.n_kv_heads * n_ctx * shape.head_dim)), v(k.size()) {
    layer = {k.data(), v.data(), dtype, shape.n_kv_heads, n_ctx, shape.head_dim};
  }
  std::vector<float> k, v;  // room for every type
  KvLayer layer;
};

// Runs n_tokens in chunks through store_kv and attention, as a session does; the first n_stored are only stored.
std::vector<float> run_attention(const Backend& backend, const Shape& shape, DType dtype, int64_t n_tokens,
                                 int64_t chunk, int n_threads, int64_t n_stored = 0) {
  const int64_t n_ctx = n_tokens + 3, kv_cols = shape.n_kv_heads * shape.head_dim;
  Cache cache(shape, dtype, n_ctx);
  Floats q(n_tokens, shape.n_heads * shape.head_dim, 1), k(n_tokens, kv_cols, 2), v(n_tokens, kv_cols, 3);
  Floats out(n_tokens, shape.n_heads * shape.head_dim);
  const auto stream = make_stream(backend, n_threads, std::max(chunk, n_stored), shape.n_heads * shape.head_dim, n_ctx);
  const auto rows = [](Floats& all, int64_t first, int64_t n) {
    return MatrixView{all.view().row(first), n, all.view().n_cols};
  };
  if (n_stored > 0) backend.store_kv(*stream, rows(k, 0, n_stored), rows(v, 0, n_stored), cache.layer, 0);
  for (int64_t first = n_stored; first < n_tokens; first += chunk) {
    const int64_t n = std::min(chunk, n_tokens - first);
    backend.store_kv(*stream, rows(k, first, n), rows(v, first, n), cache.layer, first);
    backend.attention(*stream, rows(q, first, n), cache.layer, first, rows(out, first, n));
  }
  return out.values;
}

const Shape kShapes[] = {{20, 4, 128}, {6, 6, 96},  {4, 4, 100}, {5, 1, 64},
                         {3, 3, 32},   {12, 1, 16}, {3, 3, 8},   {1, 1, 1}};

TEST_P(AttentionOp, AttentionEqualsTheReferenceForEveryChunk) {
  for (const Shape& shape : kShapes) {
    for (const DType dtype : {DType::kF16, DType::kF32, DType::kQ8_0, DType::kI8, DType::kI4}) {
      if (!cpu_.check_kv(dtype, shape.head_dim)) continue;
      constexpr int64_t kTokens = 75;
      const auto want = run_attention(reference_, shape, dtype, kTokens, kTokens, 1);
      for (const int64_t chunk : {int64_t{1}, int64_t{7}, int64_t{32}, kTokens}) {
        EXPECT_TRUE(same_bits(want, run_attention(cpu_, shape, dtype, kTokens, chunk, 2)))
            << dtype_info(dtype).name << ", " << shape.n_heads << "/" << shape.n_kv_heads << " heads of "
            << shape.head_dim << ", chunk " << chunk;
      }
    }
  }
}

TEST_P(AttentionOp, AttentionDoesNotDependOnThreads) {
  const Shape shape = {10, 5, 32};
  for (const DType dtype : {DType::kF16, DType::kQ8_0, DType::kI8, DType::kI4}) {
    const auto want = run_attention(reference_, shape, dtype, 40, 40, 1);
    for (const int n_threads : {1, 2, 3, 8}) {
      for (const int64_t chunk : {1, 40}) {
        EXPECT_TRUE(same_bits(want, run_attention(cpu_, shape, dtype, 40, chunk, n_threads))) << n_threads;
      }
    }
  }
}

// Beyond 512 positions threads share a single token's attention by positions and columns.
TEST_P(AttentionOp, LongAttentionDoesNotDependOnThreads) {
  for (const Shape& shape : {Shape{20, 5, 128}, Shape{3, 3, 96}, Shape{18, 2, 32}, Shape{4, 4, 100}}) {
    for (const DType dtype : {DType::kF16, DType::kF32, DType::kQ8_0, DType::kI8, DType::kI4}) {
      if (!cpu_.check_kv(dtype, shape.head_dim)) continue;
      constexpr int64_t kTokens = 513, kStored = 511;
      const auto want = run_attention(reference_, shape, dtype, kTokens, 1, 1, kStored);
      for (const int n_threads : {1, 2, 5}) {
        const auto out = run_attention(cpu_, shape, dtype, kTokens, 1, n_threads, kStored);
        EXPECT_TRUE(same_bits(want, out)) << dtype_info(dtype).name << ", " << n_threads << " threads";
      }
    }
  }
}

// One value per position so far: the output is the softmax itself, checked against double precision.
TEST_P(AttentionOp, AttentionIsSoftmaxOfScaledProducts) {
  Cache cache({1, 1, 4}, DType::kF32, 3);
  const float k[12] = {1, 0, 0, 0, 0, 2, 0, 0, 0, 0, 3, 0}, v[12] = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 9};
  std::copy_n(k, 12, cache.k.begin());
  std::copy_n(v, 12, cache.v.begin());
  Floats q(1, 4), out(1, 4);
  q.values = {0.5f, 0.25f, 2.0f, 1.0f};
  cpu_.attention(*make_stream(cpu_, 1, 1, 4, 3), q.view(), cache.layer, 2, out.view());
  const double scores[3] = {0.25, 0.25, 3.0};
  double total = 0.0;
  for (const double s : scores) total += std::exp(s);
  for (size_t i = 0; i < 3; ++i) EXPECT_NEAR(out.values[i], std::exp(scores[i]) / total, 1e-6);
  EXPECT_NEAR(out.values[3], 9.0 * std::exp(3.0) / total, 1e-5);
}

// A later position's infinities must not reach an earlier token of the same chunk, not even times zero.
TEST_P(AttentionOp, LaterPositionsAreNeverRead) {
  const Shape shape = {2, 2, 20};
  Cache cache(shape, DType::kF32, 16);
  const std::vector<float> k = random_floats(int64_t(cache.k.size()), 5), v = random_floats(int64_t(cache.v.size()), 6);
  std::copy(k.begin(), k.end(), cache.k.begin());
  std::copy(v.begin(), v.end(), cache.v.begin());
  Floats q(8, 40, 7), clean(8, 40), dirty(8, 40);
  const auto stream = make_stream(cpu_, 2, 8, 40, 16);
  cpu_.attention(*stream, q.view(), cache.layer, 0, clean.view());
  for (int64_t head = 0; head < 2; ++head) {
    for (int64_t i = 4 * 20; i < 16 * 20; ++i) {
      cache.k[size_t(head * 16 * 20 + i)] = std::nanf("");
      cache.v[size_t(head * 16 * 20 + i)] = HUGE_VALF;
    }
  }
  cpu_.attention(*stream, q.view(), cache.layer, 0, dirty.view());
  clean.values.resize(4 * 40);
  dirty.values.resize(4 * 40);
  EXPECT_TRUE(same_bits(clean.values, dirty.values));
}

}  // namespace
}  // namespace bitnet
