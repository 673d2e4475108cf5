#include "runtime/kv_cache.h"

#include "kernels/reference/reference_backend.h"
#include "runtime/test_models.h"

namespace bitnet {
namespace {

// Sessions with a cache of 8 or 4 bits.
using Case = std::tuple<KvType, const char*>;
class KvTypes : public testing::TestWithParam<Case> {
 protected:
  const KvType type_ = std::get<0>(GetParam());
  const Model model_ = load_tiny(std::get<1>(GetParam()));

  Session session(int64_t chunk, int n_threads) const { return new_session(model_, chunk, n_threads, type_); }
};
constexpr const char* kNames[] = {"f16", "f32", "q8_0", "int8", "int4"};
INSTANTIATE_TEST_SUITE_P(Fixtures, KvTypes,
                         testing::Combine(testing::Values(KvType::kQ8_0, KvType::kInt8, KvType::kInt4),
                                          testing::Values("bitnet-packed", "bitnet-odd-shapes", "llama-wide-heads")),
                         [](const auto& test) {
                           std::string name =
                               kNames[size_t(std::get<0>(test.param))] + std::string("_") + std::get<1>(test.param);
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST_P(KvTypes, HowTokensWereFedChangesNoBit) {
  const std::vector<int32_t> ids = random_ids(120, model_.info().vocab_size);
  Session whole = session(512, 1);
  ASSERT_TRUE(whole.append(ids));
  for (const int64_t chunk : {1, 7, 50}) {
    for (const int n_threads : {1, 2, 5}) {
      Session fed = session(chunk, n_threads);
      ASSERT_TRUE(fed.append(ids));
      EXPECT_TRUE(copy(fed.logits()) == copy(whole.logits())) << chunk << ", " << n_threads << " threads";
    }
  }
  Session single = session(64, 2);
  for (const int32_t id : ids) ASSERT_TRUE(single.append({&id, 1}));
  EXPECT_EQ(copy(single.logits()), copy(whole.logits()));
}

TEST_P(KvTypes, TruncatingAndFeedingAgainEqualsAFreshStart) {
  const std::vector<int32_t> ids = random_ids(60, model_.info().vocab_size, 3);
  const std::vector<int32_t> other = random_ids(30, model_.info().vocab_size, 4);
  Session fed = session(8, 2);
  ASSERT_TRUE(fed.append(ids));
  ASSERT_TRUE(fed.truncate(21));
  ASSERT_TRUE(fed.append(other));
  Session fresh = session(64, 1);
  ASSERT_TRUE(fresh.append(std::span(ids).first(21)));
  ASSERT_TRUE(fresh.append(other));
  EXPECT_EQ(copy(fed.logits()), copy(fresh.logits()));
}

TEST_P(KvTypes, TakesItsBytes) {
  const ModelInfo& info = model_.info();
  const Session f16 = new_session(model_), other = session(256, 1);
  const uint64_t n_rows = 2 * uint64_t(info.n_layers * info.n_kv_heads) * uint64_t(f16.n_ctx());
  const uint64_t d = uint64_t(info.head_dim);
  const uint64_t row_bytes = type_ == KvType::kQ8_0 ? d / 32 * 34 : type_ == KvType::kInt8 ? d + 4 : d / 2 + 4;
  EXPECT_EQ(f16.n_ctx() % kTilePositions, 0);
  EXPECT_EQ(f16.memory_bytes() - other.memory_bytes(), n_rows * (2 * d - row_bytes));
}

// The weights of a tiny model read as four times as many heads of a quarter of the size.
TEST(KvCache, RefusesBlocksThatHeadsDoNotFill) {
  namespace fs = std::filesystem;
  const fs::path folder = testing::TempDir() + "bitnet_small_heads_" + std::to_string(::getpid());
  fs::copy(tiny_path("bitnet-packed"), folder, fs::copy_options::overwrite_existing | fs::copy_options::recursive);
  auto config = nlohmann::json::parse(*read_file((folder / "config.json").string()));
  config["head_dim"] = 16;
  for (const char* const key : {"num_attention_heads", "num_key_value_heads"}) config[key] = int(config[key]) * 4;
  ASSERT_TRUE(write_file_atomically((folder / "config.json").string(), config.dump()));
  const Result<Model> model = Model::load(folder.string());
  fs::remove_all(folder);
  ASSERT_TRUE(model) << model.error().message;
  SessionOptions options;
  options.kv_type = KvType::kQ8_0;
  const Result<Session> session = model->new_session(options);
  ASSERT_FALSE(session);
  EXPECT_EQ(session.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(session.error().message,
            "a Q8_0 key/value cache wants heads of a multiple of 32 dimensions, this model's have 16; use f16 instead");
  options.kv_type = KvType::kF16;
  EXPECT_TRUE(model->new_session(options));
}

TEST(KvCache, RefusesASizeThatWraps) {
  ModelConfig config;
  config.n_layers = 1 << 20;
  config.n_kv_heads = 1 << 20;
  config.head_dim = 1 << 20;
  const Result<KvCache> cache = KvCache::create(ReferenceBackend(), config, DType::kQ8_0, int64_t{1} << 30);
  ASSERT_FALSE(cache);
  EXPECT_EQ(cache.error().code, ErrorCode::kResource);
}

}  // namespace
}  // namespace bitnet
