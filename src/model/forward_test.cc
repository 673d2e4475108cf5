#include "model/forward.h"
#include "kernels/reference/reference_backend.h"

#include "model/run_model_test.h"
#include "model/tiny_model_test.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>

// What the golden folders do not cover: other kinds of layers and the errors of forward().
namespace bitnet {
namespace {

std::vector<int32_t> some_ids(int64_t n) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < n; ++i) ids.push_back(int32_t((i * 29 + 5) % 48));
  return ids;
}

template <class File>
std::vector<float> logits_of(const File& file, const std::string& device = "cpu", bool act_quant = true) {
  const TestFolder folder;
  file.write(folder / "m");
  const auto model = load_model(folder / "m", device, act_quant);
  return model ? all_logits(*model, some_ids(12), 5, 2) : std::vector<float>();
}
// The reference back end's, after checking that the CPU's are the same.
template <class File>
std::vector<float> checked_logits(const File& file) {
  const auto reference = logits_of(file, "reference");
  EXPECT_EQ(logits_of(file, "cpu"), reference);
  return reference;
}

TEST(ForwardTest, FileTypesThatHoldTheSameWeightsAgree) {
  for (const char* architecture : {"bitnet", "llama"}) {
    const ModelConfig c = tiny_config(architecture);
    const auto tq = checked_logits(tiny_gguf(c, DType::kTQ2_0));
    EXPECT_EQ(logits_of(tiny_gguf(c, DType::kTQ1_0)), tq);
    if (c.architecture == "bitnet") {  // exactly ternary floats
      EXPECT_EQ(logits_of(tiny_gguf(c, DType::kF16)), tq);
    }
    EXPECT_LT(relative_rms(checked_logits(tiny_gguf(c, DType::kI2_S)), tq), 0.2);
  }
}

// GGUF's permuted rows of q and k give the bits that a folder's give.
TEST(ForwardTest, PermutedRowsGiveTheSameLogits) {
  const ModelConfig gguf_config = tiny_config("llama");
  TinyFolder hf = tiny_folder(gguf_config);
  const auto expected = checked_logits(hf);
  // A weight stored as F32 floats of both files; the GGUF one with its rows permuted head by head.
  TinyGguf gguf = tiny_gguf(gguf_config, DType::kF32);
  gguf.set("bitnet.quantized_inputs", true);
  for (const TinyTensor& table : hf.tensors) {
    const bool norm_or_table = table.dtype == DType::kBF16;
    if (!norm_or_table) continue;
    for (const WeightSpec& spec : list_weights(gguf_config)) {
      if (spec.hf_name == table.name)
        gguf.tensor(spec.gguf_name) = {spec.gguf_name, table.dtype, table.shape, table.data};
    }
  }
  for (const WeightSpec& spec : list_weights(gguf_config)) {
    if (spec.role != WeightRole::kQ && spec.role != WeightRole::kK) continue;
    TinyTensor& tensor = gguf.tensor(spec.gguf_name);
    const std::vector<std::byte> rows = tensor.data;
    const int64_t row_bytes = spec.shape[1] * 4, half = gguf_config.head_dim / 2;
    for (int64_t row = 0; row < spec.shape[0]; ++row) {
      const int64_t head = row / gguf_config.head_dim, i = row % gguf_config.head_dim;
      const int64_t to = head * gguf_config.head_dim + 2 * (i % half) + i / half;
      std::copy_n(rows.begin() + row * row_bytes, row_bytes, tensor.data.begin() + to * row_bytes);
    }
  }
  EXPECT_EQ(checked_logits(gguf), expected);
}

TEST(ForwardTest, InputNormsComeBeforeEachLinear) {
  ModelConfig plain = tiny_config("bitnet-b1.58"), normed = plain;
  normed.input_norms = true;
  const auto without = checked_logits(tiny_folder(plain));
  const auto with = checked_logits(tiny_folder(normed));
  EXPECT_GT(relative_rms(with, without), 1e-3);
  // Changing one linear's norm changes the result: the right vector goes to the right place.
  for (const char* linear :
       {"self_attn.q_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj"}) {
    TinyFolder folder = tiny_folder(normed);
    const std::string name = std::string("model.layers.0.") + linear + ".rms_norm.weight";
    TinyTensor& norm = folder.tensor(name);
    std::vector<float> values(size_t(norm.shape[0]), 1.0f);
    values[3] = 20.0f;
    norm = float_tensor(name, DType::kF32, norm.shape, values);
    EXPECT_GT(relative_rms(logits_of(folder), with), 1e-4) << linear;
  }
}

TEST(ForwardTest, FloatLinearsInTernaryModels) {
  const std::string name = "blk.0.ffn_down.weight";
  const auto values = tiny_floats(3, 256 * 512, 0.0, 0.02);
  TinyGguf gguf = tiny_gguf(tiny_config("llama"));
  const auto ternary = checked_logits(gguf);
  gguf.tensor(name) = float_tensor(name, DType::kF16, {256, 512}, values);
  const auto rounded = checked_logits(gguf);
  EXPECT_GT(relative_rms(rounded, ternary), 0.01);
  gguf.tensor(name) = float_tensor(name, DType::kF32, {256, 512}, values);
  EXPECT_LT(relative_rms(checked_logits(gguf), rounded), 0.05);
  // A float linear of the values that are ternary gives what the ternary one gives, up to float rounding.
  TinyGguf exact = tiny_gguf(tiny_config("llama"), DType::kQ8_0);
  exact.set("bitnet.quantized_inputs", true);
  EXPECT_LT(relative_rms(checked_logits(exact), checked_logits(tiny_gguf(tiny_config("llama"), DType::kTQ2_0))), 0.05);
}

TEST(ForwardTest, StopsAndReportsNumericErrors) {
  const TestFolder folder;
  tiny_gguf(tiny_config("llama")).write(folder / "m");
  const auto model = load_model(folder / "m");
  ASSERT_TRUE(model);
  const ModelImpl& impl = *model->impl();
  auto stream = impl.backend->new_stream({1, 4, 512, 8});
  BN_ASSERT_OK(stream);
  auto workspace = Workspace::create(impl, 4);
  BN_ASSERT_OK(workspace);
  EXPECT_FALSE(Workspace::create(impl, 0));
  std::vector<float> cache(4 * 2 * 8 * 64);
  const KvLayer kv[2] = {{cache.data(), cache.data() + 1024, DType::kF32, 2, 8, 64},
                         {cache.data() + 2048, cache.data() + 3072, DType::kF32, 2, 8, 64}};
  const RopeTables rope = *make_rope_tables(*impl.backend, impl.config, 8);
  std::vector<float> logits(48);
  const int32_t ids[] = {1, 2};
  const std::atomic<bool> stop{true};
  expect_error(forward(impl, **stream, *workspace, kv, rope.view, ids, 0, {{logits.data(), 1, 48}}, stop),
               ErrorCode::kInterrupted, {"stopped"});
  const std::atomic<bool> go{false};
  BN_ASSERT_OK(forward(impl, **stream, *workspace, kv, rope.view, ids, 0, {{logits.data(), 1, 48}}, go));
  const auto every = all_logits(*model, ids);
  EXPECT_EQ(logits, std::vector<float>(every.begin() + 48, every.end()));

  // Finite weights whose products are not.
  TinyGguf large = tiny_gguf(tiny_config("llama"));
  large.tensor("output_norm.weight") =
      float_tensor("output_norm.weight", DType::kF32, {256}, std::vector<float>(256, 3e38f));
  large.write(folder / "large.gguf");
  const auto overflowing = load_model(folder / "large.gguf");
  ASSERT_TRUE(overflowing);
  expect_error(forward(*overflowing->impl(), **stream, *workspace, kv, rope.view, ids, 0, {{logits.data(), 1, 48}}, go),
               ErrorCode::kInvalidInput, {"large.gguf", "position 1", "finite"});
}

TEST(ForwardTest, RopeTables) {
  ModelConfig c = tiny_config("llama");
  c.rope_dim = 8;
  c.rope_theta = 10000.0;
  const ReferenceBackend backend;
  const auto made = make_rope_tables(backend, c, 3);
  ASSERT_TRUE(made);
  const RopeTables& tables = *made;
  EXPECT_EQ(tables.view.n_pairs, 4);
  EXPECT_EQ(tables.view.n_positions, 3);
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(tables.view.cos[i], 1.0f);
    EXPECT_EQ(tables.view.sin[2 * 4 + i], float(std::sin(2.0 * std::pow(10.0, -i))));
    EXPECT_EQ(tables.view.cos[1 * 4 + i], float(std::cos(std::pow(10.0, -i))));
  }
}

}  // namespace
}  // namespace bitnet
