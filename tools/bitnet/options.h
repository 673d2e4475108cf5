#pragma once

#include "cli.h"

#include "bitnet/generate.h"
#include "bitnet/model.h"
#include "bitnet/session.h"
#include "model/model.h"
#include "tensor/dtype.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace bitnet::cli {

// Flags that several commands share. The add_ functions declare them; the others turn them into the library's options.

struct ModelFlags {
  std::string model;
  std::string device = "cpu";
  int n_threads = 0;
  std::string i2s_layout = "x86";
  std::string tokenizer;
  std::string pre;
  std::string head = "auto";
  std::string ffn = "sparse";
  std::string cache = "auto";
  std::string lora;
};
void add_model_flags(CLI::App& command, ModelFlags& flags);
// Without -m: for commands that name their models in another way.
void add_device_flags(CLI::App& command, ModelFlags& flags);
void add_threads_flag(CLI::App& command, int& n_threads);
void add_i2s_layout_flag(CLI::App& command, std::string& layout);
void add_head_flag(CLI::App& command, std::string& head);
void add_ffn_flag(CLI::App& command, std::string& ffn);
void add_cache_flag(CLI::App& command, std::string& cache);
void add_lora_flag(CLI::App& command, std::string& lora);
// "adapter/:0.5" as path and scale; without a number at its end it is all path, and the scale 1.
struct LoraName {
  std::string path;
  double scale = 1;
};
LoraName parse_lora(const std::string& text);
// What a command wants of the output head, unless its flags say otherwise.
enum class Logits : uint8_t { kAll, kBest };
// Shows progress and the model's notices on stderr. `options` holds what is not in the flags.
Result<Model> load_model(const Invocation& invocation, const ModelFlags& flags, Logits logits,
                         LoadOptions options = {});
Result<Model> load_model(const Invocation& invocation, const ModelFlags& flags, Logits logits, LoadOptions options,
                         MeasuringOptions measuring);
Result<const Tokenizer*> tokenizer_of(const Model& model);  // an error that says what to do without one

struct SessionFlags {
  int64_t n_ctx = 0;
  int64_t chunk = 256;
  std::string kv = "f16";
};
void add_session_flags(CLI::App& command, SessionFlags& flags);
void add_kv_flag(CLI::App& command, std::string& kv);
KvType kv_type(const std::string& kv);  // of what that flag allows
SessionOptions session_options(const SessionFlags& flags, int n_threads);

struct SamplingFlags {
  SamplingOptions sampling;
  std::optional<uint64_t> seed;  // nothing: drawn
  std::vector<std::string> stop;
  bool ignore_eos = false;
  int64_t max_draft = 0;
};
void add_sampling_flags(CLI::App& command, SamplingFlags& flags);
GenerateOptions generate_options(const SamplingFlags& flags);
Logits wanted_logits(const SamplingFlags& flags);  // of the head by this sampling

// Text from -p, from -f ("-" is the standard input), or from the standard input when it is not a terminal. A file's
// bytes are taken as they are.
struct TextFlags {
  std::string text;
  bool has_text = false;  // -p was given, maybe empty
  std::string file;
};
void add_text_flags(CLI::App& command, TextFlags& flags, const std::string& what);
Result<std::string> read_text(const TextFlags& flags, const std::string& what, const std::string& example);
Result<std::string> read_path_or_stdin(const std::string& path);

// "1,2,3", with or without spaces and brackets.
Result<std::vector<int32_t>> parse_ids(const std::string& text, const std::string& where);

Result<DType> parse_type(const std::string& name, const std::string& flag);

}  // namespace bitnet::cli
