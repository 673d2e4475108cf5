#include "model/quantize_model.h"

#include "base/half.h"
#include "model/checkpoint.h"
#include "model/tiny_model_test.h"
#include "quant/blocks.h"
#include "quant/ternary.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

namespace bitnet {
namespace {

std::string fixture(const std::string& name) { return std::string(BITNET_SOURCE_DIR) + "/tests/data/hf/" + name; }

QuantizeOptions by(const std::string& linears, const std::string& tables = "keep") {
  QuantizeOptions options;
  options.linears = *parse_scheme(linears);
  options.tables = *parse_scheme(tables);
  return options;
}

struct Linear {
  std::vector<uint8_t> codes;
  TernaryScales scales;
};
Linear read_linear(const Checkpoint& checkpoint, const WeightSpec& spec) {
  Linear linear;
  const auto source = checkpoint.linear(spec);
  EXPECT_TRUE(source) << source.error().message;
  EXPECT_TRUE(source && source->ternary()) << spec.gguf_name;
  if (!source || !source->ternary()) return linear;
  const auto& ternary = std::get<TernarySource>(source->weight);
  linear.scales = ternary.scales;
  linear.codes.resize(size_t(spec.n_values()));
  EXPECT_TRUE(ternary.read_codes(0, spec.shape[0], linear.codes.data()));
  return linear;
}
// A weight's values as the engine multiplies with them.
std::vector<float> read_values(const Checkpoint& checkpoint, const WeightSpec& spec) {
  std::vector<float> values(size_t(spec.n_values()));
  FloatSource floats;
  if (spec.kind == WeightKind::kTable) {
    floats = *checkpoint.table(spec);
  } else {
    const auto source = checkpoint.linear(spec);
    EXPECT_TRUE(source) << source.error().message;
    if (source->ternary()) {
      const Linear linear = read_linear(checkpoint, spec);
      for (int64_t i = 0; i < spec.n_values(); ++i) {
        const float alpha = ternary_scale_at(linear.scales, spec.shape[1], i / spec.shape[1], i % spec.shape[1]);
        values[size_t(i)] = alpha * float(int(linear.codes[size_t(i)]) - 1);
      }
      return values;
    }
    floats = std::get<FloatSource>(source->weight);
  }
  std::vector<std::byte> bytes(*tensor_bytes(floats.dtype, spec.shape));
  EXPECT_TRUE(floats.read_rows(0, spec.shape[0], bytes.data()));
  EXPECT_TRUE(dequantize(floats.dtype, bytes, spec.n_values(), values.data()));
  return values;
}

// The reference's online mode on bfloat16 masters, as its code has it: s = 1 / max(mean|w|, 1e-5), codes
// clamp(round half even(w s), -1, 1), weights codes / s.
TEST(QuantizeModel, MastersGetTheReferencesCodesAndScales) {
  const TestFolder folder;
  const std::string master = fixture("bitnet-bf16-master");
  for (const char* scheme : {"absmean", "keep"}) {
    BN_ASSERT_OK(quantize_model(master, folder / "m.gguf", by(scheme)));
    const auto quantized = Checkpoint::open(folder / "m.gguf"), online = Checkpoint::open(master);
    BN_ASSERT_OK(quantized);
    BN_ASSERT_OK(online);
    CheckpointOptions latent;
    latent.keep_latent = true;
    const auto floats = Checkpoint::open(master, latent);
    for (const WeightSpec& spec : quantized->weights()) {
      if (spec.kind != WeightKind::kLinear) continue;
      const Linear got = read_linear(*quantized, spec), reference = read_linear(*online, spec);
      EXPECT_EQ(got.codes, reference.codes) << spec.gguf_name;
      EXPECT_EQ(got.scales.tensor, reference.scales.tensor) << spec.gguf_name;
      const std::vector<float> w = read_values(*floats, spec);
      double sum = 0;
      for (const float v : w) sum += std::fabs(double(v));
      const float s = 1.0f / std::max(float(sum / double(w.size())), 1e-5f);
      EXPECT_EQ(got.scales.tensor, 1.0f / s);
      for (size_t i = 0; i < w.size(); ++i) {
        EXPECT_EQ(int(got.codes[i]) - 1, int(std::clamp(std::nearbyint(w[i] * s), -1.0f, 1.0f))) << i;
      }
    }
  }
}

// A Llama model whose linears are floats of any value, 256 and 512 wide.
void write_float_model(const std::string& path) {
  TinyGguf model = tiny_gguf(tiny_config("llama"), DType::kF32);
  uint64_t seed = 100;
  for (TinyTensor& tensor : model.tensors) {
    if (tensor.shape.size() < 2 || tensor.name == "token_embd.weight" || tensor.name == "output.weight") continue;
    const std::vector<float> values = tiny_floats(++seed, tensor.shape[0] * tensor.shape[1], 0.0, 0.03);
    tensor = float_tensor(tensor.name, DType::kF32, tensor.shape, values);
  }
  model.write(path);
}

TEST(QuantizeModel, EverySchemeGivesAFileThatTheEngineReads) {
  const TestFolder folder;
  const std::string source = folder / "source.gguf";
  write_float_model(source);
  const auto original = Checkpoint::open(source);
  BN_ASSERT_OK(original);
  for (const char* scheme : {"lsq", "twn:per=row", "absmedian:group=64", "learned:group=256", "absmean:store=iq1_bn",
                             "q1_0", "q2_k", "q3_k", "q4_0", "q4_1", "q4_k", "q5_0", "q5_1", "q5_k", "q6_k", "q8_0",
                             "int3:group=32", "int4:per=column,asym,store=bf16"}) {
    QuantizeOptions options = by(scheme, "q6_k");
    const auto report = quantize_model(source, folder / "q.gguf", options);
    ASSERT_TRUE(report) << scheme << ": " << report.error().message;
    const auto read = Checkpoint::open(folder / "q.gguf");
    ASSERT_TRUE(read) << scheme << ": " << read.error().message;
    ASSERT_EQ(report->weights.size(), read->weights().size());
    for (size_t i = 0; i < report->weights.size(); ++i) {
      const WeightSpec& spec = read->weights()[i];
      const WeightReport& weight = report->weights[i];
      EXPECT_EQ(weight.name, spec.gguf_name);
      EXPECT_EQ(weight.bytes, read->stored(spec).size_bytes) << scheme << ' ' << weight.name;
      if (spec.kind == WeightKind::kVector) continue;
      // The report's error is that of the values in the file.
      ErrorMeter meter;
      meter.add(read_values(*original, spec), read_values(*read, spec));
      EXPECT_NEAR(weight.error.mse, meter.metrics().mse, 1e-9 + 1e-6 * weight.error.mse)
          << scheme << ' ' << weight.name;
      EXPECT_GT(weight.error.cosine, 0.7) << scheme << ' ' << weight.name;
    }
  }
}

TEST(QuantizeModel, TernaryWeightsKeepTheirCodesUnderTernarySchemes) {
  const TestFolder folder;
  const std::string source = folder / "source.gguf";
  tiny_gguf(tiny_config("bitnet-b1.58")).write(source);
  const auto original = Checkpoint::open(source);
  BN_ASSERT_OK(original);
  for (const char* scheme :
       {"keep", "lsq:store=tq1_0", "absmean:store=iq2_bn", "twn:store=q2_0", "absmean:store=iq1_bn"}) {
    const auto report = quantize_model(source, folder / "t.gguf", by(scheme));
    ASSERT_TRUE(report) << scheme << ": " << report.error().message;
    const auto read = Checkpoint::open(folder / "t.gguf");
    BN_ASSERT_OK(read);
    for (const WeightSpec& spec : read->weights()) {
      if (spec.kind != WeightKind::kLinear) continue;
      const Linear before = read_linear(*original, spec), after = read_linear(*read, spec);
      EXPECT_EQ(after.codes, before.codes) << scheme;
      const bool sixteen = std::string(scheme) == "twn:store=q2_0";  // has no table of exact scales
      EXPECT_EQ(after.scales.tensor, sixteen ? f16_to_f32(f32_to_f16(before.scales.tensor)) : before.scales.tensor)
          << scheme;
    }
  }
}

TEST(QuantizeModel, PlansSayWhichWeight) {
  const TestFolder folder;
  QuantizeOptions options = by("q8_0", "q8_0");
  const auto plan =
      parse_quant_plan(R"({"weights": {"blk.0.ffn_up.weight": "q4_0", "token_embd.weight": "f16"}})", "p");
  BN_ASSERT_OK(plan);
  options.plan = *plan;
  const auto report = quantize_model(fixture("bitnet-bf16-master"), folder / "p.gguf", options);
  BN_ASSERT_OK(report);
  for (const WeightReport& weight : report->weights) {
    const std::string expected = weight.name == "blk.0.ffn_up.weight" ? "Q4_0"
                                 : weight.name == "token_embd.weight" ? "F16"
                                 : weight.shape.size() == 1           ? "F32"
                                                                      : "Q8_0";
    EXPECT_EQ(weight.type, expected) << weight.name;
  }
  options.plan.emplace("blk.99.x", *parse_scheme("q4_0"));
  expect_error(quantize_model(fixture("bitnet-bf16-master"), folder / "p.gguf", options), ErrorCode::kInvalidArgument,
               {"blk.99.x"});
  EXPECT_FALSE(parse_quant_plan("[]", "p"));
  EXPECT_FALSE(parse_quant_plan(R"({"weights": {"a": 3}})", "p"));
  expect_error(parse_quant_plan(R"({"weights": {"a": "q9"}})", "p"), ErrorCode::kInvalidArgument, {"q9"});
}

TEST(QuantizeModel, WhatCannotBeWrittenIsRefusedBeforeAFileAppears) {
  const TestFolder folder;
  expect_error(quantize_model(fixture("bitnet-bf16-master"), folder / "no.gguf", by("absmean", "absmean")),
               ErrorCode::kUnsupported, {"token_embd"});
  EXPECT_FALSE(std::filesystem::exists(folder / "no.gguf"));
  // Widths that fill no block.
  EXPECT_FALSE(quantize_model(fixture("bitnet-odd-shapes"), folder / "no.gguf", by("q4_k")));
  EXPECT_FALSE(std::filesystem::exists(folder / "no.gguf"));
}

TEST(ConvertPacked, IsLosslessAndRepairsItself) {
  const TestFolder folder;
  ConvertOptions options;
  options.packed = true;
  const std::string source = fixture("bitnet-odd-shapes");
  BN_ASSERT_OK(convert(source, folder / "p.gguf", options));
  const auto original = Checkpoint::open(source), packed = Checkpoint::open(folder / "p.gguf");
  BN_ASSERT_OK(packed);
  uint64_t begin = 0, size = 0;
  for (const WeightSpec& spec : packed->weights()) {
    if (spec.kind != WeightKind::kLinear) continue;
    const Linear before = read_linear(*original, spec), after = read_linear(*packed, spec);
    EXPECT_EQ(after.codes, before.codes) << spec.gguf_name;
    EXPECT_EQ(after.scales.tensor, before.scales.tensor);
    begin = packed->stored(spec).offset_bytes;
    size = packed->stored(spec).size_bytes;
  }
  // Damage in the last linear's data is repaired, and a new file is whole.
  auto text = *read_file(folder / "p.gguf");
  text[size_t(begin + size / 3)] ^= char(0x55);
  BN_ASSERT_OK(write_file_atomically(folder / "damaged.gguf", text));
  const auto report = convert(folder / "damaged.gguf", folder / "whole.gguf", options);
  BN_ASSERT_OK(report);
  bool told = false;
  for (const std::string& notice : report->notices) told |= notice.find("restored") != std::string::npos;
  EXPECT_TRUE(told);
  const auto whole = Checkpoint::open(folder / "whole.gguf");
  BN_ASSERT_OK(whole);
  for (const WeightSpec& spec : whole->weights()) {
    if (spec.kind == WeightKind::kLinear) {
      EXPECT_EQ(read_linear(*whole, spec).codes, read_linear(*original, spec).codes) << spec.gguf_name;
    }
  }
}

}  // namespace
}  // namespace bitnet
