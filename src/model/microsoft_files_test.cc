#include "model/microsoft_gpu.h"

#include "model/checkpoint.h"
#include "model/convert.h"
#include "model/microsoft_model_test.h"
#include "model/run_model_test.h"
#include "model/tiny_model_test.h"
#include "tokenizer/chat_template.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <utility>
#include <vector>

// Checkpoints of Microsoft's GPU scripts, made here of golden Hugging Face folders. One that PyTorch wrote is among the
// models of golden_test.cc; tests/golden/make_microsoft_gpu.py packs them by other code (tests/e2e/microsoft.sh).
namespace bitnet {
namespace {

const std::string kPacked = kData + "hf/bitnet-packed";
constexpr const char* kQkv = "layers.0.attention.wqkv.weight";
constexpr const char* kW13 = "layers.1.feed_forward.w13.weight";

MicrosoftModel ms_model(MicrosoftForm form = MicrosoftForm::kInt2, const std::string& folder = kPacked) {
  const auto source = Checkpoint::open(folder);
  EXPECT_TRUE(source) << source.error().message;
  return microsoft_model(*source, form);
}

const std::vector<int32_t> kIds = {1, 2, 3, 7, 11, 200, 5, 511, 0, 42};

std::vector<float> logits_of(const std::string& path) {
  const auto model = load_model(path);
  return model ? all_logits(*model, kIds) : std::vector<float>();
}

struct Linear {
  std::vector<uint8_t> codes;
  float alpha = 0;
  bool operator==(const Linear&) const = default;
};
std::map<std::string, Linear> linears_of(const std::string& path) {
  std::map<std::string, Linear> linears;
  const auto checkpoint = Checkpoint::open(path);
  EXPECT_TRUE(checkpoint) << checkpoint.error().message;
  if (!checkpoint) return linears;
  for (const WeightSpec& spec : checkpoint->weights()) {
    if (spec.kind != WeightKind::kLinear) continue;
    const auto source = checkpoint->linear(spec);
    EXPECT_TRUE(source && source->ternary() && source->quantize_input) << spec.hf_name;
    if (!source || !source->ternary()) continue;
    const auto& ternary = std::get<TernarySource>(source->weight);
    Linear& linear = linears[spec.hf_name];
    linear.alpha = ternary.scales.tensor;
    linear.codes.resize(size_t(spec.n_values()));
    EXPECT_TRUE(ternary.read_codes(0, spec.shape[0], linear.codes.data()));
  }
  return linears;
}

TEST(MicrosoftGpu, PackedAndFloatFilesAreTheFolderTheyWereMadeOf) {
  const auto expected = logits_of(kPacked);
  const auto linears = linears_of(kPacked);
  ASSERT_EQ(linears.size(), 14u);
  for (const MicrosoftForm form : {MicrosoftForm::kInt2, MicrosoftForm::kFloats}) {
    const TestFolder folder;
    const char* name = form == MicrosoftForm::kInt2 ? "model_state_int2.pt" : "model_state_fp16.pt";
    ms_model(form).write(folder / "m", name);
    EXPECT_EQ(logits_of(folder / "m"), expected) << name;
    EXPECT_EQ(logits_of(folder / (std::string("m/") + name)), expected) << name;
    EXPECT_TRUE(linears_of(folder / "m") == linears) << name;
  }
}

TEST(MicrosoftGpu, LatentWeightsAreTernarisedPartByPart) {
  const TestFolder folder;
  const MicrosoftModel model = ms_model(MicrosoftForm::kLatent);
  model.write(folder / "m", "model_state.pt");
  const auto packed = linears_of(kPacked), found = linears_of(folder / "m");
  for (const auto& [name, linear] : found) {
    EXPECT_TRUE(linear.codes == packed.at(name).codes) << name;
    double sum = 0;  // of |w|, in units of the packed scale: the values alternate between 1 and 1.5 of it
    for (size_t i = 0; i < linear.codes.size(); ++i) sum += linear.codes[i] == 1 ? 0 : i % 2 == 0 ? 1.0 : 1.5;
    const double mean = sum / double(linear.codes.size()) * double(packed.at(name).alpha);
    EXPECT_NEAR(linear.alpha, mean, 0.01 * mean) << name;
  }
  CheckpointOptions keep;
  keep.keep_latent = true;
  const auto checkpoint = Checkpoint::open(folder / "m", keep);
  BN_ASSERT_OK(checkpoint);
  const auto linear = checkpoint->linear(checkpoint->weights()[2]);
  BN_ASSERT_OK(linear);
  EXPECT_TRUE(linear->latent && !linear->ternary());
}

TEST(MicrosoftGpu, ToGgufAndToAFolderAndBackKeepsEveryCodeAndScale) {
  const TestFolder folder;
  ms_model().write(folder / "m");
  const auto linears = linears_of(folder / "m");
  const auto expected = logits_of(folder / "m");
  for (const DType type : {DType::kI2_S, DType::kIQ2_BN}) {
    ConvertOptions options;
    options.linear_type = type;
    const auto report = convert(folder / "m", folder / "m.gguf", options);
    BN_ASSERT_OK(report);
    EXPECT_EQ(report->n_tensors, 24);  // no second table
    EXPECT_TRUE(linears_of(folder / "m.gguf") == linears);
    EXPECT_EQ(logits_of(folder / "m.gguf"), expected);
  }
  ConvertOptions to_folder;
  to_folder.to_hf = true;
  BN_ASSERT_OK(convert(folder / "m.gguf", folder / "hf", to_folder));
  EXPECT_TRUE(linears_of(folder / "hf") == linears);
  const auto back = Checkpoint::open(folder / "hf");
  BN_ASSERT_OK(back);
  microsoft_model(*back, MicrosoftForm::kInt2).write(folder / "again");
  EXPECT_EQ(*read_file(folder / "again/model_state_int2.pt"), *read_file(folder / "m/model_state_int2.pt"));
}

// What the tests above are worth: each fault that an importer could have changes what they compare.
TEST(MicrosoftGpu, FaultsShow) {
  const TestFolder folder;
  const auto expected = logits_of(kPacked);
  const auto check = [&](const char* fault, auto change) {
    MicrosoftModel model = ms_model();
    change(model);
    model.write(folder / fault);
    EXPECT_NE(logits_of(folder / fault), expected) << fault;
  };
  check("scales of k and v exchanged", [](MicrosoftModel& m) {
    auto& data = m.tensor("layers.1.attention.wqkv.weight_scale").data;
    std::swap_ranges(data.begin() + 2, data.begin() + 4, data.begin() + 4);
  });
  check("two rows of tiles exchanged", [](MicrosoftModel& m) {  // rows 0-15 and 16-31 of q
    auto& data = m.tensor(kQkv).data;
    std::swap_ranges(data.begin(), data.begin() + 16 * 64, data.begin() + 16 * 64);
  });
  check("gate and up exchanged", [](MicrosoftModel& m) {
    auto& data = m.tensor(kW13).data;
    std::swap_ranges(data.begin(), data.begin() + int64_t(data.size() / 2), data.begin() + int64_t(data.size() / 2));
  });
}

TEST(MicrosoftGpu, TwoTablesAreOneWhereTheyAreEqual) {
  const TestFolder folder;
  MicrosoftModel model = ms_model();
  model.write(folder / "twice");
  auto checkpoint = Checkpoint::open(folder / "twice");
  BN_ASSERT_OK(checkpoint);
  EXPECT_TRUE(checkpoint->config().tied_head);
  EXPECT_EQ(checkpoint->weight_types(), "I8 14, BF16 10");
  EXPECT_NE(checkpoint->torch_archive(), nullptr);
  model.tensor("output.weight").storage = 0;
  model.write(folder / "shared");
  checkpoint = Checkpoint::open(folder / "shared");
  BN_ASSERT_OK(checkpoint);
  EXPECT_TRUE(checkpoint->config().tied_head);
  model = ms_model();
  model.tensor("output.weight").data.back() ^= std::byte{1};  // in a word of the last row
  model.write(folder / "other");
  checkpoint = Checkpoint::open(folder / "other");
  BN_ASSERT_OK(checkpoint);
  EXPECT_FALSE(checkpoint->config().tied_head);
  EXPECT_NE(logits_of(folder / "other"), logits_of(folder / "twice"));
}

TEST(MicrosoftGpu, SizesComeFromTheTensorsAndWhatLiesBeside) {
  const TestFolder folder;
  MicrosoftModel model = ms_model();
  const auto expected = logits_of(kPacked);
  // The published head dimension of 128 makes 2 heads of the 4, and one of two for keys.
  model.files.clear();
  model.write(folder / "alone");
  auto checkpoint = Checkpoint::open(folder / "alone");
  BN_ASSERT_OK(checkpoint);
  const ModelConfig& c = checkpoint->config();
  EXPECT_EQ(c.architecture, "bitnet-b1.58");
  EXPECT_EQ(c.name, "alone");
  EXPECT_EQ(std::vector<int64_t>({c.n_layers, c.d_model, c.d_ff, c.n_heads, c.n_kv_heads, c.head_dim, c.vocab_size}),
            std::vector<int64_t>({2, 256, 640, 2, 1, 128, 512}));
  EXPECT_EQ(c.n_ctx_train, 4096);
  EXPECT_EQ(c.rope_theta, 500000.0);
  EXPECT_EQ(c.rms_eps, 1e-5f);
  EXPECT_TRUE(c.ternary && c.sub_norms && !c.input_norms);
  ASSERT_EQ(checkpoint->notices().size(), 1u);
  EXPECT_NE(checkpoint->notices()[0].find("heads of 128, rotary base 500000"), std::string::npos);

  model.files["params.json"] = R"({"n_heads": 4, "rope_theta": 500000, "max_seq_len": 99, "use_kernel": true, "x": 1})";
  model.write(folder / "params");
  EXPECT_EQ(logits_of(folder / "params"), expected);
  checkpoint = Checkpoint::open(folder / "params");
  BN_ASSERT_OK(checkpoint);
  EXPECT_EQ(checkpoint->config().n_ctx_train, 99);
  EXPECT_EQ(checkpoint->notices(), std::vector<std::string>{"params.json key \"x\" is unknown and was ignored"});

  struct Case {
    const char *file, *text;
    ErrorCode code;
    std::vector<std::string> words;
  };
  const auto invalid = ErrorCode::kInvalidInput, unsupported = ErrorCode::kUnsupported;
  for (const Case& bad : std::vector<Case>{
           {"params.json", R"({"n_heads": 3})", unsupported, {"heads of 85", "256"}},
           {"params.json", R"({"n_heads": 4, "n_kv_heads": 4})", invalid, {"4 heads and 4", "4 and 2 heads of 64"}},
           {"params.json", R"({"n_heads": 4, "dim": 512})", invalid, {"tok_embeddings", "[512, 256]", "[512, 512]"}},
           {"params.json", R"({"n_heads": 4, "n_layers": 3})", invalid, {"layers.2.", "missing"}},
           {"params.json", R"({"n_heads": 4, "n_layers": 1})", unsupported, {"layers.1.", "cannot be ignored"}},
           {"params.json", R"({"n_heads": 4, "vocab_size": 500})", invalid, {"tok_embeddings", "[512, 256]", "500"}},
           {"params.json", R"({"n_heads": "4"})", invalid, {"n_heads"}},
           {"params.json", R"({"n_heads": 0})", invalid, {"n_heads"}},
           {"params.json", R"({"n_heads": 4, "norm_eps": -1})", invalid, {"epsilon"}},
           {"params.json", R"({"n_heads": 4, "use_scaled_rope": true})", unsupported, {"use_scaled_rope"}},
           {"params.json", "[]", invalid, {"expected an object"}},
           {"params.json", "{", invalid, {"params.json"}},
           {"config.json", "{}", invalid, {"config.json"}},
       }) {
    SCOPED_TRACE(bad.text);
    MicrosoftModel spoilt = model;
    spoilt.files = {{bad.file, bad.text}};
    spoilt.write(folder / "bad");
    expect_error(Checkpoint::open(folder / "bad"), bad.code, bad.words);
    std::filesystem::remove_all(folder / "bad");
  }
  ModelConfig llama = tiny_config("llama");
  model.files = {{"config.json", config_to_hf(llama).dump()}};
  model.write(folder / "llama");
  expect_error(Checkpoint::open(folder / "llama"), unsupported, {"config.json", "another graph"});
}

struct Case {
  const char* id;
  std::function<void(MicrosoftModel&)> spoil;
  std::vector<std::string> words;
  ErrorCode code = ErrorCode::kInvalidInput;
};

TEST(MicrosoftGpu, Refusals) {
  const auto add = [](MicrosoftModel& m, const char* name, Shape shape) {
    const auto n = size_t(*element_count(shape));
    m.tensors.push_back({name, DType::kBF16, std::move(shape), std::vector<std::byte>(2 * n)});
  };
  const std::vector<Case> cases = {
      {"another model's archive",
       [](MicrosoftModel& m) { m.remove("tok_embeddings.weight"); },
       {"PyTorch archive of", "no tok_embeddings.weight", "Microsoft"},
       ErrorCode::kUnsupported},
      {"no head", [](MicrosoftModel& m) { m.remove("output.weight"); }, {"output.weight", "missing"}},
      {"no qkv", [](MicrosoftModel& m) { m.remove(kQkv); }, {kQkv, "missing"}},
      {"no scale", [](MicrosoftModel& m) { m.remove(std::string(kQkv) + "_scale"); }, {"wqkv.weight_scale", "missing"}},
      {"no norm",
       [](MicrosoftModel& m) { m.remove("layers.1.ffn_norm.weight"); },
       {"layers.1.ffn_norm.weight", "missing"}},
      {"scales of one part",
       [](MicrosoftModel& m) {
         auto& scale = m.tensor(std::string(kW13) + "_scale");
         scale.shape = {1};
         scale.data.resize(2);
       },
       {"w13.weight_scale", "[1]", "4 floats"}},
      {"scales as integers",
       [](MicrosoftModel& m) {
         auto& scale = m.tensor(std::string(kW13) + "_scale");
         scale.dtype = DType::kI8;
         scale.data.resize(4);
       },
       {"w13.weight_scale", "I8 [4]", "4 floats"}},
      {"scale 0",
       [](MicrosoftModel& m) {
         m.tensor(std::string(kW13) + "_scale").data[3] = m.tensor(std::string(kW13) + "_scale").data[2] = {};
       },
       {"w13.weight_scale[1:2]", "is 0"}},
      {"value 0",
       [](MicrosoftModel& m) { m.tensor(kQkv).data[64 * 256 + 5] = {}; },
       {"wqkv.weight[256:384]", "2-bit value 0"}},
      {"unpacked integers",
       [](MicrosoftModel& m) {
         auto& t = m.tensor(kQkv);
         t.shape = {512, 256};
         t.data.resize(512 * 256);
       },
       {kQkv, "[512, 256]", "[512, 64]"}},
      {"wide integers",
       [](MicrosoftModel& m) {
         auto& t = m.tensor(kQkv);
         t.dtype = DType::kI32;
         t.data.resize(512 * 64 * 4);
       },
       {kQkv, "I32", "expected I8"},
       ErrorCode::kUnsupported},
      {"rows of another layer",
       [](MicrosoftModel& m) {
         auto& t = m.tensor(kW13);
         t.shape[0] -= 16;
         t.data.resize(size_t(t.shape[0] * 64));
       },
       {kW13, "[1264, 64]", "[1280, 64]"}},
      {"no matrix", [](MicrosoftModel& m) { m.tensor(kQkv).shape = {512 * 64}; }, {kQkv, "expected a matrix"}},
      {"no room for keys",
       [](MicrosoftModel& m) {
         m.tensor(kQkv).shape = {128, 256};
       },
       {"wqkv of 128 rows", "256 rows of queries"}},
      {"norm of integers",
       [](MicrosoftModel& m) {
         auto& t = m.tensor("norm.weight");
         t.dtype = DType::kI8;
         t.data.resize(256);
       },
       {"norm.weight", "I8", "expected F32"}},
      {"bias",
       [&](MicrosoftModel& m) { add(m, "layers.0.attention.wo.bias", {256}); },
       {"wo.bias", "cannot be ignored"},
       ErrorCode::kUnsupported},
      {"scale beside floats",
       [&](MicrosoftModel& m) { add(m, "output.weight_scale", {4}); },
       {"output.weight_scale", "ignored"},
       ErrorCode::kUnsupported},
      {"layers without number",
       [&](MicrosoftModel& m) { add(m, "layers.x", {4}); },
       {"layers.x"},
       ErrorCode::kUnsupported},
      {"a billionth layer",
       [&](MicrosoftModel& m) {
         add(m, "layers.99999999999999999999.x", {4});
         m.files.clear();
       },
       {"number of layers"}},
  };
  const TestFolder folder;
  for (const Case& bad : cases) {
    SCOPED_TRACE(bad.id);
    MicrosoftModel model = ms_model();
    bad.spoil(model);
    model.write(folder / "m");
    const auto loaded = Model::load(folder / "m");
    expect_error(loaded, bad.code, bad.words);
    expect_error(loaded, bad.code, {"model_state_int2.pt"});
    std::filesystem::remove_all(folder / "m");
  }
  // A tensor that nobody knows is noted.
  MicrosoftModel model = ms_model();
  add(model, "rope.freqs", {32});
  model.write(folder / "m");
  const auto checkpoint = Checkpoint::open(folder / "m");
  BN_ASSERT_OK(checkpoint);
  EXPECT_EQ(checkpoint->notices(), std::vector<std::string>{"tensor \"rope.freqs\" is unknown and was ignored"});
}

TEST(MicrosoftGpu, PartsThatAreNoWholeTiles) {
  // 5 heads of 64 over one; d_ff 704 of 3 layers; a vocabulary of 515: whole tiles all of them.
  const TestFolder folder;
  const std::string odd = kData + "hf/bitnet-odd-shapes";
  ms_model(MicrosoftForm::kInt2, odd).write(folder / "odd");
  EXPECT_EQ(logits_of(folder / "odd"), logits_of(odd));
  // Heads of 8 cut a tile of 16 rows, where q has one of them.
  MicrosoftModel model;
  const auto bf16 = [&](const std::string& name, const Shape& shape) {
    model.tensors.push_back({name, DType::kBF16, shape, std::vector<std::byte>(2 * size_t(*element_count(shape)))});
  };
  const auto packed = [&](const std::string& name, int64_t n_rows, int64_t n_cols) {
    model.tensors.push_back(
        {name, DType::kI8, {n_rows, n_cols / 4}, std::vector<std::byte>(size_t(n_rows * n_cols / 4), std::byte{0xaa})});
    bf16(name + "_scale", {4});
  };
  bf16("tok_embeddings.weight", {32, 32});
  bf16("output.weight", {32, 32});
  bf16("norm.weight", {32});
  packed("layers.0.attention.wqkv.weight", 48, 32);
  packed("layers.0.attention.wo.weight", 32, 32);
  packed("layers.0.feed_forward.w13.weight", 64, 32);
  packed("layers.0.feed_forward.w2.weight", 32, 32);
  for (const char* name : {"attention_norm", "ffn_norm", "attention.attn_sub_norm", "feed_forward.ffn_sub_norm"}) {
    bf16(std::string("layers.0.") + name + ".weight", {32});
  }
  model.files["params.json"] = R"({"head_dim": 8})";
  model.write(folder / "cut");
  expect_error(Checkpoint::open(folder / "cut"), ErrorCode::kUnsupported,
               {"rows 32 to 40", "wqkv.weight", "whole tiles of 16 rows and 32 columns"});
}

// 256 tokens of a byte and the 256 special ones.
std::string byte_ranks() {
  constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (int byte = 0; byte < 256; ++byte) {
    text += {kDigits[byte >> 2], kDigits[(byte & 3) << 4], '=', '='};
    text += " " + std::to_string(byte) + "\n";
  }
  return text;
}

TEST(MicrosoftGpu, VocabularyBesideOrAbove) {
  const TestFolder folder;
  MicrosoftModel model = ms_model();
  model.write(folder / "gpu/checkpoints");
  auto checkpoint = Checkpoint::open(folder / "gpu/checkpoints");
  BN_ASSERT_OK(checkpoint);
  EXPECT_FALSE(checkpoint->vocabulary());
  BN_ASSERT_OK(write_file_atomically(folder / "gpu/tokenizer.model", byte_ranks()));
  checkpoint = Checkpoint::open(folder / "gpu/checkpoints/model_state_int2.pt");
  BN_ASSERT_OK(checkpoint);
  ASSERT_TRUE(checkpoint->vocabulary());
  const Vocabulary above = *checkpoint->vocabulary();
  EXPECT_EQ(above.tokens.size(), 512u);
  EXPECT_EQ(above.pre, "llama-bpe");
  EXPECT_EQ(above.bos_id, 256);
  EXPECT_EQ(above.stop_ids, (std::vector<int32_t>{257, 265}));
  EXPECT_EQ(above.chat_template, kBitNet2b4tTemplate);
  EXPECT_NE(checkpoint->notices().back().find("checkpoints/../tokenizer.model"), std::string::npos);
  BN_ASSERT_OK(convert(folder / "gpu/checkpoints", folder / "m.gguf", {}));
  const auto gguf = Checkpoint::open(folder / "m.gguf");
  BN_ASSERT_OK(gguf);
  EXPECT_EQ(gguf->vocabulary()->tokens, above.tokens);
  EXPECT_EQ(gguf->vocabulary()->chat_template, above.chat_template);

  model.files["tokenizer.model"] = byte_ranks();
  model.write(folder / "beside");
  checkpoint = Checkpoint::open(folder / "beside");
  BN_ASSERT_OK(checkpoint);
  ASSERT_TRUE(checkpoint->vocabulary());
  EXPECT_EQ(checkpoint->vocabulary()->tokens, above.tokens);
  EXPECT_TRUE(checkpoint->notices().empty());
}

TEST(MicrosoftGpu, WhichFileAPathMeans) {
  const TestFolder folder;
  const MicrosoftModel model = ms_model();
  model.write(folder / "m", "model_state.pt");
  EXPECT_EQ(find_microsoft_gpu(folder / "m"), folder / "m/model_state.pt");
  model.write(folder / "m", "model_state_fp16.pt");
  EXPECT_EQ(find_microsoft_gpu(folder / "m"), folder / "m/model_state_fp16.pt");
  model.write(folder / "m", "model_state_int2.pt");
  EXPECT_EQ(find_microsoft_gpu(folder / "m"), folder / "m/model_state_int2.pt");
  EXPECT_EQ(find_microsoft_gpu(folder / "m/model_state.pt"), folder / "m/model_state.pt");
  EXPECT_EQ(find_microsoft_gpu(folder / "m/config.json"), std::nullopt);
  EXPECT_EQ(find_microsoft_gpu(folder / "nothing"), std::nullopt);
  BN_ASSERT_OK(write_file_atomically(folder / "m/model.safetensors", "x"));  // a Hugging Face folder
  EXPECT_EQ(find_microsoft_gpu(folder / "m"), std::nullopt);
}

TEST(MicrosoftGpu, IdentityFollowsTheFileAndItsConfig) {
  const TestFolder folder;
  MicrosoftModel model = ms_model();
  model.write(folder / "m");
  const std::string before = Checkpoint::open(folder / "m")->identity();
  EXPECT_EQ(Checkpoint::open(folder / "m")->identity(), before);
  BN_ASSERT_OK(write_file_atomically(folder / "m/config.json", model.files["config.json"] + "\n"));
  EXPECT_NE(Checkpoint::open(folder / "m")->identity(), before);
}

}  // namespace
}  // namespace bitnet
