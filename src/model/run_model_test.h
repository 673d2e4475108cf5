#pragma once

#include "bitnet/model.h"
#include "bitnet/session.h"
#include "kernels/backend.h"
#include "model/forward.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace bitnet {

// forward() with a cache of its own: what a session is, without sampling.
class TestRun {
 public:
  TestRun(const Model& model, int64_t n_ctx, int n_threads, KvType kv_type = KvType::kF32);
  // Appends the ids in chunks and gives every position's logits [n, vocab_size].
  std::vector<float> append(std::span<const int32_t> ids, int64_t chunk);
  int64_t n_past() const { return n_past_; }
  // Forgets all positions from here on.
  void truncate(int64_t n_past) { n_past_ = n_past; }

 private:
  const ModelImpl& model_;
  std::unique_ptr<Stream> stream_;
  Workspace workspace_;
  RopeTables rope_;
  std::vector<Buffer> memory_;
  std::vector<KvLayer> kv_;
  int64_t n_past_ = 0;
};

std::vector<float> all_logits(const Model& model, std::span<const int32_t> ids, int64_t chunk = 32, int n_threads = 1);

// sqrt(sum (a - b)^2 / sum b^2)
double relative_rms(std::span<const float> a, std::span<const float> b);
// A loaded model, or null after a test failure with the error's text.
std::unique_ptr<Model> load_model(const std::string& path, const std::string& device = "cpu", bool act_quant = true);

// The golden models, as paths under kData, and the folder that holds a model's golden logits: its own, or the one that
// a file was made of.
inline const std::string kData = BITNET_SOURCE_DIR "/tests/data/";
inline std::vector<std::string> golden_models() {
  std::vector<std::string> paths;
  for (const std::string parent : {"gguf", "hf", "microsoft"}) {
    for (const auto& entry : std::filesystem::directory_iterator(kData + parent)) {
      paths.push_back(parent + "/" + entry.path().filename().string());
    }
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}
inline std::string golden_folder(const std::string& model) {
  if (std::filesystem::exists(kData + model + "/golden.safetensors")) return kData + model;
  const std::string stem = std::filesystem::path(model).filename().string();
  return kData + "hf/" + stem.substr(0, stem.find('.'));
}
inline std::string golden_model_name(const ::testing::TestParamInfo<std::string>& instance) {
  std::string name = instance.param;
  std::replace_if(
      name.begin(), name.end(), [](unsigned char c) { return std::isalnum(c) == 0; }, '_');
  return name;
}

}  // namespace bitnet
