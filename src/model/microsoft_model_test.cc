#include "model/microsoft_model_test.h"

#include "base/half.h"
#include "model/tiny_model_test.h"
#include "quant/blocks.h"
#include "quant/ternary.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <utility>

namespace bitnet {

using testing::ArchiveTensor;

ArchiveTensor& MicrosoftModel::tensor(const std::string& name) {
  for (ArchiveTensor& t : tensors) {
    if (t.name == name) return t;
  }
  ADD_FAILURE() << name << " is not there";
  return tensors.front();
}

void MicrosoftModel::remove(const std::string& name) {
  std::erase_if(tensors, [&](const ArchiveTensor& t) { return t.name == name; });
}

void MicrosoftModel::write(const std::string& folder, const std::string& name) const {
  std::filesystem::create_directories(folder);
  BN_ASSERT_OK(write_file_atomically(folder + "/" + name, testing::torch_parts(tensors).file()));
  for (const auto& [file, text] : files) BN_ASSERT_OK(write_file_atomically(folder + "/" + file, text));
}

namespace {

struct Part {
  WeightRole role;
  bool rotates = false;
};

std::vector<std::byte> as_bytes(const void* data, size_t size_bytes) {
  const auto* begin = static_cast<const std::byte*>(data);
  return {begin, begin + size_bytes};
}

class Builder {
 public:
  Builder(const Checkpoint& source, MicrosoftForm form) : source_(source), form_(form) {}

  MicrosoftModel build() {
    const ModelConfig& c = source_.config();
    floats("tok_embeddings.weight", spec(WeightRole::kTokenEmbedding, -1));
    for (int64_t layer = 0; layer < c.n_layers; ++layer) {
      const std::string prefix = "layers." + std::to_string(layer) + ".";
      const std::string attention = prefix + "attention.", ffn = prefix + "feed_forward.";
      linear(attention + "wqkv.weight", layer, {{WeightRole::kQ, true}, {WeightRole::kK, true}, {WeightRole::kV}});
      linear(attention + "wo.weight", layer, {{WeightRole::kO}});
      linear(ffn + "w13.weight", layer, {{WeightRole::kGate}, {WeightRole::kUp}});
      linear(ffn + "w2.weight", layer, {{WeightRole::kDown}});
      floats(prefix + "attention_norm.weight", spec(WeightRole::kAttnNorm, layer));
      floats(prefix + "ffn_norm.weight", spec(WeightRole::kFfnNorm, layer));
      floats(attention + "attn_sub_norm.weight", spec(WeightRole::kAttnSubNorm, layer));
      floats(ffn + "ffn_sub_norm.weight", spec(WeightRole::kFfnSubNorm, layer));
    }
    floats("norm.weight", spec(WeightRole::kOutputNorm, -1));
    ArchiveTensor head = out_.tensor("tok_embeddings.weight");
    head.name = "output.weight";
    out_.tensors.push_back(head);
    out_.files["config.json"] = config_to_hf(c).dump();
    return std::move(out_);
  }

 private:
  const WeightSpec& spec(WeightRole role, int64_t layer) const {
    for (const WeightSpec& s : source_.weights()) {
      if (s.role == role && s.layer == layer) return s;
    }
    ADD_FAILURE() << "no such weight";
    return source_.weights().front();
  }

  void add_bf16(const std::string& name, const Shape& shape, const std::vector<float>& values) {
    std::vector<uint16_t> bits;
    for (const float value : values) {
      EXPECT_TRUE(form_ == MicrosoftForm::kLatent || bf16_to_f32(f32_to_bf16(value)) == value) << name;
      bits.push_back(f32_to_bf16(value));
    }
    out_.tensors.push_back({name, DType::kBF16, shape, as_bytes(bits.data(), bits.size() * 2)});
  }

  void floats(const std::string& name, const WeightSpec& s) {
    if (s.kind == WeightKind::kVector) return add_bf16(name, s.shape, *source_.read_vector(s));
    const FloatSource table = *source_.table(s);
    std::vector<std::byte> rows(*tensor_bytes(table.dtype, s.shape));
    EXPECT_TRUE(table.read_rows(0, table.n_rows, rows.data()));
    std::vector<float> values(size_t(s.n_values()));
    EXPECT_TRUE(dequantize(table.dtype, rows, s.n_values(), values.data()));
    add_bf16(name, s.shape, values);
  }

  void linear(const std::string& name, int64_t layer, const std::vector<Part>& parts) {
    std::vector<uint8_t> codes;
    std::vector<float> values, scales;
    int64_t n_cols = 0;
    for (const Part& part : parts) {
      const LinearSource source = *source_.linear(spec(part.role, layer));
      const auto& ternary = std::get<TernarySource>(source.weight);
      n_cols = ternary.n_cols;
      scales.push_back(ternary.scales.tensor);
      std::vector<uint8_t> row(static_cast<size_t>(n_cols));
      const int64_t head_dim = source_.config().head_dim, half = head_dim / 2;
      for (int64_t r = 0; r < ternary.n_rows; ++r) {
        const int64_t i = r % head_dim;  // (h l d) -> (h d l): row i is half i % 2, dimension i / 2
        const int64_t from = part.rotates ? r - i + i % 2 * half + i / 2 : r;
        EXPECT_TRUE(ternary.read_codes(from, 1, row.data()));
        codes.insert(codes.end(), row.begin(), row.end());
        for (const uint8_t code : row) values.push_back(latent(code, scales.back(), values.size()));
      }
    }
    const auto n_rows = int64_t(codes.size()) / n_cols;
    if (form_ != MicrosoftForm::kInt2) return add_bf16(name, {n_rows, n_cols}, values);
    auto bytes = encode_ternary(TernaryLayout::kMsGpu, n_rows, n_cols, codes, {});
    EXPECT_TRUE(bytes) << bytes.error().message;
    out_.tensors.push_back({name, DType::kI8, {n_rows, n_cols / 4}, *bytes});
    scales.resize(4);
    add_bf16(name + "_scale", {4}, scales);
  }

  // Negative zeros as rounding leaves them; values that round to the code, for latent ones.
  float latent(uint8_t code, float scale, size_t i) const {
    if (form_ == MicrosoftForm::kLatent) return scale * (float(code) - 1.0f) * (i % 2 == 0 ? 1.0f : 1.5f);
    return code == 1 && i % 2 == 0 ? -0.0f : scale * (float(code) - 1.0f);
  }

  const Checkpoint& source_;
  const MicrosoftForm form_;
  MicrosoftModel out_;
};

}  // namespace

MicrosoftModel microsoft_model(const Checkpoint& source, MicrosoftForm form) { return Builder(source, form).build(); }

}  // namespace bitnet
