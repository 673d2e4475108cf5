#include "bitnet/model.h"
#include "model/checkpoint.h"
#include "model/tiny_model_test.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>

// Files that contradict themselves, by the numbers of the reliability checklist: each must give an error that names the
// file and the tensor. Metadata (M01-M08) are in config_gguf_test.cc, config.json (ST25) in config_hf_test.cc.
namespace bitnet {
namespace {

constexpr const char* kQ = "blk.1.attn_q.weight";
constexpr const char* kHfQ = "model.layers.1.self_attn.q_proj.weight";
constexpr const char* kHfScale = "model.layers.1.self_attn.q_proj.weight_scale";

struct Case {
  const char* id;
  std::function<void(TinyGguf&)> spoil;
  std::vector<std::string> words;
  ErrorCode code = ErrorCode::kInvalidInput;
};

Result<Model> load(const TinyGguf& gguf) {
  const TestFolder folder;
  gguf.write(folder / "m.gguf");
  return Model::load(folder / "m.gguf");
}
Result<Model> load(const TinyFolder& tiny) {
  const TestFolder folder;
  tiny.write(folder / "m");
  return Model::load(folder / "m");
}

TinyTensor f32_zeros(const char* name, const Shape& shape) {
  return float_tensor(name, DType::kF32, shape, std::vector<float>(size_t(*element_count(shape))));
}

void add_vocabulary(TinyGguf& gguf, size_t n_tokens) {
  std::vector<std::string> tokens;
  for (size_t i = 0; i < n_tokens; ++i) tokens.push_back("<t" + std::to_string(i) + ">");
  gguf.set("tokenizer.ggml.model", std::string("gpt2"));
  gguf.set("tokenizer.ggml.pre", std::string("gpt-2"));
  gguf.set("tokenizer.ggml.tokens", GgufArray(tokens));
  gguf.set("tokenizer.ggml.merges", GgufArray(std::vector<std::string>()));
}

// Overwrites bytes of a tensor.
template <class T>
void poke(TinyTensor& tensor, size_t offset, T value) {
  std::memcpy(tensor.data.data() + offset, &value, sizeof value);
}

TEST(MalformedModelTest, Gguf) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<Case> cases = {
      {"M02 more layers than tensors",
       [](TinyGguf& g) { g.set("bitnet-b1.58.block_count", uint32_t{3}); },
       {"blk.2.", "missing"}},
      {"M02 fewer layers than tensors",
       [](TinyGguf& g) { g.set("bitnet-b1.58.block_count", uint32_t{1}); },
       {"blk.1.", "layer"},
       ErrorCode::kUnsupported},
      {"M09 rows",
       [](TinyGguf& g) { g.set("bitnet-b1.58.vocab_size", uint32_t{49}); },
       {"token_embd.weight", "[48, 256]", "[49, 256]"}},
      {"M09 one token", [](TinyGguf& g) { add_vocabulary(g, 1); }, {}},
      {"M09 more tokens", [](TinyGguf& g) { add_vocabulary(g, 49); }, {}},
      {"M09 no tokens", [](TinyGguf& g) { add_vocabulary(g, 0); }, {}},
      {"M10", [](TinyGguf& g) { g.remove_tensor(kQ); }, {kQ, "missing", "[256, 256]"}},
      {"M10 embedding", [](TinyGguf& g) { g.remove_tensor("token_embd.weight"); }, {"token_embd.weight", "missing"}},
      {"M11",
       [](TinyGguf& g) {
         g.tensor("blk.0.ffn_up.weight").shape = {256, 512};
       },
       {"blk.0.ffn_up.weight", "[256, 512]", "[512, 256]"}},
      {"M12", [](TinyGguf& g) { g.tensor(kQ).shape = {65536}; }, {kQ, "[65536]", "[256, 256]"}},
      {"M12 norm",
       [](TinyGguf& g) {
         g.tensor("output_norm.weight").shape = {1, 256};
       },
       {"output_norm.weight", "[1, 256]", "[256]"}},
      {"M13 bias",
       [](TinyGguf& g) { g.tensors.push_back(f32_zeros("blk.0.attn_q.bias", {256})); },
       {"blk.0.attn_q.bias", "bias"},
       ErrorCode::kUnsupported},
      {"M13 frequencies",
       [](TinyGguf& g) { g.tensors.push_back(f32_zeros("rope_freqs.weight", {32})); },
       {"rope_freqs.weight", "rotary"},
       ErrorCode::kUnsupported},
      {"M13 q norm",
       [](TinyGguf& g) { g.tensors.push_back(f32_zeros("blk.0.attn_q_norm.weight", {64})); },
       {"blk.0.attn_q_norm.weight", "norm"},
       ErrorCode::kUnsupported},
      {"M13 experts",
       [](TinyGguf& g) { g.tensors.push_back(f32_zeros("blk.0.ffn_up_exps.weight", {64})); },
       {"ffn_up_exps", "experts"},
       ErrorCode::kUnsupported},
      {"M14",
       [](TinyGguf& g) { g.remove_tensor("blk.0.ffn_sub_norm.weight"); },
       {"blk.0.ffn_sub_norm.weight", "missing"}},
      {"M15",
       [](TinyGguf& g) { g.tensors.push_back(f32_zeros("blk.0.attn_q.scale", {2})); },
       {"blk.0.attn_q.scale", "[2]"}},
      {"M15 zero",
       [](TinyGguf& g) { g.tensors.push_back(f32_zeros("blk.0.attn_q.scale", {1})); },
       {"blk.0.attn_q.scale", "0"}},
      {"M16",
       [](TinyGguf& g) {
         g.tensor(kQ) = float_tensor(kQ, DType::kF32, {256, 256}, tiny_floats(1, 65536, 0, 1));
       },
       {kQ, "F32", "ternary"},
       ErrorCode::kUnsupported},
      {"M16 norm",
       [](TinyGguf& g) {
         g.tensor("output_norm.weight") =
             float_tensor("output_norm.weight", DType::kQ8_0, {256}, std::vector<float>(256, 1.0f));
       },
       {"output_norm.weight", "Q8_0", "F32"}},
      {"M16 table",
       [](TinyGguf& g) {
         TinyTensor& table = g.tensor("token_embd.weight");
         table = {table.name, DType::kI8, table.shape, std::vector<std::byte>(48 * 256)};
       },
       {"token_embd.weight", "I8"},
       ErrorCode::kUnsupported},
      {"B01", [](TinyGguf& g) { poke(g.tensor(kQ), 100, uint8_t{0xff}); }, {kQ, "code 3"}},
      {"B03 NaN", [nan](TinyGguf& g) { poke(g.tensor(kQ), 16384, nan); }, {kQ, "scale"}},
      {"B03 zero", [](TinyGguf& g) { poke(g.tensor(kQ), 16384, 0.0f); }, {kQ, "scale"}},
      {"B03 negative", [](TinyGguf& g) { poke(g.tensor(kQ), 16384, -0.5f); }, {kQ, "scale", "-0.5"}},
      {"B03 denormal", [](TinyGguf& g) { poke(g.tensor(kQ), 16384, 1e-40f); }, {kQ, "scale"}},
      {"B07",
       [nan](TinyGguf& g) { poke(g.tensor("blk.1.ffn_norm.weight"), 40, nan); },
       {"blk.1.ffn_norm.weight", "value 10"}},
      {"B08",
       [](TinyGguf& g) { poke(g.tensor("token_embd.weight"), 2 * (256 * 30 + 7), uint16_t{0x7e00}); },
       {"token_embd.weight", "row 30", "column 7"}},
  };
  for (const Case& bad : cases) {
    SCOPED_TRACE(bad.id);
    TinyGguf gguf = tiny_gguf(tiny_config("bitnet-b1.58"));
    bad.spoil(gguf);
    const auto result = load(gguf);
    expect_error(result, bad.code, bad.words);
    expect_error(result, bad.code, {"m.gguf"});
  }
}

TEST(MalformedModelTest, UnknownTensorsAreNoted) {  // M13
  TinyGguf gguf = tiny_gguf(tiny_config("bitnet-b1.58"));
  gguf.tensors.push_back(f32_zeros("blk.0.mystery.weight", {64}));
  const auto model = load(gguf);
  BN_ASSERT_OK(model);
  ASSERT_EQ(model->info().notices.size(), 1u);
  EXPECT_NE(model->info().notices[0].find("blk.0.mystery.weight"), std::string::npos);
}

TEST(MalformedModelTest, NamesCannotDriveATerminal) {
  const TinyGguf good = tiny_gguf(tiny_config("bitnet-b1.58"));
  TinyGguf gguf = good;
  gguf.set("general.architecture", std::string("\x1b[31m") + std::string(1 << 20, 'x'));
  const auto refused = load(gguf);
  expect_error(refused, ErrorCode::kUnsupported, {R"("\x1b[31mxxx)"});
  EXPECT_LT(refused.error().message.size(), 1000u);
  gguf = good;
  gguf.tensors.push_back(f32_zeros("blk.0.\x1b[31m.bias", {64}));
  expect_error(load(gguf), ErrorCode::kUnsupported, {R"("blk.0.\x1b[31m.bias")"});

  gguf = good;
  for (int i = 0; i < 20; ++i) gguf.set("bitnet-b1.58.\x1b" + std::to_string(i), uint32_t{1});
  const auto model = load(gguf);
  BN_ASSERT_OK(model);
  ASSERT_EQ(model->info().notices.size(), 9u);
  EXPECT_EQ(model->info().notices[0], R"(metadata key "bitnet-b1.58.\x1b0" is unknown and was ignored)");
  EXPECT_EQ(model->info().notices[8], "12 more unknown metadata keys were ignored");
}

TEST(MalformedModelTest, Folder) {
  struct FolderCase {
    const char* id;
    std::function<void(TinyFolder&)> spoil;
    std::vector<std::string> words;
    ErrorCode code = ErrorCode::kInvalidInput;
  };
  const std::vector<FolderCase> cases = {
      {"ST27 rows",
       [](TinyFolder& f) {
         f.tensor(kHfQ).shape = {128, 128};
       },
       {kHfQ, "[128, 128]", "[64, 256]"}},
      {"ST27 unpacked",
       [](TinyFolder& f) {
         f.tensor(kHfQ).shape = {256, 256};
         f.tensor(kHfQ).data.resize(65536);
       },
       {kHfQ, "[256, 256]", "[64, 256]"}},
      {"ST28 missing", [](TinyFolder& f) { f.remove_tensor(kHfScale); }, {kHfQ, kHfScale, "missing"}},
      {"ST28 empty",
       [](TinyFolder& f) {
         f.tensor(kHfScale) = {kHfScale, DType::kF32, {0}, {}};
       },
       {kHfScale, "[0]", "one float"}},
      {"ST28 two", [](TinyFolder& f) { f.tensor(kHfScale) = f32_zeros(kHfScale, {2}); }, {kHfScale, "[2]"}},
      {"ST28 zero", [](TinyFolder& f) { f.tensor(kHfScale) = f32_zeros(kHfScale, {1}); }, {kHfScale, "0"}},
      {"ST28 type",
       [](TinyFolder& f) {
         f.tensor(kHfScale) = {kHfScale, DType::kI32, {1}, std::vector<std::byte>(4)};
       },
       {kHfScale, "I32"}},
      {"B01", [](TinyFolder& f) { poke(f.tensor(kHfQ), 300, uint8_t{0xc0}); }, {kHfQ, "row 193", "column 44"}},
      {"missing norm", [](TinyFolder& f) { f.remove_tensor("model.norm.weight"); }, {"model.norm.weight", "missing"}},
      {"bias",
       [](TinyFolder& f) { f.tensors.push_back(f32_zeros("model.layers.0.mlp.up_proj.bias", {512})); },
       {"up_proj.bias", "bias"},
       ErrorCode::kUnsupported},
      {"packed without quantisation",
       [](TinyFolder& f) { f.config.erase("quantization_config"); },
       {"q_proj.weight", "quantization_config"}},
      {"packed and online",
       [](TinyFolder& f) { f.config["quantization_config"]["quantization_mode"] = "online"; },
       {"q_proj.weight", "online"}},
      {"packed and listed",
       [](TinyFolder& f) { f.config["quantization_config"]["modules_to_not_convert"] = {"q_proj"}; },
       {"q_proj.weight", "modules_to_not_convert"}},
      {"float with a scale",
       [](TinyFolder& f) {
         f.tensor(kHfQ) = float_tensor(kHfQ, DType::kBF16, {256, 256}, std::vector<float>(65536, 0.5f));
       },
       {kHfQ, kHfScale},
       ErrorCode::kUnsupported},
  };
  for (const FolderCase& bad : cases) {
    SCOPED_TRACE(bad.id);
    TinyFolder folder = tiny_folder(tiny_config("bitnet-b1.58"));
    bad.spoil(folder);
    expect_error(load(folder), bad.code, bad.words);
  }
}

TEST(MalformedModelTest, FolderWithoutItsFiles) {
  const TestFolder folder;
  std::filesystem::create_directories(folder / "m");
  expect_error(Model::load(folder / "m"), ErrorCode::kInvalidInput, {"config.json"});
  ASSERT_TRUE(write_file_atomically(folder / "m/config.json", "{\"hidden_size\": 1"));
  expect_error(Model::load(folder / "m"), ErrorCode::kInvalidInput, {"config.json"});
  ASSERT_TRUE(write_file_atomically(folder / "m/config.json", tiny_folder(tiny_config("llama")).config.dump()));
  expect_error(Model::load(folder / "m"), ErrorCode::kInvalidInput, {"model.safetensors"});
}

TEST(MalformedModelTest, ShardsOutsideTheFolder) {  // ST24
  const TestFolder folder;
  const TinyFolder tiny = tiny_folder(tiny_config("bitnet-b1.58"));
  tiny.write(folder / "m");
  std::filesystem::rename(folder / "m/model.safetensors", folder / "outside.safetensors");
  const std::string outside = folder / "outside.safetensors";
  for (const std::string& shard :
       {std::string("../outside.safetensors"), outside, std::string("missing.safetensors")}) {
    SCOPED_TRACE(shard);
    Json index = {{"metadata", Json::object()}, {"weight_map", Json::object()}};
    for (const TinyTensor& tensor : tiny.tensors) index["weight_map"][tensor.name] = shard;
    ASSERT_TRUE(write_file_atomically(folder / "m/model.safetensors.index.json", index.dump()));
    expect_error(Model::load(folder / "m"), ErrorCode::kInvalidInput, {"safetensors"});
  }
}

TEST(ModelNameTest, IsLookedUpInTheModelsFolder) {
  const TestFolder folder;
  tiny_gguf(tiny_config("llama")).write(folder / "tiny.gguf");
  ASSERT_EQ(::setenv("BITNET_MODELS", (folder / "").c_str(), 1), 0);
  BN_ASSERT_OK(Model::load("tiny"));
  BN_ASSERT_OK(Model::load("tiny.gguf"));
  expect_error(Model::load("other"), ErrorCode::kInvalidInput, {"other", "other.gguf"});
  ASSERT_EQ(::unsetenv("BITNET_MODELS"), 0);
  expect_error(Model::load("no/such/file.gguf"), ErrorCode::kInvalidInput, {"no/such/file.gguf"});
  expect_error(Model::load(""), ErrorCode::kInvalidArgument, {"model"});
  LoadOptions options;
  options.device = "abacus";
  EXPECT_FALSE(Model::load(folder / "tiny.gguf", options));
}

TEST(ModelInfoTest, CountsWhatThereIs) {
  const TestFolder folder;
  const ModelConfig c = tiny_config("llama");
  tiny_gguf(c).write(folder / "tiny.gguf", true);
  LoadOptions options;
  std::vector<double> progress;
  options.on_progress = [&progress](double done) { progress.push_back(done); };
  const auto model = Model::load(folder / "tiny.gguf", options);
  BN_ASSERT_OK(model);
  const ModelInfo& info = model->info();
  const uint64_t linears = 2 * (256 * 256 * 2 + 128 * 256 * 2 + 3 * 256 * 512), tables = 2 * 48 * 256, norms = 5 * 256;
  EXPECT_EQ(uint64_t(info.n_parameters), linears + tables + norms);
  EXPECT_EQ(info.ops_per_token, 2 * linears);
  EXPECT_GE(info.bytes_per_token, linears / 5 + tables);  // ternary at 1.6 bits or more, the head in float16
  EXPECT_LE(info.bytes_per_token, linears / 2 + 2 * tables);
  EXPECT_GE(info.memory_bytes, info.bytes_per_token);
  EXPECT_EQ(info.file_bytes, std::filesystem::file_size(folder / "tiny.gguf"));
  EXPECT_EQ(info.weight_types, "I2_S 14, F32 5, F16 2");
  EXPECT_EQ(info.architecture, "llama");
  EXPECT_EQ(model->tokenizer(), nullptr);
  ASSERT_EQ(progress.size(), 21u);
  EXPECT_TRUE(std::is_sorted(progress.begin(), progress.end()));
  EXPECT_EQ(progress.back(), 1.0);
}

}  // namespace
}  // namespace bitnet
