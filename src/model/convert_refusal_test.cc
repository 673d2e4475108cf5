#include "model/checkpoint.h"
#include "model/convert.h"
#include "model/tiny_model_test.h"
#include "quant/ternary.h"

#include <gtest/gtest.h>

namespace bitnet {
namespace {

namespace fs = std::filesystem;

class ConvertRefusals : public testing::Test {
 protected:
  void SetUp() override { tiny_folder(tiny_config("bitnet-b1.58")).write(folder_ / "hf"); }
  // Nothing but the source is in the folder.
  void expect_nothing_left() {
    for (const auto& entry : fs::directory_iterator(folder_ / "")) {
      EXPECT_TRUE(entry.path().filename() == "hf" || entry.path().filename() == "source.gguf") << entry.path();
    }
  }
  TestFolder folder_;
  ConvertOptions to_hf_ = [] {
    ConvertOptions options;
    options.to_hf = true;
    return options;
  }();
};

TEST_F(ConvertRefusals, TheSourceIsNeverOverwritten) {
  BN_ASSERT_OK(convert(folder_ / "hf", folder_ / "source.gguf", {}));
  expect_error(convert(folder_ / "source.gguf", folder_ / "source.gguf", {}), ErrorCode::kInvalidArgument, {"source"});
  expect_error(convert(folder_ / "hf", folder_ / "hf", to_hf_), ErrorCode::kInvalidArgument, {"source"});
  expect_error(convert(folder_ / "hf", folder_ / "hf/model.safetensors", {}), ErrorCode::kInvalidArgument, {"source"});
  expect_error(convert(folder_ / "source.gguf", folder_ / "hf", to_hf_), ErrorCode::kInvalidArgument, {"not empty"});
  expect_error(convert(folder_ / "source.gguf", folder_ / "hf", {}), ErrorCode::kInvalidArgument, {"folder"});
  BN_ASSERT_OK(Checkpoint::open(folder_ / "hf"));
}

TEST_F(ConvertRefusals, StoppingLeavesNothingBehind) {
  for (const bool to_hf : {false, true}) {
    for (const double stop_at : {0.0, 0.3, 0.8, 0.999}) {
      ConvertOptions options;
      options.to_hf = to_hf;
      double last = 0;
      options.on_progress = [&](double done) {
        EXPECT_GE(done, last);
        last = done;
        return done < stop_at;
      };
      expect_error(convert(folder_ / "hf", folder_ / "out", options), ErrorCode::kInterrupted, {"stopped"});
      expect_nothing_left();
    }
  }
  double last = 0;
  ConvertOptions options;
  options.on_progress = [&](double done) {
    last = done;
    return true;
  };
  BN_ASSERT_OK(convert(folder_ / "hf", folder_ / "source.gguf", options));
  EXPECT_EQ(last, 1.0);
}

TEST_F(ConvertRefusals, TypesThatDoNotFitTheOutput) {
  ConvertOptions options;
  options.linear_type = DType::kI32;
  expect_error(convert(folder_ / "hf", folder_ / "out", options), ErrorCode::kInvalidArgument, {"I32", "i2_s"});
  options.linear_type = DType::kF16;
  options.to_hf = true;
  expect_error(convert(folder_ / "hf", folder_ / "out", options), ErrorCode::kInvalidArgument, {"packed"});
  to_hf_.embed_type = DType::kQ8_0;
  expect_error(convert(folder_ / "hf", folder_ / "out", to_hf_), ErrorCode::kInvalidArgument, {"Q8_0"});
  options = {};
  options.embed_type = DType::kI2_S;
  expect_error(convert(folder_ / "hf", folder_ / "out", options), ErrorCode::kInvalidArgument, {"I2_S"});
  expect_nothing_left();
}

TEST_F(ConvertRefusals, ShapesThatBlocksDoNotFitAreNamedWithAWayOut) {
  ModelConfig config = tiny_config("bitnet-b1.58");
  config.n_heads = config.n_kv_heads = 5;
  config.d_model = 320;
  fs::remove_all(folder_ / "hf");
  tiny_folder(config).write(folder_ / "hf");
  ConvertOptions options;
  for (const DType type : {DType::kTQ1_0, DType::kTQ2_0}) {
    options.linear_type = type;
    const auto refused = convert(folder_ / "hf", folder_ / "out", options);
    expect_error(refused, ErrorCode::kUnsupported, {"blk.0.attn_q.weight", "[320, 320]", "256"});
    EXPECT_NE(refused.error().suggestion.find("i2_s"), std::string::npos);
  }
  config.n_heads = config.n_kv_heads = 1;
  config.d_model = config.head_dim = config.rope_dim = 12;
  config.d_ff = 20;
  fs::remove_all(folder_ / "hf");
  tiny_folder(config).write(folder_ / "hf");
  expect_error(convert(folder_ / "hf", folder_ / "out", {}), ErrorCode::kUnsupported,
               {"blk.0.attn_q.weight", "[12, 12]", "128"});
  options = {};
  options.embed_type = DType::kQ8_0;
  expect_error(convert(folder_ / "hf", folder_ / "out", options), ErrorCode::kUnsupported, {"token_embd.weight", "32"});
  BN_ASSERT_OK(convert(folder_ / "hf", folder_ / "again", to_hf_));
  fs::remove_all(folder_ / "again");
  expect_nothing_left();
}

TEST_F(ConvertRefusals, GroupScalesFitTqOnly) {
  TinyGguf file = tiny_gguf(tiny_config("bitnet-b1.58"), DType::kTQ2_0);
  TernaryScales scales;
  scales.group_cols = 256;
  for (int i = 0; i < 512; ++i) scales.groups.push_back(0.25f + float(i) / 1024.0f);
  const auto codes = tiny_codes(99, 256 * 512);
  TinyTensor& down = file.tensor("blk.1.ffn_down.weight");
  down.data = *encode_ternary(TernaryLayout::kTQ2_0, 256, 512, codes, scales);
  file.write(folder_ / "source.gguf");
  const auto refused = convert(folder_ / "source.gguf", folder_ / "out", {});
  expect_error(refused, ErrorCode::kUnsupported, {"blk.1.ffn_down.weight", "256 columns"});
  EXPECT_NE(refused.error().suggestion.find("tq2_0"), std::string::npos);
  expect_error(convert(folder_ / "source.gguf", folder_ / "out", to_hf_), ErrorCode::kUnsupported, {"down_proj"});
  expect_nothing_left();

  ConvertOptions options;
  options.linear_type = DType::kTQ1_0;
  BN_ASSERT_OK(convert(folder_ / "source.gguf", folder_ / "out.gguf", options));
  const auto out = GgufFile::open(folder_ / "out.gguf");
  BN_ASSERT_OK(out);
  const StoredTensor* tensor = out->find("blk.1.ffn_down.weight");
  const auto bytes = *out->read(*tensor);
  const TernaryView view{TernaryLayout::kTQ1_0, 256, 512, bytes};
  EXPECT_EQ(ternary_scales(view)->groups, scales.groups);
  std::vector<uint8_t> read(codes.size());
  BN_ASSERT_OK(decode_ternary(view, 0, 256, read.data()));
  EXPECT_EQ(read, codes);
}

TEST_F(ConvertRefusals, ModelsWithoutTernaryLayers) {
  ModelConfig config = tiny_config("llama");
  config.ternary = false;
  TinyGguf file = tiny_gguf(config, DType::kF16);
  for (TinyTensor& tensor : file.tensors) {
    if (tensor.shape.size() != 2) continue;
    const int64_t n = tensor.shape[0] * tensor.shape[1];
    tensor = float_tensor(tensor.name, DType::kF16, tensor.shape, tiny_floats(5, n, 0.0, 0.02));
  }
  file.write(folder_ / "source.gguf");
  const auto refused = convert(folder_ / "source.gguf", folder_ / "out", {});
  expect_error(refused, ErrorCode::kUnsupported, {"no linear layer is ternary", "I2_S"});
  expect_nothing_left();
  ConvertOptions options;
  options.linear_type = DType::kQ8_0;
  BN_ASSERT_OK(convert(folder_ / "source.gguf", folder_ / "q8.gguf", options));
  EXPECT_EQ(GgufFile::open(folder_ / "q8.gguf")->find("blk.0.attn_q.weight")->dtype, DType::kQ8_0);
}

TEST_F(ConvertRefusals, DamagedWeightsStopTheConversion) {
  TinyFolder source = tiny_folder(tiny_config("bitnet-b1.58"));
  source.tensor("model.layers.1.mlp.up_proj.weight").data[77] = std::byte{0xff};
  fs::remove_all(folder_ / "hf");
  source.write(folder_ / "hf");
  for (const bool to_hf : {false, true}) {
    ConvertOptions options;
    options.to_hf = to_hf;
    expect_error(convert(folder_ / "hf", folder_ / "out", options), ErrorCode::kInvalidInput, {"up_proj", "column 77"});
    expect_nothing_left();
  }
}

}  // namespace
}  // namespace bitnet
