#include "model/checkpoint.h"

#include "base/half.h"
#include "model/tiny_model_test.h"
#include "quant/ternary.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

// Contents that a checkpoint gives, for each way of storing them. Malformed ones: malformed_test.cc.
namespace bitnet {
namespace {

constexpr const char* kO = "blk.0.attn_output.weight";
constexpr const char* kHfQ = "model.layers.0.self_attn.q_proj.weight";

const WeightSpec& spec_of(const Checkpoint& checkpoint, WeightRole role, int64_t layer) {
  for (const WeightSpec& spec : checkpoint.weights()) {
    if (spec.role == role && spec.layer == layer) return spec;
  }
  ADD_FAILURE() << "no such weight";
  return checkpoint.weights()[0];
}

// Place in list_weights order: what the builders seed by.
size_t index_of(const Checkpoint& checkpoint, const WeightSpec& spec) {
  return size_t(&spec - checkpoint.weights().data());
}

Result<Checkpoint> open(const TinyGguf& gguf, const CheckpointOptions& options = {}) {
  const TestFolder folder;
  gguf.write(folder / "m.gguf");
  return Checkpoint::open(folder / "m.gguf", options);
}
Result<Checkpoint> open(const TinyFolder& tiny, const CheckpointOptions& options = {}) {
  const TestFolder folder;
  tiny.write(folder / "m");
  return Checkpoint::open(folder / "m", options);
}

// Codes of a ternary linear, read in two parts.
std::vector<uint8_t> codes_of(const LinearSource& linear) {
  const auto* source = std::get_if<TernarySource>(&linear.weight);
  if (source == nullptr) return {};
  std::vector<uint8_t> codes(size_t(source->n_rows * source->n_cols));
  const int64_t half = source->n_rows / 2;
  EXPECT_TRUE(source->read_codes(0, half, codes.data()));
  EXPECT_TRUE(source->read_codes(half, source->n_rows - half, codes.data() + half * source->n_cols));
  return codes;
}
float alpha_of(const LinearSource& linear) {
  const auto* source = std::get_if<TernarySource>(&linear.weight);
  return source != nullptr && source->scales.groups.empty() ? source->scales.tensor : NAN;
}

// The codes that tiny_gguf wrote, rows in a folder's order: in a Llama file the halves of q's and k's heads of 64 rows
// are interleaved.
std::vector<uint8_t> expected_codes(const Checkpoint& checkpoint, const WeightSpec& spec) {
  std::vector<uint8_t> codes = tiny_codes(index_of(checkpoint, spec), spec.n_values());
  const bool rotates = spec.role == WeightRole::kQ || spec.role == WeightRole::kK;
  if (!checkpoint.is_gguf() || checkpoint.config().architecture != "llama" || !rotates) return codes;
  const std::vector<uint8_t> stored = codes;
  const int64_t head_dim = checkpoint.config().head_dim, n_cols = spec.shape[1];
  for (int64_t row = 0; row < spec.shape[0]; ++row) {
    const int64_t i = row % head_dim, half = head_dim / 2;
    const int64_t from = row - i + (i < half ? 2 * i : 2 * (i - half) + 1);
    std::copy_n(stored.begin() + from * n_cols, n_cols, codes.begin() + row * n_cols);
  }
  return codes;
}

template <class File>
void expect_all_linears(const File& file, float (*expected_alpha)(size_t)) {
  const auto checkpoint = open(file);
  BN_ASSERT_OK(checkpoint);
  for (const WeightSpec& spec : checkpoint->weights()) {
    if (spec.kind != WeightKind::kLinear) continue;
    SCOPED_TRACE(spec.gguf_name);
    const auto linear = checkpoint->linear(spec);
    BN_ASSERT_OK(linear);
    const size_t index = index_of(*checkpoint, spec);
    EXPECT_TRUE(linear->quantize_input);
    EXPECT_TRUE(codes_of(*linear) == expected_codes(*checkpoint, spec));
    EXPECT_EQ(alpha_of(*linear), expected_alpha(index));
  }
}
float written_alpha(size_t index) { return 0.02f + 0.001f * float(index % 7); }
float half_alpha(size_t index) { return f16_to_f32(f32_to_f16(written_alpha(index))); }

TEST(CheckpointTest, GgufCodesAndScales) {
  for (const char* architecture : {"bitnet-b1.58", "bitnet", "llama"}) {
    expect_all_linears(tiny_gguf(tiny_config(architecture), DType::kI2_S), written_alpha);
  }
  expect_all_linears(tiny_gguf(tiny_config("llama"), DType::kTQ1_0), half_alpha);
  expect_all_linears(tiny_gguf(tiny_config("llama"), DType::kTQ2_0), half_alpha);
  expect_all_linears(tiny_gguf(tiny_config("bitnet"), DType::kF32), written_alpha);  // exactly ternary floats
  expect_all_linears(tiny_gguf(tiny_config("bitnet"), DType::kF16), half_alpha);
}

TEST(CheckpointTest, ExactScalesOfRoundedOnes) {
  for (const DType type : {DType::kTQ1_0, DType::kTQ2_0}) {
    TinyGguf gguf = tiny_gguf(tiny_config("llama"), type);
    std::vector<float> scales;
    size_t index = 0;
    for (const WeightSpec& spec : list_weights(tiny_config("llama"))) {
      if (spec.kind == WeightKind::kLinear) scales.push_back(written_alpha(index));
      ++index;
    }
    gguf.set("bitnet.ternary.scales", GgufArray(scales));
    expect_all_linears(gguf, written_alpha);
    // Entries that state nothing, or another file's scales, leave the blocks' own.
    gguf.set("bitnet.ternary.scales", GgufArray(std::vector<float>(scales.size(), 0.0f)));
    expect_all_linears(gguf, half_alpha);
    gguf.set("bitnet.ternary.scales", GgufArray(std::vector<float>(scales.size(), 5.0f)));
    expect_all_linears(gguf, half_alpha);
    gguf.set("bitnet.ternary.scales", GgufArray(std::vector<float>(scales.size(), -1.0f)));
    expect_error(open(gguf), ErrorCode::kInvalidInput, {"bitnet.ternary.scales", "-1"});
    scales.pop_back();
    gguf.set("bitnet.ternary.scales", GgufArray(scales));
    expect_error(open(gguf), ErrorCode::kInvalidInput, {"bitnet.ternary.scales", "13", "14"});
  }
}

TEST(CheckpointTest, ScaleTensorBesideTheWeightMultiplies) {
  TinyGguf gguf = tiny_gguf(tiny_config("bitnet"), DType::kI2_S);
  gguf.tensors.push_back(float_tensor("blk.0.attn_q.scale", DType::kF32, {1}, {0.5f}));
  const auto checkpoint = open(gguf);
  BN_ASSERT_OK(checkpoint);
  EXPECT_TRUE(checkpoint->notices().empty());
  const WeightSpec &q = spec_of(*checkpoint, WeightRole::kQ, 0), &k = spec_of(*checkpoint, WeightRole::kK, 0);
  EXPECT_EQ(alpha_of(*checkpoint->linear(q)), 0.5f * written_alpha(index_of(*checkpoint, q)));
  EXPECT_EQ(alpha_of(*checkpoint->linear(k)), written_alpha(index_of(*checkpoint, k)));
}

TEST(CheckpointTest, FolderScalesMultiplyOrDivide) {
  TinyFolder folder = tiny_folder(tiny_config("bitnet-b1.58"));
  expect_all_linears(folder, written_alpha);
  folder.config["quantization_config"].erase("linear_class");
  expect_all_linears(folder, [](size_t index) { return 1.0f / written_alpha(index); });
}

TEST(CheckpointTest, VectorsTablesAndTheirTypes) {
  const auto gguf = open(tiny_gguf(tiny_config("llama")));
  BN_ASSERT_OK(gguf);
  EXPECT_EQ(gguf->weight_types(), "I2_S 14, F32 5, F16 2");
  EXPECT_TRUE(gguf->is_gguf());
  const WeightSpec& norm = spec_of(*gguf, WeightRole::kFfnNorm, 1);
  EXPECT_EQ(*gguf->read_vector(norm), tiny_floats(index_of(*gguf, norm), 256, 1.0, 0.1));
  const WeightSpec& head = spec_of(*gguf, WeightRole::kOutput, -1);
  const auto table = gguf->table(head);
  BN_ASSERT_OK(table);
  EXPECT_EQ(table->dtype, DType::kF16);
  std::vector<uint16_t> row(256);
  BN_ASSERT_OK(table->read_rows(47, 1, reinterpret_cast<std::byte*>(row.data())));
  const auto expected = tiny_floats(index_of(*gguf, head), head.n_values(), 0.0, 1.0);
  for (size_t i = 0; i < row.size(); ++i) EXPECT_EQ(row[i], f32_to_f16(expected[47 * 256 + i]));
}

TEST(CheckpointTest, LatentWeightsAreTernarised) {
  TinyFolder folder = tiny_folder(tiny_config("bitnet-b1.58"));
  folder.config["quantization_config"]["quantization_mode"] = "online";
  for (const WeightSpec& spec : list_weights(tiny_config("bitnet-b1.58"))) {
    if (spec.kind != WeightKind::kLinear) continue;
    folder.remove_tensor(spec.hf_scale_name);
    folder.tensor(spec.hf_name) =
        float_tensor(spec.hf_name, DType::kF32, spec.shape, tiny_floats(9, spec.n_values(), 0.0, 0.02));
  }
  const auto checkpoint = open(folder);
  BN_ASSERT_OK(checkpoint);
  const WeightSpec& down = spec_of(*checkpoint, WeightRole::kDown, 1);
  const auto linear = checkpoint->linear(down);
  BN_ASSERT_OK(linear);
  const auto values = tiny_floats(9, down.n_values(), 0.0, 0.02);
  double mean = 0;
  for (const float value : values) mean += std::abs(double(value)) / double(values.size());
  EXPECT_NEAR(alpha_of(*linear), mean, 1e-6);
  const auto codes = codes_of(*linear);
  ASSERT_EQ(codes.size(), values.size());
  for (size_t i = 0; i < codes.size(); ++i) {
    const double ratio = double(values[i]) / mean;
    if (std::abs(std::abs(ratio) - 0.5) > 1e-4) {
      EXPECT_EQ(codes[i], ratio > 0.5 ? 2 : ratio < -0.5 ? 0 : 1) << i;
    }
  }
}

TEST(CheckpointTest, FloatLinears) {
  // A Llama's float layer stays float; its input is rounded where the model is ternary.
  TinyGguf llama = tiny_gguf(tiny_config("llama"));
  llama.tensor(kO) = float_tensor(kO, DType::kF16, {256, 256}, tiny_floats(3, 65536, 0.0, 0.02));
  auto checkpoint = open(llama);
  BN_ASSERT_OK(checkpoint);
  auto linear = checkpoint->linear(spec_of(*checkpoint, WeightRole::kO, 0));
  BN_ASSERT_OK(linear);
  EXPECT_FALSE(linear->ternary());
  EXPECT_TRUE(linear->quantize_input);
  const auto* source = std::get_if<FloatSource>(&linear->weight);
  ASSERT_NE(source, nullptr);
  std::vector<std::byte> rows(2 * 512);
  BN_ASSERT_OK(source->read_rows(5, 2, rows.data()));
  EXPECT_EQ(std::memcmp(rows.data(), llama.tensor(kO).data.data() + 5 * 512, rows.size()), 0);

  // Block types are what quantisers fall back to in BitNet files; plain floats there are an error.
  TinyGguf bitnet = tiny_gguf(tiny_config("bitnet"));
  bitnet.tensor(kO) = float_tensor(kO, DType::kQ8_0, {256, 256}, tiny_floats(3, 65536, 0.0, 0.02));
  checkpoint = open(bitnet);
  BN_ASSERT_OK(checkpoint);
  linear = checkpoint->linear(spec_of(*checkpoint, WeightRole::kO, 0));
  BN_ASSERT_OK(linear);
  EXPECT_FALSE(linear->ternary());
  EXPECT_TRUE(linear->quantize_input);
  bitnet.tensor(kO) = float_tensor(kO, DType::kF32, {256, 256}, tiny_floats(3, 65536, 0.0, 0.02));
  checkpoint = open(bitnet);
  BN_ASSERT_OK(checkpoint);
  expect_error(checkpoint->linear(spec_of(*checkpoint, WeightRole::kO, 0)), ErrorCode::kUnsupported,
               {kO, "F32", "not ternary"});
}

TEST(CheckpointTest, ModulesThatStayFloat) {
  TinyFolder folder = tiny_folder(tiny_config("llama"));
  folder.config["quantization_config"]["modules_to_not_convert"] = {"lm_head", "layers.0.self_attn.q_proj"};
  folder.remove_tensor("model.layers.0.self_attn.q_proj.weight_scale");
  folder.tensor(kHfQ) = float_tensor(kHfQ, DType::kBF16, {256, 256}, tiny_floats(3, 65536, 0.0, 0.02));
  auto checkpoint = open(folder);
  BN_ASSERT_OK(checkpoint);
  const auto q = checkpoint->linear(spec_of(*checkpoint, WeightRole::kQ, 0));
  BN_ASSERT_OK(q);
  EXPECT_FALSE(q->ternary() || q->quantize_input);
  EXPECT_TRUE(checkpoint->linear(spec_of(*checkpoint, WeightRole::kQ, 1))->quantize_input);
  // The same values where the config promises packed ones.
  folder.config["quantization_config"]["modules_to_not_convert"] = {"lm_head"};
  checkpoint = open(folder);
  BN_ASSERT_OK(checkpoint);
  expect_error(checkpoint->linear(spec_of(*checkpoint, WeightRole::kQ, 0)), ErrorCode::kUnsupported, {kHfQ, "BF16"});
}

TEST(CheckpointTest, InputNormsAndOlderNames) {
  ModelConfig c = tiny_config("bitnet-b1.58");
  c.input_norms = true;
  c.input_norm_eps = 1e-4f;
  const auto folder = open(tiny_folder(c));
  BN_ASSERT_OK(folder);
  EXPECT_TRUE(folder->config().input_norms);
  const WeightSpec& norm = spec_of(*folder, WeightRole::kDownInputNorm, 1);
  EXPECT_EQ(norm.hf_name, "model.layers.1.mlp.down_proj.rms_norm.weight");
  EXPECT_EQ(norm.gguf_name, "blk.1.ffn_down_norm_in.weight");
  EXPECT_EQ(folder->read_vector(norm)->size(), 512u);
  const auto gguf = open(tiny_gguf(c));
  BN_ASSERT_OK(gguf);
  EXPECT_TRUE(gguf->config().input_norms);

  TinyFolder older = tiny_folder(tiny_config("bitnet"));
  for (const char* layer : {"model.layers.0.", "model.layers.1."}) {
    const std::string prefix = layer;
    older.tensor(prefix + "self_attn.attn_sub_norm.weight").name = prefix + "self_attn.inner_attn_ln.weight";
    older.tensor(prefix + "mlp.ffn_sub_norm.weight").name = prefix + "mlp.ffn_layernorm.weight";
  }
  BN_ASSERT_OK(open(older));
}

TEST(CheckpointTest, ChecksumsGuardEveryTensor) {  // B09
  const TestFolder folder;
  const TinyGguf gguf = tiny_gguf(tiny_config("llama"));
  gguf.write(folder / "m.gguf", true);
  const std::string whole = *read_file(folder / "m.gguf");
  const auto good = Checkpoint::open(folder / "m.gguf");
  BN_ASSERT_OK(good);
  const auto read_all = [](const Checkpoint& checkpoint, const WeightSpec& spec) -> Status {
    if (spec.kind == WeightKind::kVector) BN_RETURN_IF_ERROR(checkpoint.read_vector(spec));
    if (spec.kind == WeightKind::kLinear) BN_RETURN_IF_ERROR(checkpoint.linear(spec));
    if (spec.kind == WeightKind::kTable) BN_RETURN_IF_ERROR(checkpoint.table(spec));
    return ok();
  };
  for (const WeightSpec& spec : good->weights()) {
    BN_ASSERT_OK(read_all(*good, spec));
    std::string damaged = whole;
    const StoredTensor& stored = good->stored(spec);
    damaged[size_t(stored.offset_bytes + stored.size_bytes / 2)] ^= 1;
    ASSERT_TRUE(write_file_atomically(folder / "bad.gguf", damaged));
    const auto bad = Checkpoint::open(folder / "bad.gguf");
    BN_ASSERT_OK(bad);
    expect_error(read_all(*bad, spec), ErrorCode::kInvalidInput, {"bad.gguf", spec.gguf_name, "checksum"});
    CheckpointOptions unchecked;
    unchecked.verify_checksums = false;
    const auto trusting = Checkpoint::open(folder / "bad.gguf", unchecked);
    BN_ASSERT_OK(trusting);
    if (spec.kind == WeightKind::kVector) BN_ASSERT_OK(read_all(*trusting, spec));
  }
}

}  // namespace
}  // namespace bitnet
