#include "runtime/kv_cache.h"

#include "kernels/reference/reference_backend.h"
#include "runtime/test_models.h"

namespace bitnet {
namespace {

// Sessions with an 8-bit cache.
class KvQ8_0 : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Fixtures, KvQ8_0, testing::Values("bitnet-packed", "bitnet-odd-shapes", "llama-wide-heads"),
                         [](const auto& test) {
                           std::string name = test.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

Session q8_0_session(const Model& model, int64_t chunk, int n_threads) {
  return new_session(model, chunk, n_threads, KvType::kQ8_0);
}

TEST_P(KvQ8_0, HowTokensWereFedChangesNoBit) {
  const Model model = load_tiny(GetParam());
  const std::vector<int32_t> ids = random_ids(120, model.info().vocab_size);
  Session whole = q8_0_session(model, 512, 1);
  ASSERT_TRUE(whole.append(ids));
  for (const int64_t chunk : {1, 7, 50}) {
    for (const int n_threads : {1, 2, 5}) {
      Session session = q8_0_session(model, chunk, n_threads);
      ASSERT_TRUE(session.append(ids));
      EXPECT_TRUE(copy(session.logits()) == copy(whole.logits())) << chunk << ", " << n_threads << " threads";
    }
  }
  Session single = q8_0_session(model, 64, 2);
  for (const int32_t id : ids) ASSERT_TRUE(single.append({&id, 1}));
  EXPECT_EQ(copy(single.logits()), copy(whole.logits()));
}

TEST_P(KvQ8_0, TruncatingAndFeedingAgainEqualsAFreshStart) {
  const Model model = load_tiny(GetParam());
  const std::vector<int32_t> ids = random_ids(60, model.info().vocab_size, 3);
  const std::vector<int32_t> other = random_ids(30, model.info().vocab_size, 4);
  Session session = q8_0_session(model, 8, 2);
  ASSERT_TRUE(session.append(ids));
  ASSERT_TRUE(session.truncate(21));
  ASSERT_TRUE(session.append(other));
  Session fresh = q8_0_session(model, 64, 1);
  ASSERT_TRUE(fresh.append(std::span(ids).first(21)));
  ASSERT_TRUE(fresh.append(other));
  EXPECT_EQ(copy(session.logits()), copy(fresh.logits()));
}

TEST_P(KvQ8_0, Takes34BytesFor32Values) {
  const Model model = load_tiny(GetParam());
  const ModelInfo& info = model.info();
  const Session f16 = new_session(model), q8_0 = q8_0_session(model, 256, 1);
  const uint64_t n_values = 2 * uint64_t(info.n_layers * info.n_kv_heads * info.head_dim * f16.n_ctx());
  EXPECT_EQ(f16.memory_bytes() - q8_0.memory_bytes(), n_values * 2 - n_values / 32 * 34);
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
            "a Q8_0 key/value cache has blocks of 32 values, which this model's heads of 16 do not fill; use f16 "
            "instead");
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
