#include "format/safetensors.h"
#include "model/run_model_test.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>

// Logits against those of Hugging Face transformers in float32: for every folder under tests/data/hf, and for the files
// under tests/data/gguf (FOLDER.TYPE.gguf), which llama.cpp's quantiser made of such a folder's model; and for those
// under tests/data/microsoft, whose logits PyTorch made of the same tensors (tests/golden/make_microsoft_golden.py).
namespace bitnet {
namespace {

// Two correct implementations agree to 1e-5 unless an activation lies so close to a rounding boundary that it lands on
// the next int8 level; then the rest of the sequence moves by up to a few percent.
constexpr double kUsualRms = 1e-5, kMaxRms = 3e-2, kMaxKl = 1e-4, kClearMargin = 0.1;

struct Golden {
  std::vector<int32_t> ids;
  std::vector<float> logits;  // [n_ids, vocab_size]
};

Golden read_golden(const std::string& folder) {
  Golden golden;
  auto file = SafetensorsFile::open(folder + "/golden.safetensors");
  EXPECT_TRUE(file) << file.error().message;
  const auto ids = *file->read(*file->find("ids")), logits = *file->read(*file->find("logits"));
  golden.ids.resize(ids.size() / 4);
  golden.logits.resize(logits.size() / 4);
  std::memcpy(golden.ids.data(), ids.data(), ids.size());
  std::memcpy(golden.logits.data(), logits.data(), logits.size());
  return golden;
}

std::vector<double> softmax(std::span<const float> logits) {
  const double max = *std::max_element(logits.begin(), logits.end());
  std::vector<double> p;
  double sum = 0;
  for (const float x : logits) sum += p.emplace_back(std::exp(double(x) - max));
  for (double& x : p) x /= sum;
  return p;
}

struct Difference {
  double rms = 0, mean_kl = 0;
  int clear_argmax_changes = 0;  // where the reference's best logit leads by more than kClearMargin
};

Difference compare(const std::vector<float>& found, const Golden& golden) {
  Difference difference;
  difference.rms = relative_rms(found, golden.logits);
  const size_t n = golden.ids.size(), vocab_size = golden.logits.size() / n;
  for (size_t row = 0; row < n; ++row) {
    const std::span expected(golden.logits.data() + row * vocab_size, vocab_size);
    const std::span actual(found.data() + row * vocab_size, vocab_size);
    const auto p = softmax(expected), q = softmax(actual);
    for (size_t i = 0; i < vocab_size; ++i) difference.mean_kl += p[i] * std::log(p[i] / q[i]) / double(n);
    const auto best = std::max_element(expected.begin(), expected.end()) - expected.begin();
    float second = -INFINITY;
    for (size_t i = 0; i < vocab_size; ++i) {
      if (ptrdiff_t(i) != best) second = std::max(second, expected[i]);
    }
    const bool changed = std::max_element(actual.begin(), actual.end()) - actual.begin() != best;
    if (changed && expected[size_t(best)] - second > kClearMargin) ++difference.clear_argmax_changes;
  }
  return difference;
}

class GoldenLogits : public testing::TestWithParam<std::string> {
 protected:
  std::string path() const { return kData + GetParam(); }
  Golden golden() const { return read_golden(golden_folder(GetParam())); }
};

TEST_P(GoldenLogits, MatchTransformers) {
  const Golden golden = this->golden();
  const auto reference = load_model(path(), "reference");
  ASSERT_TRUE(reference);
  const auto expected = all_logits(*reference, golden.ids);
  const Difference difference = compare(expected, golden);
  std::printf("%-30s relative RMS %.3g, mean KL %.3g, clear argmax changes %d\n", GetParam().c_str(), difference.rms,
              difference.mean_kl, difference.clear_argmax_changes);
  RecordProperty("relative_rms", fmt::format("{:.3g}", difference.rms));
  EXPECT_LE(difference.rms, kMaxRms);
  EXPECT_EQ(difference.clear_argmax_changes, 0);
  if (difference.rms > kUsualRms) {
    EXPECT_LE(difference.mean_kl, kMaxKl);
  }
}

// The same bits for every back end, number of threads, chunk and state of the cache.
TEST_P(GoldenLogits, AreBitEqualHoweverComputed) {
  const Golden golden = this->golden();
  const auto reference = load_model(path(), "reference"), cpu = load_model(path(), "cpu");
  ASSERT_TRUE(reference && cpu);
  const auto expected = all_logits(*reference, golden.ids);
  for (const int64_t chunk : {1, 7, 32}) EXPECT_EQ(all_logits(*cpu, golden.ids, chunk), expected) << "chunk " << chunk;
  EXPECT_EQ(all_logits(*reference, golden.ids, 7), expected);
  for (int n_threads = 2; n_threads <= 8; ++n_threads) {
    EXPECT_EQ(all_logits(*cpu, golden.ids, 32, n_threads), expected) << n_threads << " threads";
  }
  // A cache that already holds a beginning, after something else was tried and forgotten.
  TestRun run(*cpu, int64_t(golden.ids.size()), 2);
  const std::span ids(golden.ids);
  auto cached = run.append(ids.first(10), 4);
  run.append(ids.subspan(20, 9), 3);
  run.truncate(10);
  const auto rest = run.append(ids.subspan(10), 5);
  cached.insert(cached.end(), rest.begin(), rest.end());
  EXPECT_EQ(cached, expected);
}

// A float16 cache rounds keys and values, no more, and the two back ends round alike.
TEST_P(GoldenLogits, F16CacheStaysClose) {
  const Golden golden = this->golden();
  const auto reference = load_model(path(), "reference"), cpu = load_model(path(), "cpu");
  ASSERT_TRUE(reference && cpu);
  const int64_t n = int64_t(golden.ids.size());
  const auto logits = TestRun(*cpu, n, 2, KvType::kF16).append(golden.ids, 16);
  EXPECT_EQ(logits, TestRun(*reference, n, 1, KvType::kF16).append(golden.ids, 33));
  EXPECT_LE(compare(logits, golden).rms, kMaxRms);
}

// Without activation rounding both back ends agree with each other and stay near the quantised model.
TEST_P(GoldenLogits, UnquantizedActivations) {
  const Golden golden = this->golden();
  const auto reference = load_model(path(), "reference", false), cpu = load_model(path(), "cpu", false);
  ASSERT_TRUE(reference && cpu);
  const auto logits = all_logits(*cpu, golden.ids, 7, 2);
  EXPECT_EQ(logits, all_logits(*reference, golden.ids));
  const double rms = relative_rms(logits, golden.logits);
  EXPECT_GT(rms, kUsualRms);
  EXPECT_LT(rms, 0.2);
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenLogits, testing::ValuesIn(golden_models()), golden_model_name);

}  // namespace
}  // namespace bitnet
