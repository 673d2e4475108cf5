#include "model/convert.h"

#include "base/half.h"
#include "format/gguf_checksums.h"
#include "model/checkpoint.h"
#include "model/tiny_model_test.h"
#include "quant/blocks.h"
#include "quant/ternary.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>

namespace bitnet {
namespace {

namespace fs = std::filesystem;

std::string fixture(const std::string& name) { return std::string(BITNET_SOURCE_DIR) + "/tests/data/hf/" + name; }

ConvertOptions with_type(DType type) {
  ConvertOptions options;
  options.linear_type = type;
  return options;
}
ConvertOptions to_folder() {
  ConvertOptions options;
  options.to_hf = true;
  return options;
}

Result<Checkpoint> open(const std::string& path) { return Checkpoint::open(path); }

struct Linear {
  std::vector<uint8_t> codes;
  float alpha = 0;
};
// Every linear by its Hugging Face name, as the loader sees it.
std::map<std::string, Linear> read_linears(const std::string& path) {
  std::map<std::string, Linear> linears;
  const auto checkpoint = open(path);
  EXPECT_TRUE(checkpoint) << checkpoint.error().message;
  if (!checkpoint) return linears;
  for (const WeightSpec& spec : checkpoint->weights()) {
    if (spec.kind != WeightKind::kLinear) continue;
    auto source = checkpoint->linear(spec);
    EXPECT_TRUE(source) << source.error().message;
    EXPECT_TRUE(source && source->ternary()) << spec.hf_name;
    if (!source || !source->ternary()) continue;
    const auto& ternary = std::get<TernarySource>(source->weight);
    EXPECT_TRUE(ternary.scales.groups.empty()) << spec.hf_name;
    Linear& linear = linears[spec.hf_name];
    linear.alpha = ternary.scales.tensor;
    linear.codes.resize(size_t(spec.n_values()));
    EXPECT_TRUE(ternary.read_codes(0, spec.shape[0], linear.codes.data()));
  }
  return linears;
}

void expect_same_linears(const std::string& a, const std::string& b) {
  const auto left = read_linears(a), right = read_linears(b);
  ASSERT_FALSE(left.empty());
  ASSERT_EQ(left.size(), right.size());
  for (const auto& [name, linear] : left) {
    EXPECT_EQ(linear.alpha, right.at(name).alpha) << name;
    EXPECT_TRUE(linear.codes == right.at(name).codes) << name;
  }
}

// Tensors of a folder as bytes, floats widened so that types may differ.
std::map<std::string, std::vector<std::byte>> folder_contents(const std::string& path) {
  std::map<std::string, std::vector<std::byte>> contents;
  const auto folder = SafetensorsFolder::open(path);
  EXPECT_TRUE(folder) << folder.error().message;
  if (!folder) return contents;
  for (const auto& entry : folder->tensors()) {
    const auto bytes = *entry.file->read(*entry.tensor);
    std::vector<float> values(size_t(*element_count(entry.tensor->shape)));
    EXPECT_TRUE(dequantize(entry.tensor->dtype, bytes, int64_t(values.size()), values.data()));
    const auto wide = std::as_bytes(std::span(values));
    contents[entry.tensor->name].assign(wide.begin(), wide.end());
  }
  return contents;
}

TEST(Convert, FolderToEveryTernaryTypeAndBackKeepsEveryValue) {
  for (const std::string architecture : {"bitnet-b1.58", "bitnet", "llama"}) {
    const TestFolder folder;
    tiny_folder(tiny_config(architecture)).write(folder / "hf");
    for (const DType type : {DType::kI2_S, DType::kTQ1_0, DType::kTQ2_0}) {
      const std::string name = architecture + std::string(dtype_info(type).name);
      const std::string gguf = folder / (name + ".gguf"), back = folder / (name + "-hf");
      const auto report = convert(folder / "hf", gguf, with_type(type));
      BN_ASSERT_OK(report);
      EXPECT_EQ(report->output_bytes, fs::file_size(gguf));
      EXPECT_EQ(report->notices.size(), type == DType::kI2_S ? 1u : 2u) << "no vocabulary; scales in 16 bits";
      BN_ASSERT_OK(convert(gguf, back, to_folder()));
      EXPECT_EQ(folder_contents(back), folder_contents(folder / "hf")) << name;
      const auto config = open(back);
      BN_ASSERT_OK(config);
      EXPECT_EQ(config->config().architecture, architecture);
    }
  }
}

// The codes of an I2_S tensor in the order of the file's rows.
std::vector<uint8_t> stored_codes(const GgufFile& file, const std::string& name) {
  const StoredTensor* tensor = file.find(name);
  const auto bytes = file.read(*tensor);
  std::vector<uint8_t> codes(*element_count(tensor->shape));
  const TernaryView view{TernaryLayout::kI2S, tensor->shape[0], tensor->shape[1], *bytes};
  EXPECT_TRUE(decode_ternary(view, 0, view.n_rows, codes.data()));
  return codes;
}

TEST(Convert, LlamaRowsOfQAndKAreInterleavedInGguf) {
  const TestFolder folder;
  tiny_folder(tiny_config("llama")).write(folder / "hf");
  BN_ASSERT_OK(convert(folder / "hf", folder / "m.gguf", {}));
  const auto hf = read_linears(folder / "hf");
  const auto file = GgufFile::open(folder / "m.gguf");
  BN_ASSERT_OK(file);
  const auto row = [](const std::vector<uint8_t>& codes, size_t r) {
    return std::vector<uint8_t>(codes.begin() + int64_t(r) * 256, codes.begin() + int64_t(r + 1) * 256);
  };
  for (const std::string name : {"q", "k"}) {
    const auto from = hf.at("model.layers.1.self_attn." + name + "_proj.weight").codes;
    const auto to = stored_codes(*file, "blk.1.attn_" + name + ".weight");
    for (size_t head = 0; head < 2; ++head) {
      for (size_t i = 0; i < 32; ++i) {
        EXPECT_EQ(row(to, head * 64 + 2 * i), row(from, head * 64 + i));
        EXPECT_EQ(row(to, head * 64 + 2 * i + 1), row(from, head * 64 + 32 + i));
      }
    }
  }
  EXPECT_EQ(stored_codes(*file, "blk.1.attn_v.weight"), hf.at("model.layers.1.self_attn.v_proj.weight").codes);
  // The loader gives every row back in its place.
  const auto gguf = read_linears(folder / "m.gguf");
  for (const auto& [name, linear] : hf) EXPECT_EQ(gguf.at(name).codes, linear.codes) << name;
}

TEST(Convert, GgufToGgufKeepsRowsWhereTheyAre) {
  const TestFolder folder;
  tiny_gguf(tiny_config("llama"), DType::kI2_S).write(folder / "a.gguf");
  BN_ASSERT_OK(convert(folder / "a.gguf", folder / "b.gguf", with_type(DType::kTQ1_0)));
  expect_same_linears(folder / "a.gguf", folder / "b.gguf");
  BN_ASSERT_OK(convert(folder / "b.gguf", folder / "c.gguf", {}));
  expect_same_linears(folder / "a.gguf", folder / "c.gguf");
}

TEST(Convert, FixturesOfBothScaleConventionsSurvive) {
  for (const char* name : {"bitnet-packed", "llama-divide", "llama-wide-heads", "bitnet-odd-shapes"}) {
    if (!fs::exists(fixture(name))) GTEST_SKIP() << "no fixtures";
    const TestFolder folder;
    BN_ASSERT_OK(convert(fixture(name), folder / "m.gguf", {}));
    BN_ASSERT_OK(convert(folder / "m.gguf", folder / "hf", to_folder()));
    expect_same_linears(fixture(name), folder / "hf");
  }
}

TEST(Convert, LatentWeightsAreTernarisedByTheirMean) {
  const std::string source = fixture("bitnet-bf16-master");
  if (!fs::exists(source)) GTEST_SKIP() << "no fixtures";
  const TestFolder folder;
  BN_ASSERT_OK(convert(source, folder / "m.gguf", {}));
  const auto linears = read_linears(folder / "m.gguf");
  const auto masters = SafetensorsFolder::open(source);
  BN_ASSERT_OK(masters);
  ASSERT_EQ(linears.size(), 14u);
  for (const auto& [name, linear] : linears) {
    const auto* entry = masters->find(name);
    const auto bytes = *entry->file->read(*entry->tensor);
    std::vector<float> values(linear.codes.size());
    BN_ASSERT_OK(dequantize(entry->tensor->dtype, bytes, int64_t(values.size()), values.data()));
    std::vector<uint8_t> codes(values.size());
    EXPECT_EQ(absmean_ternarize(values, codes.data()), linear.alpha) << name;
    EXPECT_TRUE(codes == linear.codes) << name;
  }
}

TEST(Convert, FloatTypesCarryTernaryValues) {
  const TestFolder folder;
  tiny_folder(tiny_config("llama")).write(folder / "hf");
  for (const DType type : {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0}) {
    const std::string gguf = folder / (std::string(dtype_info(type).name) + ".gguf");
    const auto report = convert(folder / "hf", gguf, with_type(type));
    BN_ASSERT_OK(report);
    EXPECT_EQ(report->notices.size(), type == DType::kF32 ? 1u : 2u);
    BN_ASSERT_OK(convert(gguf, folder / (std::string(dtype_info(type).name) + "-hf"), to_folder()));
    const auto expected = read_linears(folder / "hf");
    const auto found = read_linears(folder / (std::string(dtype_info(type).name) + "-hf"));
    ASSERT_EQ(found.size(), expected.size());
    for (const auto& [name, linear] : expected) {
      EXPECT_TRUE(found.at(name).codes == linear.codes) << name;
      EXPECT_NEAR(found.at(name).alpha, linear.alpha, type == DType::kF32 ? 0 : linear.alpha / 256) << name;
      if (type == DType::kF16) {
        EXPECT_EQ(found.at(name).alpha, f16_to_f32(f32_to_f16(linear.alpha)));
      }
    }
  }
}

TEST(Convert, TheEmbeddingKeepsItsTypeUnlessAsked) {
  const TestFolder folder;
  tiny_folder(tiny_config("bitnet-b1.58")).write(folder / "hf");
  const auto table = [&](const std::string& path) {
    const auto file = GgufFile::open(path);
    EXPECT_TRUE(file);
    const StoredTensor* tensor = file->find("token_embd.weight");
    return std::make_pair(tensor->dtype, *file->read(*tensor));
  };
  BN_ASSERT_OK(convert(folder / "hf", folder / "same.gguf", {}));
  const auto source = SafetensorsFolder::open(folder / "hf");
  const auto* entry = source->find("model.embed_tokens.weight");
  EXPECT_EQ(table(folder / "same.gguf"), std::make_pair(DType::kBF16, *entry->file->read(*entry->tensor)));
  std::vector<float> values(48 * 256);
  BN_ASSERT_OK(dequantize(DType::kBF16, *entry->file->read(*entry->tensor), 48 * 256, values.data()));
  for (const DType type : {DType::kF16, DType::kF32, DType::kQ8_0, DType::kQ6_K}) {
    ConvertOptions options;
    options.embed_type = type;
    BN_ASSERT_OK(convert(folder / "hf", folder / "other.gguf", options));
    EXPECT_EQ(table(folder / "other.gguf"), std::make_pair(type, *quantize(type, values, 48, 256)));
  }
}

TEST(Convert, WritesTheKeysThatOthersRead) {
  const TestFolder folder;
  tiny_folder(tiny_config("bitnet-b1.58")).write(folder / "tiny-model");
  BN_ASSERT_OK(convert(folder / "tiny-model", folder / "m.gguf", with_type(DType::kTQ2_0)));
  const auto file = GgufFile::open(folder / "m.gguf");
  BN_ASSERT_OK(file);
  const GgufMetadata& metadata = file->metadata();
  EXPECT_EQ(*metadata.get_string("general.architecture"), "bitnet-b1.58");
  EXPECT_EQ(*metadata.get_string("general.name"), "tiny-model");
  EXPECT_EQ(*metadata.get_uint("general.file_type", 0, 1000), 37u);
  EXPECT_EQ(*metadata.get_uint("general.quantization_version", 0, 1000), 2u);
  EXPECT_EQ(*metadata.get_uint("bitnet-b1.58.attention.head_count_kv", 0, 1000), 2u);
  EXPECT_FALSE(metadata.contains("general.alignment"));
  EXPECT_EQ(file->find("blk.0.attn_norm.weight")->dtype, DType::kF32);
  EXPECT_EQ(file->find("blk.1.ffn_down.weight")->dtype, DType::kTQ2_0);
  EXPECT_EQ(file->find("output.weight"), nullptr);
  const auto checksums = GgufChecksums::read(*file);
  BN_ASSERT_OK(checksums);
  ASSERT_EQ(checksums->kind(), GgufChecksums::Kind::kValid);
  for (const StoredTensor& tensor : file->tensors()) BN_ASSERT_OK(checksums->verify(tensor, *file->read(tensor)));
  const auto scales = metadata.get_array<float>("bitnet.ternary.scales");
  BN_ASSERT_OK(scales);
  EXPECT_EQ((*scales)->size(), 14u);
}

}  // namespace
}  // namespace bitnet
