#include "model/model.h"
#include "runtime/test_models.h"

#include <gtest/gtest.h>

// Leaving out rows of up and columns of down changes no logit.
namespace bitnet {
namespace {

Model load_ffn(const std::string& name, bool sparse, double gate_density = 0, double down_density = 0) {
  LoadOptions options;
  options.sparse_ffn = sparse;
  Result<Model> model = load_model(tiny_path(name), options, {nullptr, gate_density, down_density});
  EXPECT_TRUE(model.has_value());
  return *std::move(model);
}

std::vector<float> all_logits(const Model& model, int64_t chunk, int n_threads, uint64_t* n_bytes = nullptr) {
  Session session = new_session(model, chunk, n_threads);
  std::vector<float> all;
  const Status status =
      session.append(random_ids(23, model.info().vocab_size), [&](int64_t, std::span<const float> logits) {
        all.insert(all.end(), logits.begin(), logits.end());
        return true;
      });
  EXPECT_TRUE(status.has_value());
  if (n_bytes != nullptr) *n_bytes = session.weight_bytes_read();
  return all;
}

class SparseFfn : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Tiny, SparseFfn,
                         testing::Values("bitnet-packed", "bitnet-bf16-master", "bitnet-odd-shapes", "llama-divide"),
                         [](const auto& instance) {
                           std::string name = instance.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST_P(SparseFfn, GivesTheSameLogits) {
  const std::vector<float> expected = all_logits(load_ffn(GetParam(), false), 23, 1);
  const Model sparse = load_ffn(GetParam(), true);
  for (const int64_t chunk : {1, 3, 8, 9, 23}) {
    for (const int n_threads : {1, 3}) {
      EXPECT_EQ(all_logits(sparse, chunk, n_threads), expected)
          << chunk << " tokens at once, " << n_threads << " threads";
    }
  }
}

TEST_P(SparseFfn, GivesTheSameLogitsWithImposedDensities) {
  const std::vector<float> expected = all_logits(load_ffn(GetParam(), false, 0.34, 0.19), 1, 1);
  EXPECT_NE(expected, all_logits(load_ffn(GetParam(), false), 1, 1));
  EXPECT_EQ(expected, all_logits(load_ffn(GetParam(), true, 0.34, 0.19), 1, 2));
  EXPECT_EQ(expected, all_logits(load_ffn(GetParam(), true, 0.34, 0.19), 5, 2));
}

TEST(SparseFfnBytes, FollowTheDensities) {
  uint64_t dense = 0, half = 0, tenth = 0;
  all_logits(load_ffn("bitnet-packed", false, 0.5, 0.5), 1, 1, &dense);
  all_logits(load_ffn("bitnet-packed", true, 0.5, 0.5), 1, 1, &half);
  all_logits(load_ffn("bitnet-packed", true, 0.1, 0.1), 1, 1, &tenth);
  EXPECT_LT(half, dense);
  EXPECT_LT(tenth, half);
}

}  // namespace
}  // namespace bitnet
