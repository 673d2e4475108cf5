#include "format/safetensors.h"
#include "model/run_model_test.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <filesystem>

// The golden models on the GPU: logits equal the CPU's, which golden_test.cc compares with Hugging Face transformers.
namespace bitnet {
namespace {

std::vector<int32_t> golden_ids(const std::string& folder) {
  auto file = SafetensorsFile::open(folder + "/golden.safetensors");
  EXPECT_TRUE(file) << file.error().message;
  const auto bytes = *file->read(*file->find("ids"));
  std::vector<int32_t> ids(bytes.size() / 4);
  std::memcpy(ids.data(), bytes.data(), bytes.size());
  return ids;
}

class CudaGolden : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (const auto backend = make_backend("cuda"); !backend) GTEST_SKIP() << backend.error().message;
  }
  std::string path() const { return kData + GetParam(); }
  std::vector<int32_t> ids() const { return golden_ids(golden_folder(GetParam())); }
};

TEST_P(CudaGolden, LogitsHaveTheBitsOfTheCpu) {
  const auto cpu = load_model(path(), "cpu"), gpu = load_model(path(), "cuda");
  ASSERT_TRUE(cpu && gpu);
  const auto expected = all_logits(*cpu, ids());
  for (const int64_t chunk : {1, 7, 32}) {
    const auto found = all_logits(*gpu, ids(), chunk);
    EXPECT_EQ(found, expected) << "chunk " << chunk << ", relative RMS " << relative_rms(found, expected);
  }
}

TEST_P(CudaGolden, TokensOneByOneHaveTheBitsOfTheCpuWithAHalfFloatCacheToo) {
  const auto cpu = load_model(path(), "cpu"), gpu = load_model(path(), "cuda");
  ASSERT_TRUE(cpu && gpu);
  const int64_t n = int64_t(ids().size());
  EXPECT_EQ(TestRun(*gpu, n, 1, KvType::kF16).append(ids(), 1), TestRun(*cpu, n, 1, KvType::kF16).append(ids(), 32));
}

TEST_P(CudaGolden, UnquantizedActivationsHaveTheBitsOfTheCpu) {
  const auto cpu = load_model(path(), "cpu", false), gpu = load_model(path(), "cuda", false);
  ASSERT_TRUE(cpu && gpu);
  EXPECT_EQ(all_logits(*gpu, ids(), 7), all_logits(*cpu, ids()));
}

INSTANTIATE_TEST_SUITE_P(Models, CudaGolden, testing::ValuesIn(golden_models()), golden_model_name);

}  // namespace
}  // namespace bitnet
