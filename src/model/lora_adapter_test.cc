#include "model/lora_adapter.h"

#include "base/half.h"
#include "model/convert.h"
#include "model/lora_merge.h"
#include "model/run_model_test.h"
#include "model/tiny_model_test.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

namespace bitnet {
namespace {

constexpr int64_t kRank = 3;
constexpr double kAlpha = 6;

std::vector<int32_t> some_ids(int64_t n) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < n; ++i) ids.push_back(int32_t((i * 31 + i * i * 7) % 48));
  return ids;
}

// A tiny base and an adapter of it as PEFT would write it, in pieces that a test can spoil.
class LoraTest : public ::testing::Test {
 protected:
  explicit LoraTest(const std::string& architecture = "bitnet-b1.58") : config_(tiny_config(architecture)) {
    tiny_gguf(config_).write(base_);
    for (const WeightSpec& spec : list_weights(config_)) {
      if (spec.kind != WeightKind::kLinear) continue;
      const uint64_t seed = 100 + uint64_t(tensors_.size());
      const std::vector<float> a = tiny_floats(seed, kRank * spec.shape[1], 0, 0.1),
                               b = tiny_floats(seed + 1, spec.shape[0] * kRank, 0, 0.1);
      tensors_.push_back(float_tensor(lora_a_name(spec), DType::kF32, {kRank, spec.shape[1]}, a));
      tensors_.push_back(float_tensor(lora_b_name(spec), DType::kF32, {spec.shape[0], kRank}, b));
    }
    json_ = {{"peft_type", "LORA"},
             {"r", kRank},
             {"lora_alpha", kAlpha},
             {"bias", "none"},
             {"target_modules", {"q_proj", "down_proj"}},
             {"alpha_pattern", Json::object()}};
  }

  void write_adapter() const {
    std::filesystem::create_directories(adapter_);
    auto writer = SafetensorsWriter::create(adapter_ + "/adapter_model.safetensors");
    ASSERT_TRUE(writer);
    for (const auto& [key, value] : metadata_) BN_ASSERT_OK(writer->add_metadata(key, value));
    for (const TinyTensor& t : tensors_) BN_ASSERT_OK(writer->add_tensor(t.name, t.dtype, t.shape));
    BN_ASSERT_OK(writer->begin_data());
    for (const TinyTensor& t : tensors_) BN_ASSERT_OK(writer->write_data(t.data));
    BN_ASSERT_OK(writer->finish());
    BN_ASSERT_OK(write_file_atomically(adapter_ + "/adapter_config.json", json_.dump()));
  }
  Result<Model> load(const LoadOptions& options = {}) const {
    LoadOptions with = options;
    with.lora = adapter_;
    return Model::load(base_, with);
  }
  std::vector<float> logits(const LoadOptions& options = {}, int64_t chunk = 32, int n_threads = 1) const {
    const auto model = load(options);
    EXPECT_TRUE(model) << model.error().message;
    return model ? all_logits(*model, some_ids(40), chunk, n_threads) : std::vector<float>();
  }
  std::vector<float> base_logits() const { return all_logits(*bitnet::load_model(base_), some_ids(40)); }
  TinyTensor& tensor(const std::string& part) {
    for (TinyTensor& t : tensors_) {
      if (t.name.find(part) != std::string::npos) return t;
    }
    ADD_FAILURE() << part;
    return tensors_.front();
  }
  void scale_b(float factor) {
    for (TinyTensor& t : tensors_) {
      if (t.name.find("lora_B") == std::string::npos) continue;
      auto* const values = reinterpret_cast<float*>(t.data.data());
      for (size_t i = 0; i < t.data.size() / sizeof(float); ++i) values[i] *= factor;
    }
  }
  void expect_refused(ErrorCode code, const std::vector<std::string>& words) {
    write_adapter();
    expect_error(load(), code, words);
  }

  TestFolder folder_;
  ModelConfig config_;
  std::string base_ = folder_ / "base.gguf", adapter_ = folder_ / "adapter";
  std::vector<TinyTensor> tensors_;
  Json json_;
  std::map<std::string, std::string> metadata_;
};

TEST_F(LoraTest, ZeroIsTheBaseBitForBit) {
  scale_b(0);
  write_adapter();
  EXPECT_EQ(logits(), base_logits());
}

// The same bits as the plain loops, token by token (where the feed-forward is sparse) and together, on every number of
// threads; and they are not the base's.
TEST_F(LoraTest, BitsAreThoseOfTheReferenceHoweverTokensCome) {
  write_adapter();
  LoadOptions reference, dense;
  reference.device = "reference";
  dense.sparse_ffn = false;
  const std::vector<float> expected = logits(reference);
  EXPECT_GT(relative_rms(expected, base_logits()), 0.05);
  EXPECT_EQ(logits(), expected);
  EXPECT_EQ(logits({}, 1), expected);
  EXPECT_EQ(logits({}, 7, 3), expected);
  EXPECT_EQ(logits(dense, 1), expected);
}

// alpha / rank, alpha / sqrt(rank) and the caller's scale are one factor.
TEST_F(LoraTest, ScalesMultiply) {
  write_adapter();
  const std::vector<float> expected = logits();
  json_["lora_alpha"] = kAlpha / 2;
  write_adapter();
  LoadOptions twice;
  twice.lora_scale = 2;
  EXPECT_EQ(logits(twice), expected);
  json_["use_rslora"] = true;
  json_["lora_alpha"] = 2 * std::sqrt(double(kRank));
  write_adapter();
  EXPECT_EQ(logits(), expected);
}

TEST_F(LoraTest, ReadsHalfPrecision) {
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    for (TinyTensor& t : tensors_) {
      const auto n = int64_t(element_count(t.shape).value());
      std::vector<float> values(static_cast<size_t>(n));
      if (t.dtype == DType::kF32) std::memcpy(values.data(), t.data.data(), t.data.size());
      // Values that both types hold.
      for (float& v : values) v = bf16_to_f32(f32_to_bf16(std::round(v * 64) / 64));
      t = float_tensor(t.name, DType::kF32, t.shape, values);
    }
    write_adapter();
    const std::vector<float> expected = logits();
    std::vector<TinyTensor> kept = tensors_;
    for (TinyTensor& t : tensors_) {
      std::vector<float> values(size_t(element_count(t.shape).value()));
      std::memcpy(values.data(), t.data.data(), t.data.size());
      t = float_tensor(t.name, dtype, t.shape, values);
    }
    write_adapter();
    EXPECT_EQ(logits(), expected) << dtype_info(dtype).name;
    tensors_ = kept;
  }
}

TEST_F(LoraTest, RefusesTensorsThatDoNotFit) {
  const std::vector<TinyTensor> good = tensors_;
  TinyTensor& a = tensor("layers.1.self_attn.k_proj.lora_A");
  a.shape = {kRank, 128};
  a.data.resize(size_t(kRank * 128) * sizeof(float));
  expect_refused(ErrorCode::kInvalidInput, {"adapter_model.safetensors", "layers.1.self_attn.k_proj.lora_A.weight",
                                            "[3, 128]", "expected [3, 256]"});
  tensors_ = good;
  std::erase_if(tensors_,
                [](const TinyTensor& t) { return t.name.find("layers.0.mlp.up_proj.lora_B") != std::string::npos; });
  expect_refused(
      ErrorCode::kInvalidInput,
      {"layers.0.mlp.up_proj.lora_A.weight has no base_model.model.model.layers.0.mlp.up_proj.lora_B.weight"});
  tensors_ = good;
  TinyTensor& b = tensor("layers.1.mlp.down_proj.lora_B");
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::memcpy(b.data.data() + 4 * sizeof(float), &nan, sizeof nan);
  expect_refused(ErrorCode::kInvalidInput, {"layers.1.mlp.down_proj.lora_B.weight holds nan in row 1, column 1"});
  tensors_ = good;
  tensors_.push_back(float_tensor("base_model.model.lm_head.lora_A.weight", DType::kF32, {1, 1}, {0.0f}));
  expect_refused(ErrorCode::kUnsupported, {"base_model.model.lm_head.lora_A.weight belongs to no linear layer of"});
  tensors_ = good;
  TinyTensor& integers = tensor("layers.0.self_attn.q_proj.lora_A");
  integers.dtype = DType::kI32;
  expect_refused(ErrorCode::kUnsupported,
                 {"layers.0.self_attn.q_proj.lora_A.weight is I32, expected F32, F16 or BF16"});
  tensors_.clear();
  expect_refused(ErrorCode::kInvalidInput, {"holds no adapter of any layer"});
}

TEST_F(LoraTest, RefusesSettingsThatMeanAnotherFunction) {
  const Json good = json_;
  const auto refuse = [&](const char* key, const Json& value, ErrorCode code, const std::string& words) {
    json_ = good;
    json_[key] = value;
    expect_refused(code, {"adapter_config.json", words});
  };
  refuse("alpha_pattern", {{"q_proj", 4}}, ErrorCode::kUnsupported, "\"alpha_pattern\" is {\"q_proj\":4}");
  refuse("rank_pattern", {{"q_proj", 4}}, ErrorCode::kUnsupported, "\"rank_pattern\"");
  refuse("use_dora", true, ErrorCode::kUnsupported, "\"use_dora\" is true");
  refuse("bias", "all", ErrorCode::kUnsupported, "\"bias\" is \"all\"");
  refuse("modules_to_save", {"lm_head"}, ErrorCode::kUnsupported, "\"modules_to_save\"");
  refuse("peft_type", "IA3", ErrorCode::kUnsupported, "\"peft_type\" is IA3");
  refuse("target_modules", {"q_proj", "embed_tokens"}, ErrorCode::kUnsupported, "names embed_tokens");
  refuse("r", 0, ErrorCode::kInvalidInput, "\"r\"");
  refuse("r", "three", ErrorCode::kInvalidInput, "\"r\"");
  refuse("lora_alpha", nullptr, ErrorCode::kInvalidInput, "\"lora_alpha\"");
  json_ = Json::array();
  expect_refused(ErrorCode::kInvalidInput, {"adapter_config.json", "expected an object"});
}

// One checksum for all files of a model, another for every other model; an adapter that names one takes no other.
TEST_F(LoraTest, BelongsToItsBaseInWhateverFile) {
  ThreadPool pool(2);
  const auto checksum = [&](const std::string& path) {
    const auto checkpoint = Checkpoint::open(path);
    EXPECT_TRUE(checkpoint) << checkpoint.error().message;
    return lora_base_of(*checkpoint, pool)->checksum;
  };
  const std::string own = checksum(base_);
  ConvertOptions options;
  options.linear_type = DType::kTQ2_0;
  options.embed_type = DType::kQ8_0;
  BN_ASSERT_OK(convert(base_, folder_ / "tq2.gguf", options));
  EXPECT_EQ(checksum(folder_ / "tq2.gguf"), own);
  ConvertOptions to_hf;
  to_hf.to_hf = true;
  BN_ASSERT_OK(convert(base_, folder_ / "hf", to_hf));
  EXPECT_EQ(checksum(folder_ / "hf"), own);

  TinyGguf other = tiny_gguf(config_);
  std::byte& codes = other.tensor("blk.1.ffn_up.weight").data[7];  // of four weights, made zeros
  ASSERT_NE(codes, std::byte{0x55});
  codes = std::byte{0x55};
  other.write(folder_ / "other.gguf");
  EXPECT_NE(checksum(folder_ / "other.gguf"), own);

  metadata_ = {{kLoraChecksumKey, own}, {kLoraShapeKey, lora_base_shape(config_)}};
  write_adapter();
  EXPECT_TRUE(load());
  LoadOptions with;
  with.lora = adapter_;
  expect_error(Model::load(folder_ / "other.gguf", with), ErrorCode::kInvalidInput,
               {"adapter_model.safetensors", "a base with the checksum " + own, "other.gguf"});
  metadata_[kLoraShapeKey] = "9 layers";
  expect_refused(ErrorCode::kInvalidInput, {"a base of 9 layers", "has 2 layers, d_model 256"});
}

TEST_F(LoraTest, SeveralDevicesAreRefused) {
  write_adapter();
  LoadOptions options;
  options.device = "cuda:0,1";
  expect_error(load(options), ErrorCode::kUnsupported, {"cuda:0,1", "no adapters"});
}

// Merged in float32 the model computes what base and adapter do without rounding of activations, up to the order of
// sums; in 16 bits up to the rounding of its weights, 2^-11 of each.
TEST_F(LoraTest, MergedFloatsComputeTheSame) {
  write_adapter();
  LoadOptions floats;
  floats.act_quant = false;
  const std::vector<float> expected = logits(floats);
  for (const auto& [type, bound] : {std::pair{DType::kF32, 2e-5}, {DType::kF16, 2e-3}}) {
    MergeOptions options;
    options.type = type;
    const std::string merged = folder_ / std::string(dtype_info(type).name);
    const auto report = merge_lora(base_, adapter_, merged, options);
    ASSERT_TRUE(report) << report.error().message;
    EXPECT_EQ(report->weights.size(), 14u);
    for (const MergedWeight& weight : report->weights) {
      EXPECT_GT(weight.delta, 0.01);
      EXPECT_LT(weight.error, type == DType::kF32 ? 1e-12 : 0x1p-11);
      EXPECT_GT(weight.kept, 0.9);
    }
    const auto model = Model::load(merged);
    ASSERT_TRUE(model) << model.error().message;
    EXPECT_LT(relative_rms(all_logits(*model, some_ids(40)), expected), bound);
  }
}

TEST_F(LoraTest, RequantisingTellsWhatIsLost) {
  std::erase_if(tensors_, [](const TinyTensor& t) { return t.name.find("mlp") != std::string::npos; });
  MergeOptions options;
  options.requantize = true;
  options.to_hf = false;
  write_adapter();
  const auto report = merge_lora(base_, adapter_, folder_ / "merged.gguf", options);
  ASSERT_TRUE(report) << report.error().message;
  ASSERT_EQ(report->weights.size(), 8u);
  for (const MergedWeight& weight : report->weights) {
    EXPECT_GT(weight.error, 0.01);
    EXPECT_LT(weight.error, weight.delta * 1.01);  // the base itself would have been one answer
    EXPECT_LT(weight.kept, 1);
  }
  EXPECT_TRUE(Model::load(folder_ / "merged.gguf"));
  // Nothing added: the base's codes and scales.
  scale_b(0);
  write_adapter();
  const auto same = merge_lora(base_, adapter_, folder_ / "same.gguf", options);
  ASSERT_TRUE(same) << same.error().message;
  for (const MergedWeight& weight : same->weights) {
    EXPECT_EQ(weight.flipped, 0);
    EXPECT_LT(weight.error, 1e-6);
  }
  EXPECT_EQ(all_logits(*bitnet::load_model(folder_ / "same.gguf"), some_ids(40)), base_logits());
  options.requantize = false;
  expect_error(merge_lora(base_, adapter_, folder_ / "no.gguf", options), ErrorCode::kUnsupported, {"ternary"});
}

// What we write we read, values and settings.
TEST_F(LoraTest, RoundTrip) {
  const auto checkpoint = Checkpoint::open(base_);
  ASSERT_TRUE(checkpoint);
  ThreadPool pool(1);
  const WeightSpec* v = nullptr;
  for (const WeightSpec& spec : checkpoint->weights()) {
    if (spec.role == WeightRole::kV && spec.layer == 1) v = &spec;
  }
  const std::vector<float> a = tiny_floats(1, 2 * v->shape[1], 0, 1), b = tiny_floats(2, v->shape[0] * 2, 0, 1);
  const LoraValues values{v, a.data(), b.data()};
  const LoraBase identity = *lora_base_of(*checkpoint, pool);
  BN_ASSERT_OK(write_lora_adapter({base_, identity, 2, 5, {WeightRole::kV}}, {&values, 1}, adapter_));
  for (const std::string& path : {adapter_, adapter_ + "/adapter_model.safetensors"}) {
    const auto adapter = read_lora_adapter(path, *checkpoint, pool);
    ASSERT_TRUE(adapter) << adapter.error().message;
    EXPECT_EQ(adapter->rank, 2);
    EXPECT_EQ(adapter->scale, 2.5);
    EXPECT_EQ(adapter->base.checksum, identity.checksum);
    ASSERT_NE(adapter->find(WeightRole::kV, 1), nullptr);
    EXPECT_EQ(adapter->find(WeightRole::kV, 1)->a, a);
    EXPECT_EQ(adapter->find(WeightRole::kV, 1)->b, b);
    EXPECT_EQ(adapter->find(WeightRole::kV, 0), nullptr);
  }
}

TEST(LoraTargets, AreNamed) {
  EXPECT_EQ(*parse_lora_targets("q,down"), (std::vector{WeightRole::kQ, WeightRole::kDown}));
  EXPECT_EQ(*parse_lora_targets("v_proj"), std::vector{WeightRole::kV});
  expect_error(parse_lora_targets("q,head"), ErrorCode::kInvalidArgument, {"\"head\" is no linear layer"});
  expect_error(parse_lora_targets("q,q"), ErrorCode::kInvalidArgument, {"q is named twice"});
  expect_error(parse_lora_targets(""), ErrorCode::kInvalidArgument, {"\"\" is no linear layer"});
}

}  // namespace
}  // namespace bitnet
