#pragma once

#include "base/file.h"
#include "base/rng.h"
#include "bitnet/bitnet.h"

#include <gtest/gtest.h>
#include <unistd.h>
#include <nlohmann/json.hpp>

#include <filesystem>
#include <string>
#include <vector>

// The models that the runtime's tests run: tiny random ones from tests/data/hf, and a vocabulary made to fit them.
namespace bitnet {

inline std::string tiny_path(const std::string& name) {
  return std::string(BITNET_SOURCE_DIR "/tests/data/hf/") + name;
}

inline Model load_tiny(const std::string& name, const std::string& tokenizer_path = {},
                       HeadMode head = HeadMode::kAuto) {
  LoadOptions options;
  options.head = head;
  options.n_threads = 1;
  options.tokenizer_path = tokenizer_path;
  Result<Model> model = Model::load(tiny_path(name), options);
  if (!model) {
    ADD_FAILURE() << "cannot load " << name << ": " << model.error().message;
    std::abort();
  }
  return *std::move(model);
}

inline Session new_session(const Model& model, int64_t chunk = 256, int n_threads = 1, KvType kv_type = KvType::kF16,
                           int64_t n_ctx = 0) {
  SessionOptions options;
  options.n_ctx = n_ctx;
  options.chunk = chunk;
  options.n_threads = n_threads;
  options.kv_type = kv_type;
  Result<Session> session = model.new_session(options);
  if (!session) {
    ADD_FAILURE() << session.error().message;
    std::abort();
  }
  return *std::move(session);
}

inline std::vector<int32_t> random_ids(int64_t n, int64_t vocab_size, uint64_t seed = 1) {
  const CounterRng rng(seed);
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < n; ++i) ids.push_back(int32_t(rng.bits(uint64_t(i)) % uint64_t(vocab_size)));
  return ids;
}

inline std::vector<float> copy(std::span<const float> values) { return {values.begin(), values.end()}; }

inline int32_t argmax(std::span<const float> logits) {
  return int32_t(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

// A folder with a byte-level vocabulary of 512 tokens that fits the tiny models: id 1 begins a text, `eos_id` ends it,
// the others are single bytes and pairs of a letter and a byte. Many pairs are not UTF-8: a hard test of streaming.
class TinyVocabulary {
 public:
  explicit TinyVocabulary(int32_t eos_id = 2) {
    static int n_made = 0;
    folder_ = testing::TempDir() + "bitnet_vocabulary_" + std::to_string(::getpid()) + "_" + std::to_string(n_made++);
    std::filesystem::create_directories(folder_);
    nlohmann::json vocab = nlohmann::json::object(), merges = nlohmann::json::array();
    const auto special = [&](int32_t id) { return id == 1 ? "<|begin|>" : id == eos_id ? "<|end|>" : nullptr; };
    int32_t id = 0;
    const auto add = [&](const std::string& text) {
      for (; special(id) != nullptr; ++id) vocab[special(id)] = id;
      if (id == 512) return false;
      vocab[text] = id++;
      return true;
    };
    for (int byte = 0; byte < 256; ++byte) add(alphabet(byte));
    int byte = 1;
    while (id < 512) {
      byte = (byte + 37) % 256;
      const std::string letter = alphabet('a' + (byte / 2) % 26);
      if (vocab.contains(letter + alphabet(byte))) continue;
      if (add(letter + alphabet(byte))) merges.push_back(letter + " " + alphabet(byte));
    }
    const auto added = [&](int32_t added_id) {
      return nlohmann::json{
          {"id", added_id},  {"content", special(added_id)}, {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false},          {"special", true}};
    };
    const nlohmann::json byte_level = {
        {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
    const nlohmann::json tokenizer = {{"version", "1.0"},
                                      {"added_tokens", {added(1), added(eos_id)}},
                                      {"normalizer", nullptr},
                                      {"pre_tokenizer", byte_level},
                                      {"post_processor", nullptr},
                                      {"decoder", byte_level},
                                      {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", merges}}}};
    const nlohmann::json config = {{"bos_token", "<|begin|>"}, {"eos_token", "<|end|>"}, {"add_bos_token", true}};
    EXPECT_TRUE(write_file_atomically(folder_ + "/tokenizer.json", tokenizer.dump()));
    EXPECT_TRUE(write_file_atomically(folder_ + "/tokenizer_config.json", config.dump()));
  }
  ~TinyVocabulary() { std::filesystem::remove_all(folder_); }
  TinyVocabulary(const TinyVocabulary&) = delete;
  TinyVocabulary& operator=(const TinyVocabulary&) = delete;

  const std::string& folder() const { return folder_; }

 private:
  // GPT-2's printable stand-in for a byte, as UTF-8.
  static std::string alphabet(int byte) {
    const auto printable = [](int b) { return (b >= 33 && b <= 126) || (b >= 161 && b != 173); };
    int code = byte;
    if (!printable(byte)) {
      code = 256;
      for (int b = 0; b < byte; ++b) code += printable(b) ? 0 : 1;
    }
    if (code < 128) return std::string(1, char(code));
    return {char(0xc0 | code >> 6), char(0x80 | (code & 0x3f))};
  }
  std::string folder_;
};

}  // namespace bitnet
