#include "kernels/cuda/prompt_ops.h"

#include "kernels/cuda/staged_backend.h"
#include "kernels/float_spec.h"
#include "kernels/test_support.h"
#include "quant/activations.h"

#include <cmath>
#include <cstring>

// Kernels of prompts and of few tokens for Hopper against those for every device, with shapes that sessions of small
// models do not have: whole tiles and parts of them, tiles shared by clusters, several rounds of a block, long caches.
namespace bitnet::cuda {
namespace {

template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(std::span<const T> values) : n_(values.size()) {
    EXPECT_EQ(cudaMalloc(&data_, n_ * sizeof(T)), cudaSuccess);
    EXPECT_EQ(cudaMemcpy(data_, values.data(), n_ * sizeof(T), cudaMemcpyHostToDevice), cudaSuccess);
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(std::span<const T>(values)) {}
  ~DeviceArray() { (void)cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  T* data() const { return data_; }
  std::vector<T> fetch() const {
    std::vector<T> values(n_);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    EXPECT_EQ(cudaMemcpy(values.data(), data_, n_ * sizeof(T), cudaMemcpyDeviceToHost), cudaSuccess);
    return values;
  }

 private:
  T* data_ = nullptr;
  size_t n_;
};

class PromptOps : public testing::Test {
 protected:
  void SetUp() override {
    if (staged_gpu() == nullptr) GTEST_SKIP() << make_backend("cuda").error().message;
    if (!hopper_code()) GTEST_SKIP() << "no code for compute capability 9.0 on this device";
    int n_multiprocessors = 0;
    ASSERT_EQ(cudaDeviceGetAttribute(&n_multiprocessors, cudaDevAttrMultiProcessorCount, 0), cudaSuccess);
    hopper_ = {nullptr, true, n_multiprocessors};
    any_ = {nullptr, false, n_multiprocessors};
  }
  Launcher hopper_, any_;
};

struct ProductShape {
  std::vector<int> n_rows;
  int n_cols;
  Epilogue epilogue;
};

// Where a token's code of a column lies.
int code_at(int token, int col, int n_col_tiles, bool fragments) {
  const int word = col % kTileCols / 4, piece = word / 4 ^ (token & 7);
  const int block = (token / kTokenBlock * n_col_tiles + col / kTileCols) * kTokenBlock + token % kTokenBlock;
  const int at = fragments ? (token * n_col_tiles + col / kTileCols) * kTileCols + fragment_word(word) * 4
                           : block * kTileCols + piece * 16 + word % 4 * 4;
  return at + col % 4;
}

enum class Product { kMma, kWgmma, kBatch, kBatchWgmma };

std::vector<float> run_product(const Launcher& launcher, const ProductShape& shape, int n_tokens, Product product) {
  const CounterRng rng(uint64_t(shape.n_cols + n_tokens));
  const int n_col_tiles = int(n_tiles(shape.n_cols, kTileCols));
  const size_t n_codes = size_t(n_tiles(n_tokens, kTokenBlock)) * kTokenBlock * size_t(n_col_tiles) * kTileCols;
  std::vector<int8_t> codes(n_codes);
  const bool fragments = product == Product::kBatch;
  for (int token = 0; token < n_tokens; ++token) {
    for (int col = 0; col < n_col_tiles * kTileCols; ++col) {
      codes[size_t(code_at(token, col, n_col_tiles, fragments))] =
          int8_t(int(rng.bits(uint64_t(token * 20011 + col)) % 256) - 128);
    }
  }
  std::vector<int32_t> sums(static_cast<size_t>(n_tokens));
  std::vector<float> inv_scales(sums.size());
  for (size_t i = 0; i < sums.size(); ++i) {
    sums[i] = int32_t(rng.bits(i) % 100000) - 50000;
    inv_scales[i] = 0.01f + 0.001f * float(i % 37);
  }
  const DeviceArray<int8_t> device_codes(codes);
  const DeviceArray<int32_t> device_sums(sums);
  const DeviceArray<float> device_scales(inv_scales);
  PromptProduct call;
  call.x = {device_codes.data(), device_scales.data(), device_sums.data(), n_tokens,
            shape.n_cols,        n_col_tiles,          fragments};
  call.epilogue = shape.epilogue;
  std::vector<std::unique_ptr<DeviceArray<uint32_t>>> words;
  std::vector<std::unique_ptr<DeviceArray<float>>> outs;
  for (const int n_rows : shape.n_rows) {
    const int n_row_tiles = int(n_tiles(n_rows, kTileRows));
    std::vector<uint32_t> packed(size_t(n_row_tiles) * size_t(n_col_tiles) * kTileWords);
    for (size_t i = 0; i < packed.size(); ++i) {
      const uint64_t bits = rng.bits(i + 77);
      for (int j = 0; j < 16; ++j) packed[i] |= uint32_t((bits >> (4 * j) & 15) % 3) << (2 * j);
    }
    words.push_back(std::make_unique<DeviceArray<uint32_t>>(packed));
    outs.push_back(std::make_unique<DeviceArray<float>>(random_floats(int64_t{n_tokens} * n_rows, 5)));
    call.segments[call.n_segments++] = {reinterpret_cast<const uint4*>(words.back()->data()),
                                        0.37f * float(call.n_segments + 1), outs.back()->data(), n_rows, n_row_tiles};
  }
  EXPECT_TRUE(product != Product::kBatchWgmma || batch_wgmma_takes(launcher, call));
  EXPECT_EQ(product == Product::kMma          ? prompt_mma(launcher, call)
            : product == Product::kWgmma      ? prompt_wgmma(launcher, call)
            : product == Product::kBatchWgmma ? batch_wgmma(launcher, call)
                                              : batch_product(launcher, call),
            cudaSuccess);
  std::vector<float> all;
  for (const auto& out : outs) {
    const std::vector<float> values = out->fetch();
    all.insert(all.end(), values.begin(), values.end());
  }
  return all;
}

TEST_F(PromptOps, ProductsByWgmma) {
  const ProductShape shapes[] = {{{2560, 640, 640}, 2560, Epilogue::kStore}, {{2560}, 2560, Epilogue::kAdd},
                                 {{1000, 70, 33}, 300, Epilogue::kAdd},      {{70, 33}, 100, Epilogue::kStore},
                                 {{520, 520}, 704, Epilogue::kGateRelu2},    {{6912, 6912}, 256, Epilogue::kGateRelu2},
                                 {{97, 97}, 1040, Epilogue::kGateSilu}};
  for (const ProductShape& shape : shapes) {
    for (const int n_tokens : {1, 33, 128, 300, 512}) {
      EXPECT_TRUE(same_bits(run_product(any_, shape, n_tokens, Product::kMma),
                            run_product(hopper_, shape, n_tokens, Product::kWgmma)))
          << shape.n_rows[0] << " x " << shape.n_cols << ", " << n_tokens << " tokens";
    }
  }
}

TEST_F(PromptOps, ProductsOfFewTokens) {
  const ProductShape shapes[] = {{{2560, 640, 640}, 2560, Epilogue::kStore}, {{2560}, 6912, Epilogue::kAdd},
                                 {{1000, 70, 33}, 300, Epilogue::kAdd},      {{520, 520}, 704, Epilogue::kGateRelu2},
                                 {{6912, 6912}, 256, Epilogue::kGateRelu2},  {{4500, 4500}, 2960, Epilogue::kGateSilu},
                                 {{4500, 4500}, 3088, Epilogue::kGateRelu2}};
  for (const ProductShape& shape : shapes) {
    for (const int n_tokens : {1, 2, 8, 9, 17, 32, 33, 50, 64}) {
      EXPECT_TRUE(same_bits(run_product(any_, shape, n_tokens, Product::kMma),
                            run_product(hopper_, shape, n_tokens, Product::kBatch)))
          << shape.n_rows[0] << " x " << shape.n_cols << ", " << n_tokens << " tokens";
    }
  }
}

TEST_F(PromptOps, ProductsOfFewTokensByWgmma) {
  const ProductShape shapes[] = {{{6912, 6912}, 2560, Epilogue::kGateRelu2},
                                 {{6901, 6901}, 300, Epilogue::kGateSilu},
                                 {{12800, 70, 33}, 300, Epilogue::kAdd},
                                 {{13001}, 2560, Epilogue::kStore}};
  for (const ProductShape& shape : shapes) {
    for (const int n_tokens : {1, 9, 31, 32, 33, 50, 64}) {
      EXPECT_TRUE(same_bits(run_product(any_, shape, n_tokens, Product::kMma),
                            run_product(hopper_, shape, n_tokens, Product::kBatchWgmma)))
          << shape.n_rows[0] << " x " << shape.n_cols << ", " << n_tokens << " tokens";
    }
  }
}

// By the scalar rules 2 and 5 of numerics.md.
void norm_and_quantize(const float* x, const float* norm, int n_cols, int8_t* codes, int32_t* sum, float* inv_scale) {
  std::vector<float> y(x, x + n_cols);
  if (norm != nullptr) {
    const float mean = spec::pair_sum(n_cols, [&](int64_t i) { return x[i] * x[i]; }) / float(n_cols);
    const float r = 1.0f / std::sqrt(mean + 1e-5f);
    for (int i = 0; i < n_cols; ++i) y[size_t(i)] = (x[i] * r) * norm[i];
  }
  const QuantizedRowInfo info = quantize_row_absmax(y.data(), n_cols, codes);
  *sum = info.sum;
  *inv_scale = info.inv_scale;
}

TEST_F(PromptOps, NormsAndCodes) {
  for (const int n_cols : {16, 256, 2560, 2576, 6912, 7168, 8208, 18432}) {
    for (const int n_tokens : {1, 130, 513}) {
      const std::vector<float> x = random_floats(int64_t{n_tokens} * n_cols, 3), norm = random_floats(n_cols, 4);
      const DeviceArray<float> device_x(x), device_norm(norm);
      const int n_col_tiles = int(n_tiles(n_cols, kTileCols)), n_padded = n_col_tiles * kTileCols;
      for (const bool normed : {false, true}) {
        std::vector<int8_t> rows(size_t(n_tokens) * size_t(n_padded));
        std::vector<int32_t> sums(static_cast<size_t>(n_tokens));
        std::vector<float> scales(sums.size());
        for (size_t token = 0; token < sums.size(); ++token) {
          norm_and_quantize(x.data() + token * size_t(n_cols), normed ? norm.data() : nullptr, n_cols,
                            rows.data() + token * size_t(n_padded), &sums[token], &scales[token]);
        }
        for (const bool fragments : {false, true}) {
          const size_t n_codes = size_t(n_tiles(n_tokens, kTokenBlock)) * kTokenBlock * size_t(n_padded);
          std::vector<int8_t> codes(n_codes, 7);
          for (int token = 0; token < n_tokens; ++token) {
            for (int col = 0; col < n_padded; ++col) {
              codes[size_t(code_at(token, col, n_col_tiles, fragments))] = rows[size_t(token * n_padded + col)];
            }
          }
          const DeviceArray<int8_t> device_codes(std::vector<int8_t>(n_codes, 7));
          const DeviceArray<int32_t> device_sums(std::vector<int32_t>(sums.size(), 7));
          const DeviceArray<float> device_scales(std::vector<float>(sums.size(), 7));
          const TiledCodes out{
              device_codes.data(), device_scales.data(), device_sums.data(), n_tokens, n_cols, n_col_tiles, fragments};
          EXPECT_EQ(normed_codes(hopper_, device_x.data(), normed ? device_norm.data() : nullptr, 1e-5f, out),
                    cudaSuccess);
          EXPECT_EQ(device_codes.fetch(), codes) << n_tokens << " x " << n_cols;
          EXPECT_EQ(device_sums.fetch(), sums) << n_tokens << " x " << n_cols;
          EXPECT_TRUE(same_bits(device_scales.fetch(), scales)) << n_tokens << " x " << n_cols;
        }
      }
    }
  }
}

TEST_F(PromptOps, AttentionByWgmma) {
  struct Case {
    int n_tokens, n_heads, n_kv_heads, head_dim, first;
    bool paged;
  };
  for (const Case c :
       {Case{300, 20, 5, 128, 0, false}, Case{77, 20, 5, 128, 33, true}, Case{130, 12, 4, 128, 200, true},
        Case{260, 8, 2, 64, 100, true}, Case{200, 6, 2, 64, 0, false}, Case{2, 6, 6, 64, 63, false}}) {
    constexpr int kPageCount = 8, kPositions = kPageCount * kPagePositions;
    const int64_t q_cols = c.n_heads * c.head_dim, kv_cols = c.n_kv_heads * c.head_dim, n_pairs = c.head_dim / 2;
    const DeviceArray<float> q(random_floats(c.n_tokens * q_cols, 1)), k(random_floats(kPositions * kv_cols, 2)),
        v(random_floats(kPositions * kv_cols, 3)), cos(random_floats(kPositions * n_pairs, 4)),
        sin(random_floats(kPositions * n_pairs, 5)), all_q(random_floats(kPositions * q_cols, 6));
    const DeviceArray<uint16_t> keys(std::vector<uint16_t>(size_t(kPositions * kv_cols))),
        values(std::vector<uint16_t>(size_t(kPositions * kv_cols))),
        halves(std::vector<uint16_t>(kPositions * size_t(q_cols)));
    const DeviceArray<int32_t> pages(std::vector<int32_t>{7, 6, 5, 4, 3, 2, 1, 0});
    Cache cache;
    cache.k = reinterpret_cast<uint8_t*>(keys.data());
    cache.v = reinterpret_cast<uint8_t*>(values.data());
    cache.n_kv_heads = c.n_kv_heads;
    cache.head_dim = c.head_dim;
    cache.row_bytes = c.head_dim * 2;
    cache.n_positions = kPositions;
    cache.page_rows = c.n_kv_heads * kPagePositions;
    cache.head_rows = kPagePositions;
    cache.pages = c.paged ? pages.data() : nullptr;
    const Rope rope{cos.data(), sin.data(), n_pairs};
    __half* const q_out = reinterpret_cast<__half*>(halves.data());
    if (c.first > 0) {
      EXPECT_EQ(prompt_rope(hopper_, {all_q.data(), k.data(), v.data(), q_out, cache, rope, c.first, c.n_heads, 0}),
                cudaSuccess);
    }
    EXPECT_EQ(prompt_rope(hopper_, {q.data(), k.data(), v.data(), q_out, cache, rope, c.n_tokens, c.n_heads, c.first}),
              cudaSuccess);
    std::vector<float> out[2];
    for (int i = 0; i < 2; ++i) {
      const DeviceArray<float> device_out(std::vector<float>(size_t(c.n_tokens * q_cols), NAN));
      const PromptAttention call{q_out, cache, c.n_tokens, c.n_heads, c.first, device_out.data()};
      EXPECT_EQ(i == 0 ? prompt_attention(hopper_, call) : prompt_attention_wgmma(hopper_, call), cudaSuccess);
      out[i] = device_out.fetch();
    }
    double difference = 0, length = 0;
    for (size_t i = 0; i < out[0].size(); ++i) {
      difference += std::pow(double(out[1][i]) - double(out[0][i]), 2);
      length += std::pow(double(out[0][i]), 2);
    }
    // Weights are rounded to f16 against another running maximum; found: 3e-5.
    EXPECT_LT(std::sqrt(difference / length), 1e-4) << c.n_tokens << " tokens from " << c.first;
  }
}

// Tokens one by one: how many positions a cache has room for changes no bit, whether a block's scores lie in shared
// memory or not.
TEST_F(PromptOps, TokensOfALongInt8Cache) {
  constexpr int kHeads = 10, kKvHeads = 2, kDim = 64, kTokens = 140;
  const DeviceArray<float> q(random_floats(kTokens * kHeads * kDim, 1)), k(random_floats(kTokens * kKvHeads * kDim, 2)),
      v(random_floats(kTokens * kKvHeads * kDim, 3)), cos(random_floats(kTokens * kDim / 2, 4)),
      sin(random_floats(kTokens * kDim / 2, 5));
  std::vector<float> out[2];
  for (int i = 0; i < 2; ++i) {
    const int64_t n_positions = i == 0 ? 192 : 32768;
    const std::vector<uint8_t> empty(size_t(kKvHeads * n_positions * (kDim + 4)));
    const DeviceArray<uint8_t> keys(empty), values(empty);
    const DeviceArray<float> device_out(std::vector<float>(size_t(kTokens * kHeads * kDim), NAN)),
        scratch(std::vector<float>(size_t(kAttentionBlocks * n_positions)));
    TokenAttention call;
    call.cache.k = keys.data();
    call.cache.v = values.data();
    call.cache.type = TableType::kI8;
    call.cache.n_kv_heads = kKvHeads;
    call.cache.head_dim = kDim;
    call.cache.row_bytes = kDim + 4;
    call.cache.n_positions = call.cache.head_rows = n_positions;
    call.cache.page_rows = kPagePositions;
    call.rope = {cos.data(), sin.data(), kDim / 2};
    call.n_heads = kHeads;
    call.scratch = scratch.data();
    for (int32_t token = 0; token < kTokens; ++token) {
      const DeviceArray<int32_t> position(std::vector<int32_t>{token});
      call.q = q.data() + token * kHeads * kDim;
      call.k = k.data() + token * kKvHeads * kDim;
      call.v = v.data() + token * kKvHeads * kDim;
      call.positions = position.data();
      call.out = device_out.data() + token * kHeads * kDim;
      EXPECT_EQ(tiled_attention(hopper_, call), cudaSuccess);
      EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    }
    out[i] = device_out.fetch();
  }
  EXPECT_TRUE(same_bits(out[0], out[1]));
}

}  // namespace
}  // namespace bitnet::cuda
