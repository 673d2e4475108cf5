#include "model/run_model_test.h"
#include "model/tiny_model_test.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <array>
#include <filesystem>
#include <fstream>

namespace bitnet {
namespace {

namespace fs = std::filesystem;

// Overwrites bytes of a file, which keeps its size and time.
void overwrite(const std::string& path, uint64_t offset, std::string_view bytes) {
  struct stat before {};
  ASSERT_EQ(::stat(path.c_str(), &before), 0);
  {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(std::streamoff(offset));
    file << bytes;
  }
  const std::array<timespec, 2> times = {before.st_atim, before.st_mtim};
  ASSERT_EQ(::utimensat(AT_FDCWD, path.c_str(), times.data(), 0), 0);
}

class WeightCacheTest : public testing::Test {
 protected:
  void SetUp() override { tiny_gguf(tiny_config("bitnet-b1.58")).write(path_); }

  Result<Model> load(CacheMode cache, HeadMode head = HeadMode::kCertified) const {
    LoadOptions options;
    options.cache = cache;
    options.head = head;
    return Model::load(path_, options);
  }
  // Every logit, and the best ones of some input, which the certified head finds from a second search on.
  std::vector<float> logits(const Model& model) const {
    std::vector<float> all = all_logits(model, kIds);
    const ModelImpl& impl = *model.impl();
    const auto stream = impl.backend->new_stream({.max_cols = impl.config.d_ff});
    std::vector<float> x = tiny_floats(3, impl.config.d_model, 0, 1);
    std::vector<float> best(size_t(impl.config.vocab_size));
    const Matrix& head = impl.output ? *impl.output : *impl.token_embedding;
    for (int i = 0; i < 2; ++i) {
      EXPECT_TRUE(impl.backend->best_logits(**stream, head, {x.data(), 1, impl.config.d_model}, 3,
                                            {best.data(), 1, impl.config.vocab_size}));
    }
    all.insert(all.end(), best.begin(), best.end());
    return all;
  }
  // The one file beside the model, or "".
  std::string cache_path() const {
    std::string found;
    for (const auto& entry : fs::directory_iterator(fs::path(path_).parent_path())) {
      if (entry.path().string() == path_) continue;
      EXPECT_EQ(found, "");
      found = entry.path().string();
    }
    return found;
  }
  uint64_t offset_in_model(const std::string& tensor) const {
    return GgufFile::open(path_)->find(tensor)->offset_bytes;
  }

  const std::vector<int32_t> kIds = {1, 7, 30, 2, 11};
  TestFolder folder_;
  const std::string path_ = folder_ / "tiny.gguf";
};

TEST_F(WeightCacheTest, GivesTheSameLogits) {
  const std::vector<float> expected = logits(*load(CacheMode::kOff));
  EXPECT_EQ(cache_path(), "") << "made unasked";
  const Model written = *load(CacheMode::kWrite);
  EXPECT_EQ(logits(written), expected);
  ASSERT_EQ(cache_path(), path_ + "." + std::string(written.impl()->backend->layout()) + ".cache");
  EXPECT_NE(written.info().notices.back().find(cache_path()), std::string::npos);
  const Model mapped = *load(CacheMode::kAuto);
  EXPECT_EQ(logits(mapped), expected);
  EXPECT_EQ(mapped.info().memory_bytes, written.info().memory_bytes);
  EXPECT_EQ(mapped.info().bytes_per_token, written.info().bytes_per_token);
  EXPECT_TRUE(mapped.info().notices.empty()) << mapped.info().notices.back();
  // Modes of which the file has a part or nothing.
  LoadOptions dense;
  dense.sparse_ffn = false;
  EXPECT_EQ(all_logits(*Model::load(path_, dense), kIds), all_logits(mapped, kIds));
}

TEST_F(WeightCacheTest, StandsForTheModelsOwnBytesUntilTheModelChanges) {
  const std::vector<float> expected = logits(*load(CacheMode::kWrite));
  overwrite(path_, offset_in_model("blk.0.ffn_up.weight"), std::string(4096, '\x11'));
  EXPECT_EQ(logits(*load(CacheMode::kAuto)), expected) << "the model was read";
  EXPECT_NE(logits(*load(CacheMode::kOff)), expected);
  fs::last_write_time(path_, fs::last_write_time(path_) + std::chrono::seconds(1));
  const Model changed = *load(CacheMode::kAuto);
  EXPECT_EQ(logits(changed), logits(*load(CacheMode::kOff)));
  ASSERT_EQ(changed.info().notices.size(), 1u);
  EXPECT_NE(changed.info().notices[0].find(".cache is not of this model as it is now"), std::string::npos);
  BN_ASSERT_OK(load(CacheMode::kWrite));
  EXPECT_TRUE(load(CacheMode::kAuto)->info().notices.empty());
}

TEST_F(WeightCacheTest, OptionsThatChangeWeightsCount) {
  BN_ASSERT_OK(load(CacheMode::kWrite));
  LoadOptions options;
  options.i2s_arm64 = true;
  const Model other = *Model::load(path_, options);
  EXPECT_EQ(other.info().notices.size(), 1u);
  options.cache = CacheMode::kOff;
  EXPECT_EQ(all_logits(other, kIds), all_logits(*Model::load(path_, options), kIds));
}

TEST_F(WeightCacheTest, DamageIsAnErrorThatNamesTheFile) {
  BN_ASSERT_OK(load(CacheMode::kWrite));
  const GgufFile file = *GgufFile::open(cache_path());
  for (const StoredTensor& part : file.tensors()) {
    std::vector<std::byte> byte(1);
    BN_ASSERT_OK(file.read(part, part.size_bytes / 2, byte));
    const uint64_t at = part.offset_bytes + part.size_bytes / 2;
    overwrite(cache_path(), at, std::string(1, char(byte[0] ^ std::byte{1})));
    expect_error(load(CacheMode::kAuto), ErrorCode::kInvalidInput, {cache_path(), part.name, "checksum"});
    overwrite(cache_path(), at, std::string(1, char(byte[0])));
  }
  BN_ASSERT_OK(load(CacheMode::kAuto));
  fs::resize_file(cache_path(), fs::file_size(cache_path()) - 100);
  expect_error(load(CacheMode::kAuto), ErrorCode::kInvalidInput, {cache_path()});
  BN_ASSERT_OK(load(CacheMode::kOff));
  BN_ASSERT_OK(load(CacheMode::kWrite));
  BN_ASSERT_OK(load(CacheMode::kAuto));
}

TEST(WeightCacheOfGoldenModels, GivesTheSameLogits) {
  for (const std::string& name : golden_models()) {
    SCOPED_TRACE(name);
    const TestFolder folder;
    const std::string path = folder / fs::path(name).filename().string();
    fs::copy(kData + name, path, fs::copy_options::recursive);
    LoadOptions options;
    options.head = HeadMode::kCertified;
    options.cache = CacheMode::kOff;
    const std::vector<int32_t> ids = {1, 2, 3, 5, 8};
    const std::vector<float> expected = all_logits(*Model::load(path, options), ids);
    options.cache = CacheMode::kWrite;
    EXPECT_EQ(all_logits(*Model::load(path, options), ids), expected);
    options.cache = CacheMode::kAuto;
    EXPECT_EQ(all_logits(*Model::load(path + (fs::is_directory(path) ? "/" : ""), options), ids), expected);
  }
}

}  // namespace
}  // namespace bitnet
