#include "kernels/kv_tiles.h"

#include "kernels/test_support.h"

#include <cmath>
#include <set>

// The tiled caches: what is stored, and how far attention over them lies from attention over float32.
namespace bitnet {
namespace {

BN_EVERY_ISA(KvTiles);

TEST(KvTilesLayout, EveryCodeHasAPlaceOfItsOwn) {
  for (const int64_t bits : {8, 4}) {
    for (const int64_t head_dim : {32, 96, 128, 512}) {
      for (const auto code_at : {key_code_at, value_code_at}) {
        std::set<int64_t> places;
        for (int64_t c = 0; c < head_dim * bits / 8; ++c) {
          for (int64_t t = 0; t < kTilePositions; ++t) places.insert(code_at(c, t));
        }
        EXPECT_EQ(int64_t(places.size()), kTilePositions * head_dim * bits / 8);
        EXPECT_EQ(*places.begin(), kTileScales_bytes);
        EXPECT_EQ(*places.rbegin() + 1, kv_tile_bytes(head_dim, bits));
      }
    }
  }
}

// One layer with one key/value head and room for n positions.
struct Cache {
  Cache(DType dtype, int64_t n, int64_t head_dim, uint8_t fill = 0) {
    layer = {nullptr, nullptr, dtype, 1, n, head_dim};
    k.assign(size_t(layer.head_bytes()), fill);
    v.assign(k.size(), fill);
    layer.k = k.data();
    layer.v = v.data();
  }
  std::vector<uint8_t> k, v;
  KvLayer layer;
};

std::vector<float> attend(const Backend& backend, Cache& cache, Floats q, int64_t first_position) {
  Floats out(q.view().n_rows, q.view().n_cols);
  const auto stream = make_stream(backend, 2, q.view().n_rows, q.view().n_cols, cache.layer.n_ctx);
  backend.attention(*stream, q.view(), cache.layer, first_position, out.view());
  return out.values;
}

void store(const Backend& backend, Cache& cache, Floats k, Floats v, int64_t first_position = 0) {
  const auto stream = make_stream(backend, 2, k.view().n_rows, k.view().n_cols, cache.layer.n_ctx);
  backend.store_kv(*stream, k.view(), v.view(), cache.layer, first_position);
}

// Normals, zeros, large and tiny values, halves, subnormals, infinities and NaNs: the reference's bytes and bits.
TEST_P(KvTiles, DifficultRowsGiveTheReferencesBytesAndOutputs) {
  for (const int64_t head_dim : {32, 96, 128, 512}) {
    const Floats rows = difficult_rows(head_dim);
    for (const DType dtype : {DType::kI8, DType::kI4}) {
      Cache want(dtype, 7, head_dim), got(dtype, 7, head_dim);
      store(reference_, want, rows, rows);
      store(cpu_, got, rows, rows);
      EXPECT_EQ(want.k, got.k) << dtype_info(dtype).name << ", heads of " << head_dim;
      EXPECT_EQ(want.v, got.v) << dtype_info(dtype).name << ", heads of " << head_dim;
      // NaN payloads may differ, so only the finite rows attend.
      EXPECT_TRUE(same_bits(attend(reference_, want, Floats(1, 4 * head_dim, 9), 4),
                            attend(cpu_, got, Floats(1, 4 * head_dim, 9), 4)));
    }
  }
}

// What lies in positions not yet stored, and what is stored later, reaches no earlier query.
TEST_P(KvTiles, LaterPositionsAreNeverSeen) {
  constexpr int64_t kHeadDim = 64, kPositions = 70;
  for (const DType dtype : {DType::kI8, DType::kI4}) {
    Cache clean(dtype, 128, kHeadDim, 0), dirty(dtype, 128, kHeadDim, 0xff);  // 0xff: scales are NaN
    const Floats k(kPositions, kHeadDim, 1), v(kPositions, kHeadDim, 2), q(5, kHeadDim, 3);
    store(cpu_, clean, k, v);
    store(cpu_, dirty, k, v);
    EXPECT_TRUE(same_bits(attend(cpu_, clean, q, 65), attend(cpu_, dirty, q, 65)));
    const auto before = attend(cpu_, clean, Floats(1, kHeadDim, 4), 65);
    Floats wild(40, kHeadDim, 5);
    for (float& x : wild.values) x *= 1e20f;
    store(cpu_, clean, wild, wild, 66);
    EXPECT_TRUE(same_bits(before, attend(cpu_, clean, Floats(1, kHeadDim, 4), 65)));
  }
}

// Against double precision on float32 keys and values, one of them an outlier in a single dimension, as models have
// them: the relative RMS error of outputs.
double attention_error(const Backend& backend, DType dtype) {
  constexpr int64_t kHeadDim = 128, kPositions = 300, kQueries = 8;
  Floats k(kPositions, kHeadDim, 21), v(kPositions, kHeadDim, 22), q(1, kQueries * kHeadDim, 23);
  for (int64_t t = 0; t < kPositions; ++t) k.view().row(t)[17] += 30.0f;
  Cache cache(dtype, kPositions, kHeadDim);
  store(backend, cache, k, v);
  const std::vector<float> out = attend(backend, cache, q, kPositions - 1);
  double error = 0, size = 0;
  for (int64_t head = 0; head < kQueries; ++head) {
    std::vector<double> weights(kPositions), want(kHeadDim);
    double total = 0, most = -1e300;
    for (int64_t t = 0; t < kPositions; ++t) {
      for (int64_t i = 0; i < kHeadDim; ++i) {
        weights[size_t(t)] += double(q.values[size_t(head * kHeadDim + i)]) * k.view().row(t)[i];
      }
      weights[size_t(t)] /= std::sqrt(double(kHeadDim));
      most = std::max(most, weights[size_t(t)]);
    }
    for (double& w : weights) total += w = std::exp(w - most);
    for (int64_t t = 0; t < kPositions; ++t) {
      for (int64_t i = 0; i < kHeadDim; ++i) want[size_t(i)] += weights[size_t(t)] / total * v.view().row(t)[i];
    }
    for (int64_t i = 0; i < kHeadDim; ++i) {
      error += std::pow(out[size_t(head * kHeadDim + i)] - want[size_t(i)], 2);
      size += std::pow(want[size_t(i)], 2);
    }
  }
  return std::sqrt(error / size);
}

TEST_P(KvTiles, AttentionIsNearThatOfFloat32) {
  EXPECT_LT(attention_error(cpu_, DType::kF32), 1e-5);
  const double int8 = attention_error(cpu_, DType::kI8), int4 = attention_error(cpu_, DType::kI4);
  RecordProperty("int8", std::to_string(int8));
  RecordProperty("int4", std::to_string(int4));
  EXPECT_LT(int8, 0.025);
  EXPECT_LT(int4, 0.3);
  EXPECT_LT(int8, int4);
}

TEST_P(KvTiles, WantsHeadsOf32Dimensions) {
  for (const DType dtype : {DType::kI8, DType::kI4}) {
    EXPECT_TRUE(cpu_.check_kv(dtype, 32));
    EXPECT_TRUE(cpu_.check_kv(dtype, 512));
    for (const int64_t head_dim : {16, 100, 544}) {
      const Status refused = cpu_.check_kv(dtype, head_dim);
      ASSERT_FALSE(refused);
      EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
    }
  }
}

}  // namespace
}  // namespace bitnet
