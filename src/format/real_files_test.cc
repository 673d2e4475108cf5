#include "format/gguf.h"
#include "format/safetensors.h"

#include <gtest/gtest.h>
#include <filesystem>
#include <string>

// Files that other programs wrote, read in place; skipped where they are not there.
namespace bitnet {
namespace {

namespace fs = std::filesystem;
const fs::path kShared = fs::path(BITNET_SOURCE_DIR) / ".." / "shared";

TEST(RealFiles, VocabulariesOfLlamaCpp) {
  struct Expected {
    const char* name;
    const char* model;
    size_t n_tokens;
  };
  for (const Expected& expected : {Expected{"gpt-2.gguf", "gpt2", 50257}, Expected{"llama-spm.gguf", "llama", 32000}}) {
    const fs::path path = kShared / "tokenizers" / expected.name;
    if (!fs::exists(path)) GTEST_SKIP() << path << " is not there";
    const auto gguf = GgufFile::open(path.string());
    ASSERT_TRUE(gguf) << gguf.error().message;
    EXPECT_EQ(gguf->tensors().size(), 0u);
    EXPECT_EQ(*gguf->metadata().get_string("tokenizer.ggml.model"), expected.model);
    const auto tokens = gguf->metadata().get_array<std::string>("tokenizer.ggml.tokens");
    ASSERT_TRUE(tokens) << tokens.error().message;
    ASSERT_NE(*tokens, nullptr);
    EXPECT_EQ((*tokens)->size(), expected.n_tokens);
    const auto types = gguf->metadata().get_array<int32_t>("tokenizer.ggml.token_type");
    ASSERT_TRUE(types && *types != nullptr);
    EXPECT_EQ((*types)->size(), expected.n_tokens);
  }
}

TEST(RealFiles, FixturesOfTransformers) {
  const fs::path fixtures = kShared / "fixtures" / "hf";
  if (!fs::exists(fixtures)) GTEST_SKIP() << fixtures << " is not there";
  size_t n_folders = 0;
  for (const auto& folder : fs::directory_iterator(fixtures)) {
    SCOPED_TRACE(folder.path().string());
    const auto model = SafetensorsFolder::open(folder.path().string());
    ASSERT_TRUE(model) << model.error().message;
    const auto* embedding = model->find("model.embed_tokens.weight");
    ASSERT_NE(embedding, nullptr);
    EXPECT_EQ(embedding->tensor->shape.size(), 2u);
    for (const auto& entry : model->tensors()) {
      const auto data = entry.file->read(*entry.tensor);
      ASSERT_TRUE(data) << data.error().message;
      EXPECT_EQ(data->size(), entry.tensor->size_bytes);
    }
    EXPECT_TRUE(SafetensorsFile::open((folder.path() / "golden.safetensors").string()));
    ++n_folders;
  }
  EXPECT_EQ(n_folders, 5u);
}

TEST(RealFiles, TrainedModelAndTrainingSteps) {
  const fs::path model = kShared / "models" / "storyteller-29m";
  const fs::path steps = kShared / "fixtures" / "train" / "ten_steps.safetensors";
  if (!fs::exists(model) || !fs::exists(steps)) GTEST_SKIP() << kShared << " lacks the models";
  const auto folder = SafetensorsFolder::open(model.string());
  ASSERT_TRUE(folder) << folder.error().message;
  EXPECT_EQ(folder->size_bytes(), fs::file_size(model / "model.safetensors"));
  const auto file = SafetensorsFile::open(steps.string());
  ASSERT_TRUE(file) << file.error().message;
  ASSERT_NE(file->find("losses"), nullptr);
  EXPECT_EQ(file->find("losses")->shape, Shape{10});
  EXPECT_EQ(file->find("tokens")->shape, (Shape{10, 4, 33}));
}

}  // namespace
}  // namespace bitnet
