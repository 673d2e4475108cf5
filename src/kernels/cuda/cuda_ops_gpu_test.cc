#include "base/half.h"
#include "kernels/cuda/staged_backend.h"
#include "kernels/test_support.h"
#include "quant/blocks.h"

#include <cuda_runtime.h>

#include <cmath>
#include <limits>

// Every operation on the GPU against the reference back end, for equal bits.
namespace bitnet {
namespace {

class CudaOps : public testing::Test {
 protected:
  void SetUp() override {
    if (staged_gpu() == nullptr) GTEST_SKIP() << make_backend("cuda").error().message;
  }
  const Backend& gpu() const { return *staged_gpu(); }
  const ReferenceBackend reference_{};
};

enum class Fill { kRandom, kHighest, kLowest, kZero };

struct Weights {
  Weights(int64_t n_rows, int64_t n_cols, Fill fill, TernaryScales scales = {}) : codes(size_t(n_rows * n_cols)) {
    const CounterRng rng(uint64_t(n_rows * 31 + n_cols));
    for (size_t i = 0; i < codes.size(); ++i) {
      codes[i] =
          fill == Fill::kRandom ? uint8_t(rng.bits(i) % 3) : uint8_t(fill == Fill::kHighest ? 2 : fill == Fill::kZero);
    }
    source.n_rows = n_rows;
    source.n_cols = n_cols;
    source.scales = std::move(scales);
    source.read_codes = [this, n_cols](int64_t row, int64_t n, uint8_t* out) -> Status {
      std::memcpy(out, codes.data() + row * n_cols, size_t(n * n_cols));
      return ok();
    };
  }
  std::vector<uint8_t> codes;
  TernarySource source;
};

Quantized make_tokens(int64_t n_tokens, int64_t n_cols, Fill fill) {
  const CounterRng rng(7);
  Quantized x(n_tokens, n_cols);
  for (int64_t t = 0; t < n_tokens; ++t) {
    x.inv_scales[size_t(t)] = 0.0123f * float(t + 1);
    for (int64_t i = 0; i < n_cols; ++i) {
      const int random = int(rng.bits(uint64_t(t * n_cols + i)) % 256) - 128;
      const int q = fill == Fill::kRandom ? random : fill == Fill::kHighest ? 127 : fill == Fill::kLowest ? -128 : 0;
      x.codes[size_t(t * x.view.stride + i)] = int8_t(q);
      x.sums[size_t(t)] += q;
    }
  }
  return x;
}

std::vector<float> run_ternary(const Backend& backend, const TernarySource& source, const Quantized& x) {
  ThreadPool pool(2);
  const auto matrix = backend.prepare(source, pool);
  EXPECT_TRUE(matrix.has_value());
  Floats out(x.view.n_rows, source.n_rows, 99);  // whatever is not written shows
  const LinearCall call = {matrix->get(), out.view()};
  backend.linear(*make_stream(backend, 1, x.view.n_rows, x.view.n_cols), {&call, 1}, x.view);
  return out.values;
}

TEST_F(CudaOps, TernaryProductsOfEveryShape) {
  for (const int64_t n_cols : {1, 4, 15, 16, 100, 127, 128, 129, 300, 320, 704, 8640}) {
    for (const int64_t n_rows : {1, 15, 16, 33, 70}) {
      const Weights weights(n_rows, n_cols, Fill::kRandom, {.tensor = 0.37f});
      for (const int64_t n_tokens : {1, 2, 8, 13}) {
        const Quantized x = make_tokens(n_tokens, n_cols, Fill::kRandom);
        EXPECT_TRUE(same_bits(run_ternary(reference_, weights.source, x), run_ternary(gpu(), weights.source, x)))
            << n_rows << " x " << n_cols << ", " << n_tokens << " tokens";
      }
    }
  }
}

TEST_F(CudaOps, TernaryProductsOfEveryNumberOfTokensDoNotDependOnIt) {
  const Weights weights(96, 304, Fill::kRandom, {.tensor = 1.5f});
  const Quantized all = make_tokens(300, 304, Fill::kRandom);
  const std::vector<float> want = run_ternary(reference_, weights.source, all);
  for (int64_t n_tokens = 1; n_tokens <= 300; n_tokens += n_tokens < 70 ? 1 : 23) {
    const Quantized x = make_tokens(n_tokens, 304, Fill::kRandom);
    const std::vector<float> first(want.begin(), want.begin() + n_tokens * 96);
    EXPECT_TRUE(same_bits(first, run_ternary(gpu(), weights.source, x))) << n_tokens;
  }
}

TEST_F(CudaOps, TernaryProductsOfExtremes) {
  for (const Fill codes : {Fill::kHighest, Fill::kLowest, Fill::kZero}) {
    const Weights weights(33, 8640, codes);
    for (const Fill values : {Fill::kHighest, Fill::kLowest, Fill::kZero}) {
      const Quantized x = make_tokens(14, 8640, values);
      EXPECT_TRUE(same_bits(run_ternary(reference_, weights.source, x), run_ternary(gpu(), weights.source, x)));
    }
  }
}

TEST_F(CudaOps, GroupedScalesAndFloatActivations) {
  for (const int64_t group_cols : {0, 16, 64, 320}) {
    TernaryScales scales{.tensor = 0.7f};
    if (group_cols > 0) {
      scales.group_cols = group_cols;
      scales.groups = random_floats(37 * (320 / group_cols), 3);
    }
    const Weights weights(37, 320, Fill::kRandom, scales);
    for (const int64_t n_tokens : {1, 5}) {
      const Quantized x = make_tokens(n_tokens, 320, Fill::kRandom);
      EXPECT_TRUE(same_bits(run_ternary(reference_, weights.source, x), run_ternary(gpu(), weights.source, x)));
      Floats floats(n_tokens, 320, 9);
      std::vector<float> results[2];
      for (int i = 0; i < 2; ++i) {
        const Backend& backend = i == 0 ? static_cast<const Backend&>(reference_) : gpu();
        ThreadPool pool(1);
        const auto matrix = backend.prepare(weights.source, pool);
        ASSERT_TRUE(matrix.has_value());
        Floats out(n_tokens, 37);
        const LinearCall call = {matrix->get(), out.view()};
        backend.linear(*make_stream(backend, 1, n_tokens, 320), {&call, 1}, floats.view());
        results[i] = out.values;
      }
      EXPECT_TRUE(same_bits(results[0], results[1])) << group_cols;
    }
  }
}

TEST_F(CudaOps, FloatTablesOfEveryType) {
  for (const DType dtype :
       {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_0, DType::kQ6_K, DType::kQ4_K}) {
    for (const int64_t n_cols : {1, 15, 100, 256, 2560}) {
      if (n_cols % dtype_info(dtype).block_size != 0) continue;
      const auto bytes = make_weights(dtype, 37, n_cols);
      const FloatSource source = float_source(dtype, bytes, 37, n_cols);
      const std::vector<int32_t> ids = {36, 0, 3, 3};
      std::vector<float> products[2], rows[2];
      for (int i = 0; i < 2; ++i) {
        const Backend& backend = i == 0 ? static_cast<const Backend&>(reference_) : gpu();
        ThreadPool pool(1);
        const auto matrix = backend.prepare(source, pool);
        ASSERT_TRUE(matrix.has_value());
        Floats x(7, n_cols, 41), out(7, 37), best(7, 37), embedded(4, n_cols);
        const LinearCall call = {matrix->get(), out.view()};
        const auto stream = make_stream(backend, 1, 7, n_cols);
        backend.linear(*stream, {&call, 1}, x.view());
        EXPECT_TRUE(backend.best_logits(*stream, **matrix, x.view(), 37, best.view()));
        EXPECT_TRUE(same_bits(out.values, best.values));
        EXPECT_TRUE(backend.embed(*stream, **matrix, ids, embedded.view()));
        products[i] = out.values;
        rows[i] = embedded.values;
      }
      EXPECT_TRUE(same_bits(products[0], products[1])) << dtype_info(dtype).name << ", " << n_cols << " columns";
      EXPECT_TRUE(same_bits(rows[0], rows[1])) << dtype_info(dtype).name << ", " << n_cols << " columns";
    }
  }
}

TEST_F(CudaOps, OperationsOnTokens) {
  for (const int64_t n_cols : {1, 5, 15, 16, 17, 100, 704, 2560, 6912}) {
    const auto reference_stream = make_stream(reference_, 1, 7, n_cols), stream = make_stream(gpu(), 1, 7, n_cols);
    Floats x(7, n_cols, 3), want(7, n_cols), got(7, n_cols);
    const std::vector<float> weight = random_floats(n_cols, 4);
    reference_.rms_norm(*reference_stream, x.view(), weight, 1e-5f, want.view());
    gpu().rms_norm(*stream, x.view(), weight, 1e-5f, got.view());
    EXPECT_TRUE(same_bits(want.values, got.values)) << "norm, " << n_cols;
    gpu().rms_norm(*stream, x.view(), weight, 1e-5f, x.view());
    EXPECT_TRUE(same_bits(want.values, x.values)) << "norm in place, " << n_cols;

    Floats difficult = difficult_rows(n_cols);
    Quantized q_want(7, n_cols), q_got(7, n_cols);
    std::fill(q_got.codes.begin(), q_got.codes.end(), int8_t{99});
    reference_.quantize(*reference_stream, difficult.view(), q_want.view);
    gpu().quantize(*stream, difficult.view(), q_got.view);
    EXPECT_EQ(q_want.codes, q_got.codes) << n_cols;
    EXPECT_EQ(q_want.sums, q_got.sums) << n_cols;
    EXPECT_TRUE(same_bits(q_want.inv_scales, q_got.inv_scales)) << n_cols;
    const MatrixView finite{difficult.values.data(), 5, n_cols};
    Floats rounded_want(5, n_cols), rounded_got(5, n_cols);
    reference_.fake_quantize(*reference_stream, finite, rounded_want.view());
    gpu().fake_quantize(*stream, finite, rounded_got.view());
    EXPECT_TRUE(same_bits(rounded_want.values, rounded_got.values)) << "rounded, " << n_cols;

    Floats gate(7, n_cols, 9), up(7, n_cols, 10);
    for (float& g : gate.values) g *= 30.0f;
    for (const GateActivation activation : {GateActivation::kRelu2, GateActivation::kSilu}) {
      reference_.gate(*reference_stream, activation, gate.view(), up.view(), want.view());
      gpu().gate(*stream, activation, gate.view(), up.view(), got.view());
      EXPECT_TRUE(same_bits(want.values, got.values)) << "gate, " << n_cols;
    }
    reference_.add(*reference_stream, up.view(), want.view());
    gpu().add(*stream, up.view(), got.view());
    EXPECT_TRUE(same_bits(want.values, got.values)) << "add, " << n_cols;
  }
}

TEST_F(CudaOps, RopeWholeAndPartial) {
  struct Case {
    int64_t head_dim, n_pairs;
  };
  for (const Case c : {Case{128, 64}, Case{100, 50}, Case{64, 16}, Case{80, 20}, Case{2, 1}}) {
    const std::vector<float> cos = random_floats(20 * c.n_pairs, 6), sin = random_floats(20 * c.n_pairs, 7);
    const RopeTable table = {cos.data(), sin.data(), 20, c.n_pairs};
    Floats want(9, 3 * c.head_dim, 8), got(9, 3 * c.head_dim, 8);
    reference_.rope(*make_stream(reference_, 1, 9, 1), want.view(), c.head_dim, table, 3);
    gpu().rope(*make_stream(gpu(), 1, 9, 1), got.view(), c.head_dim, table, 3);
    EXPECT_TRUE(same_bits(want.values, got.values)) << c.head_dim << "/" << c.n_pairs;
  }
}

struct Heads {
  int64_t n_heads, n_kv_heads, head_dim;
};

std::vector<float> run_attention(const Backend& backend, const Heads& shape, DType dtype, int64_t chunk,
                                 int64_t n_ctx = 78) {
  constexpr int64_t kTokens = 75;
  const int64_t kv_cols = shape.n_kv_heads * shape.head_dim;
  std::vector<float> k_plane(size_t(n_ctx * kv_cols)), v_plane(k_plane.size());  // room for every type
  const KvLayer layer{k_plane.data(), v_plane.data(), dtype, shape.n_kv_heads, n_ctx, shape.head_dim};
  Floats q(kTokens, shape.n_heads * shape.head_dim, 1), k(kTokens, kv_cols, 2), v(kTokens, kv_cols, 3);
  Floats out(kTokens, shape.n_heads * shape.head_dim);
  const auto stream = make_stream(backend, 1, chunk, shape.n_heads * shape.head_dim, n_ctx);
  for (int64_t first = 0; first < kTokens; first += chunk) {
    const int64_t n = std::min(chunk, kTokens - first);
    const auto rows = [&](Floats& all) { return MatrixView{all.view().row(first), n, all.view().n_cols}; };
    backend.store_kv(*stream, rows(k), rows(v), layer, first);
    backend.attention(*stream, rows(q), layer, first, rows(out));
  }
  if (layer.tiled()) return out.values;                                 // what is stored lies otherwise
  out.values.insert(out.values.end(), k_plane.begin(), k_plane.end());  // what is stored, too
  out.values.insert(out.values.end(), v_plane.begin(), v_plane.end());
  return out.values;
}

TEST_F(CudaOps, AttentionForEveryCacheAndChunk) {
  for (const Heads& shape : {Heads{20, 4, 128}, Heads{6, 6, 96}, Heads{4, 4, 100}, Heads{5, 1, 64}, Heads{3, 3, 32},
                             Heads{2, 1, 256}, Heads{18, 2, 64}, Heads{3, 3, 8}, Heads{1, 1, 1}}) {
    for (const DType dtype : {DType::kF16, DType::kF32, DType::kQ8_0, DType::kI8}) {
      if (!gpu().check_kv(dtype, shape.head_dim)) continue;
      const auto want = run_attention(reference_, shape, dtype, 75);
      for (const int64_t chunk : {int64_t{1}, int64_t{32}, int64_t{75}}) {
        EXPECT_TRUE(same_bits(want, run_attention(gpu(), shape, dtype, chunk)))
            << dtype_info(dtype).name << ", " << shape.n_heads << "/" << shape.n_kv_heads << " heads of "
            << shape.head_dim << ", chunk " << chunk;
      }
    }
  }
}

// What a stream writes into memory that was taken a moment ago stays there: clearing it is over.
TEST_F(CudaOps, MemoryIsClearedBeforeAnyoneHasIt) {
  const Backend& device = staged_gpu()->inner();
  constexpr size_t kSize_bytes = size_t{2} << 30;
  const auto stream = make_stream(device, 1, 1, 1);
  const std::vector<float> ones(4, 1.0f);
  const Buffer x = *device.allocate(sizeof(float) * ones.size());
  ASSERT_TRUE(device.upload(std::as_bytes(std::span(ones)), x.data()));
  for (int i = 0; i < 5; ++i) {
    const Buffer memory = *device.allocate(kSize_bytes);
    float* const last = memory.as<float>() + kSize_bytes / sizeof(float) - ones.size();
    device.add(*stream, {x.as<float>(), 1, 4}, {last, 1, 4});
    ASSERT_TRUE(device.wait(*stream));
    ASSERT_TRUE(device.upload(std::as_bytes(std::span(ones)), x.data()));  // waits for all that clears
    std::vector<float> found(ones.size());
    ASSERT_TRUE(device.fetch(*stream, last, std::as_writable_bytes(std::span(found))));
    EXPECT_EQ(found, ones);
  }
}

// More positions than shared memory has room for.
TEST_F(CudaOps, AttentionOfALongInt8Cache) {
  const Heads shape{4, 2, 32};
  const auto want = run_attention(reference_, shape, DType::kI8, 75);
  for (const int64_t chunk : {1, 75}) {
    EXPECT_TRUE(same_bits(want, run_attention(gpu(), shape, DType::kI8, chunk, 16384))) << "chunk " << chunk;
  }
}

}  // namespace
}  // namespace bitnet
