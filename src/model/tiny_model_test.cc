#include "model/tiny_model_test.h"

#include "base/half.h"
#include "base/rng.h"
#include "quant/blocks.h"
#include "quant/ternary.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>

namespace bitnet {
namespace {

float tiny_alpha(size_t index) { return 0.02f + 0.001f * float(index % 7); }

// F32, F16, BF16 or the block types that quantize() writes.
std::vector<std::byte> encode(DType dtype, const Shape& shape, const std::vector<float>& values) {
  const int64_t n_cols = shape.back(), n_rows = int64_t(values.size()) / n_cols;
  auto bytes = quantize(dtype, values, n_rows, n_cols);
  EXPECT_TRUE(bytes) << bytes.error().message;
  return bytes ? *bytes : std::vector<std::byte>();
}

TinyTensor packed_tensor(const std::string& name, DType dtype, TernaryLayout layout, const WeightSpec& spec,
                         size_t index) {
  TernaryScales scales;
  scales.tensor = tiny_alpha(index);
  const std::vector<uint8_t> codes = tiny_codes(index, spec.n_values());
  auto bytes = encode_ternary(layout, spec.shape[0], spec.shape[1], codes, scales);
  EXPECT_TRUE(bytes) << bytes.error().message;
  const Shape shape = dtype == DType::kU8 ? Shape{(spec.shape[0] + 3) / 4, spec.shape[1]} : spec.shape;
  return {name, dtype, shape, bytes ? *bytes : std::vector<std::byte>()};
}

TinyTensor gguf_tensor(const WeightSpec& spec, DType linear_type, size_t index) {
  if (spec.kind == WeightKind::kVector) {
    return float_tensor(spec.gguf_name, DType::kF32, spec.shape, tiny_floats(index, spec.n_values(), 1.0, 0.1));
  }
  if (spec.kind == WeightKind::kTable) {
    return float_tensor(spec.gguf_name, DType::kF16, spec.shape, tiny_floats(index, spec.n_values(), 0.0, 1.0));
  }
  switch (linear_type) {
    case DType::kI2_S: return packed_tensor(spec.gguf_name, linear_type, TernaryLayout::kI2S, spec, index);
    case DType::kTQ1_0: return packed_tensor(spec.gguf_name, linear_type, TernaryLayout::kTQ1_0, spec, index);
    case DType::kTQ2_0: return packed_tensor(spec.gguf_name, linear_type, TernaryLayout::kTQ2_0, spec, index);
    default: break;
  }
  std::vector<float> values;
  for (const uint8_t code : tiny_codes(index, spec.n_values())) {
    values.push_back(float(int(code) - 1) * tiny_alpha(index));
  }
  return float_tensor(spec.gguf_name, linear_type, spec.shape, values);
}

template <class Tensors>
auto find_tensor(Tensors& tensors, const std::string& name) {
  const auto it = std::find_if(tensors.begin(), tensors.end(), [&](const TinyTensor& t) { return t.name == name; });
  EXPECT_NE(it, tensors.end()) << name;
  return it;
}

}  // namespace

ModelConfig tiny_config(const std::string& architecture) {
  ModelConfig c;
  c.architecture = architecture;
  c.name = "tiny";
  c.n_layers = 2;
  c.d_model = 256;
  c.d_ff = 512;
  c.n_heads = 4;
  c.n_kv_heads = 2;
  c.head_dim = c.rope_dim = 64;
  c.vocab_size = 48;
  c.n_ctx_train = 128;
  const bool llama = architecture == "llama";
  c.gate_activation = llama || architecture == "bitnet" ? GateActivation::kSilu : GateActivation::kRelu2;
  c.sub_norms = !llama;
  c.tied_head = !llama;
  return c;
}

std::vector<float> tiny_floats(uint64_t seed, int64_t n, double mean, double deviation) {
  const CounterRng rng(seed);
  std::vector<float> values;
  for (int64_t i = 0; i < n; ++i) values.push_back(float(mean + deviation * rng.normal(uint64_t(i))));
  return values;
}

std::vector<uint8_t> tiny_codes(uint64_t seed, int64_t n) {
  const CounterRng rng(seed, 1);
  std::vector<uint8_t> codes;
  for (int64_t i = 0; i < n; ++i) codes.push_back(uint8_t(rng.bits(uint64_t(i)) % 3));
  return codes;
}

TinyTensor float_tensor(std::string name, DType dtype, const Shape& shape, const std::vector<float>& values) {
  return {std::move(name), dtype, shape, encode(dtype, shape, values)};
}

void TinyGguf::set(const std::string& key, GgufValue value) {
  for (auto& [name, old] : metadata) {
    if (name == key) {
      old = std::move(value);
      return;
    }
  }
  metadata.emplace_back(key, std::move(value));
}
void TinyGguf::remove(const std::string& key) {
  std::erase_if(metadata, [&](const auto& entry) { return entry.first == key; });
}
TinyTensor& TinyGguf::tensor(const std::string& name) { return *find_tensor(tensors, name); }
void TinyGguf::remove_tensor(const std::string& name) { tensors.erase(find_tensor(tensors, name)); }

void TinyGguf::write(const std::string& path, bool checksums) const {
  auto writer = GgufWriter::create(path);
  BN_ASSERT_OK(writer);
  for (const auto& [key, value] : metadata) BN_ASSERT_OK(writer->add_metadata(key, value));
  for (const TinyTensor& t : tensors) BN_ASSERT_OK(writer->add_tensor(t.name, t.dtype, t.shape));
  if (checksums) BN_ASSERT_OK(writer->add_checksums());
  BN_ASSERT_OK(writer->begin_data());
  for (const TinyTensor& t : tensors) BN_ASSERT_OK(writer->write_data(t.data));
  BN_ASSERT_OK(writer->finish());
}

TinyGguf tiny_gguf(const ModelConfig& c, DType linear_type) {
  TinyGguf file;
  const std::string prefix = c.architecture + ".";
  file.set("general.architecture", c.architecture);
  file.set("general.name", c.name);
  file.set(prefix + "vocab_size", uint32_t(c.vocab_size));
  file.set(prefix + "context_length", uint32_t(c.n_ctx_train));
  file.set(prefix + "embedding_length", uint32_t(c.d_model));
  file.set(prefix + "block_count", uint32_t(c.n_layers));
  file.set(prefix + "feed_forward_length", uint32_t(c.d_ff));
  file.set(prefix + "rope.dimension_count", uint32_t(c.rope_dim));
  file.set(prefix + "rope.freq_base", float(c.rope_theta));
  file.set(prefix + "attention.head_count", uint32_t(c.n_heads));
  file.set(prefix + "attention.head_count_kv", uint32_t(c.n_kv_heads));
  file.set(prefix + "attention.layer_norm_rms_epsilon", c.rms_eps);
  size_t index = 0;
  for (const WeightSpec& spec : list_weights(c)) file.tensors.push_back(gguf_tensor(spec, linear_type, index++));
  return file;
}

TinyTensor& TinyFolder::tensor(const std::string& name) { return *find_tensor(tensors, name); }
void TinyFolder::remove_tensor(const std::string& name) { tensors.erase(find_tensor(tensors, name)); }

void TinyFolder::write(const std::string& path) const {
  std::filesystem::create_directories(path);
  BN_ASSERT_OK(write_file_atomically(path + "/config.json", config.dump()));
  auto writer = SafetensorsWriter::create(path + "/model.safetensors");
  BN_ASSERT_OK(writer);
  for (const TinyTensor& t : tensors) BN_ASSERT_OK(writer->add_tensor(t.name, t.dtype, t.shape));
  BN_ASSERT_OK(writer->begin_data());
  for (const TinyTensor& t : tensors) BN_ASSERT_OK(writer->write_data(t.data));
  BN_ASSERT_OK(writer->finish());
}

TinyFolder tiny_folder(const ModelConfig& c) {
  TinyFolder folder;
  folder.config = config_to_hf(c);
  size_t index = 0;
  for (const WeightSpec& spec : list_weights(c)) {
    if (spec.kind == WeightKind::kLinear) {
      folder.tensors.push_back(packed_tensor(spec.hf_name, DType::kU8, TernaryLayout::kHfPacked, spec, index));
      folder.tensors.push_back(float_tensor(spec.hf_scale_name, DType::kF32, {1}, {tiny_alpha(index)}));
    } else {
      const double mean = spec.kind == WeightKind::kVector ? 1.0 : 0.0, deviation = mean == 1.0 ? 0.1 : 1.0;
      folder.tensors.push_back(
          float_tensor(spec.hf_name, DType::kBF16, spec.shape, tiny_floats(index, spec.n_values(), mean, deviation)));
    }
    ++index;
  }
  return folder;
}

TestFolder::TestFolder() {
  // In memory where that is possible: writers sync each file, which takes its time on a busy disk.
  const bool memory = ::access("/dev/shm", W_OK) == 0;
  const auto base = memory ? std::filesystem::path("/dev/shm") : std::filesystem::temp_directory_path();
  std::string name = (base / "bitnet-test-XXXXXX").string();
  EXPECT_NE(::mkdtemp(name.data()), nullptr);
  path_ = name;
}
TestFolder::~TestFolder() {
  std::error_code error;
  std::filesystem::remove_all(path_, error);
}

}  // namespace bitnet
