#include "options.h"

#include "base/file.h"
#include "base/thread_pool.h"
#include "interrupt.h"
#include "output.h"
#include "progress.h"
#include "runtime/sampler.h"

#include <CLI/CLI.hpp>

#include <cstdlib>
#include <map>
#include <random>
#include <string_view>

namespace bitnet::cli {

void add_threads_flag(CLI::App& command, int& n_threads) {
  command.add_option("-t,--threads", n_threads, "Threads; 0: all processors of this process")
      ->check(CLI::Range(0, 1024).description(""))
      ->capture_default_str();
}

void add_i2s_layout_flag(CLI::App& command, std::string& layout) {
  command.add_option("--i2s-layout", layout, "Layout of the file's I2_S tensors: x86 (what is published) or arm64")
      ->check(CLI::IsMember({"x86", "arm64"}))
      ->capture_default_str();
}

void add_head_flag(CLI::App& command, std::string& head) {
  command
      .add_option("--head", head,
                  "Output head: full (all in memory), certified (a coarse copy finds the best tokens: less memory read "
                  "and held, the same results), or auto")
      ->check(CLI::IsMember({"auto", "full", "certified"}))
      ->capture_default_str();
}

void add_ffn_flag(CLI::App& command, std::string& ffn) {
  command
      .add_option(
          "--ffn", ffn,
          "Feed-forward layers with squared ReLU: sparse (generating, leaves out what is zero: less memory read, "
          "the same results) or dense")
      ->check(CLI::IsMember({"sparse", "dense"}))
      ->capture_default_str();
}

void add_cache_flag(CLI::App& command, std::string& cache) {
  command
      .add_option("--cache", cache,
                  "File beside the model with its weights as they lie in memory, which a start then maps instead of "
                  "laying them out: auto (used where it is there), write (made anew), or off")
      ->check(CLI::IsMember({"auto", "write", "off"}))
      ->capture_default_str();
}

void add_lora_flag(CLI::App& command, std::string& lora) {
  command.add_option(
      "--lora", lora,
      "Low-rank adapter of the model: PEFT's folder, such as `bitnet finetune --lora-rank` writes, or its "
      "safetensors file; ADAPTER:0.5 counts it half");
}

LoraName parse_lora(const std::string& text) {
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos || colon + 1 == text.size()) return {text};
  const char* const number = text.c_str() + colon + 1;
  char* end = nullptr;
  const double scale = std::strtod(number, &end);
  if (*end != '\0') return {text};
  return {text.substr(0, colon), scale};
}

void add_device_flags(CLI::App& command, ModelFlags& flags) {
  command
      .add_option("--device", flags.device,
                  "Back end: cpu, cuda or cuda:N (an NVIDIA GPU, where built), cuda:N,M,... (GPUs that share the "
                  "model), or reference (slow, the definition of every result)")
      ->capture_default_str();
  add_threads_flag(command, flags.n_threads);
  add_i2s_layout_flag(command, flags.i2s_layout);
  add_head_flag(command, flags.head);
  add_ffn_flag(command, flags.ffn);
  add_cache_flag(command, flags.cache);
}

void add_model_flags(CLI::App& command, ModelFlags& flags) {
  command
      .add_option("-m,--model", flags.model,
                  "GGUF file, Hugging Face folder, Microsoft's model_state_int2.pt, or the name of a model in "
                  "$BITNET_MODELS or ./models")
      ->required();
  add_device_flags(command, flags);
  command.add_option("--tokenizer", flags.tokenizer, "Vocabulary to use instead of the model's own");
  command.add_option("--pre", flags.pre, "Pre-tokenizer to use instead of the one that the vocabulary names");
  add_lora_flag(command, flags.lora);
}

Result<Model> load_model(const Invocation& invocation, const ModelFlags& flags, Logits logits, LoadOptions options) {
  return load_model(invocation, flags, logits, std::move(options), {});
}

Result<Model> load_model(const Invocation& invocation, const ModelFlags& flags, Logits logits, LoadOptions options,
                         MeasuringOptions measuring) {
  options.device = flags.device;
  options.n_threads = flags.n_threads;
  options.i2s_arm64 = flags.i2s_layout == "arm64";
  options.tokenizer_path = flags.tokenizer;
  options.pre_tokenizer = flags.pre;
  const LoraName lora = parse_lora(flags.lora);
  options.lora = lora.path;
  options.lora_scale = lora.scale;
  options.sparse_ffn = flags.ffn == "sparse";
  options.cache = flags.cache == "write" ? CacheMode::kWrite
                  : flags.cache == "off" ? CacheMode::kOff
                                         : CacheMode::kAuto;
  if (flags.head == "certified") options.head = HeadMode::kCertified;
  if (flags.head == "full" || (flags.head == "auto" && logits == Logits::kAll)) options.head = HeadMode::kFull;
  Progress progress("Loading " + flags.model);
  options.on_progress = [&](double done) { progress.update(done); };
  Result<Model> model = bitnet::load_model(flags.model, options, std::move(measuring));
  if (model) {
    for (const std::string& notice : model->info().notices) print_note(invocation, notice);
  }
  return model;
}

Result<const Tokenizer*> tokenizer_of(const Model& model) {
  if (model.tokenizer() != nullptr) return model.tokenizer();
  Error error =
      invalid_input("{}: the model carries no vocabulary, so it cannot read or write text.", model.info().path);
  error.suggestion = "--tokenizer FILE with the model's vocabulary, or token ids instead of text";
  return error;
}

void add_session_flags(CLI::App& command, SessionFlags& flags) {
  command.add_option("--ctx", flags.n_ctx, "Context in tokens; 0: what the model was trained for, at most 4096")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 24).description(""))
      ->capture_default_str();
  command.add_option("--chunk", flags.chunk, "Prompt tokens computed together; never changes a result")
      ->check(CLI::Range(int64_t{1}, int64_t{65536}).description(""))
      ->capture_default_str();
  add_kv_flag(command, flags.kv);
}

void add_kv_flag(CLI::App& command, std::string& kv) {
  command
      .add_option(
          "--kv", kv,
          "Type of the key/value cache: f16, f32, q8_0 or int8 (half of f16's memory and reads, a small error; int8 is "
          "faster), or int4 (a quarter, for long contexts)")
      ->check(CLI::IsMember({"f16", "f32", "q8_0", "int8", "int4"}))
      ->capture_default_str();
}

KvType kv_type(const std::string& kv) {
  const std::map<std::string_view, KvType> types = {
      {"f32", KvType::kF32}, {"q8_0", KvType::kQ8_0}, {"int8", KvType::kInt8}, {"int4", KvType::kInt4}};
  const auto found = types.find(kv);
  return found == types.end() ? KvType::kF16 : found->second;
}

SessionOptions session_options(const SessionFlags& flags, int n_threads) {
  SessionOptions options;
  options.n_ctx = flags.n_ctx;
  options.n_threads = n_threads;
  options.chunk = flags.chunk;
  options.kv_type = kv_type(flags.kv);
  return options;
}

void add_sampling_flags(CLI::App& command, SamplingFlags& flags) {
  SamplingOptions& s = flags.sampling;
  const char* const group = "Sampling";
  const auto add = [&](const char* name, auto& value, const char* help) {
    return command.add_option(name, value, help)->capture_default_str()->group(group);
  };
  add("--temp", s.temperature, "Temperature; 0: always the most likely token")
      ->check(CLI::Range(0.0, 1000.0).description(""));
  add("--top-k", s.top_k, "Keep the k most likely tokens; 0: off")->check(CLI::Range(0, 1 << 30).description(""));
  add("--top-p", s.top_p, "Keep the most likely tokens that sum to p; 1: off")
      ->check(CLI::Range(0.0, 1.0).description(""));
  add("--min-p", s.min_p, "Drop tokens less likely than this share of the top one; 0: off")
      ->check(CLI::Range(0.0, 1.0).description(""));
  add("--repeat-penalty", s.repeat_penalty, "Weakens recent tokens; 1: off")
      ->check(CLI::Range(1e-3, 1000.0).description(""));
  add("--frequency-penalty", s.frequency_penalty, "Taken off a token's logit for each recent occurrence")
      ->check(CLI::Range(-1000.0, 1000.0).description(""));
  add("--presence-penalty", s.presence_penalty, "Taken off a token's logit once if it occurred recently")
      ->check(CLI::Range(-1000.0, 1000.0).description(""));
  add("--penalty-last-n", s.penalty_last_n, "Tokens that count as recent; -1: all")
      ->check(CLI::Range(-1, 1 << 24).description(""));
  command.add_option("--seed", flags.seed, "The same seed and input give the same text (default: drawn)")->group(group);
  command.add_option("--stop", flags.stop, "End before this text; may be given several times")
      ->allow_extra_args(false)
      ->group(group);
  command.add_flag("--ignore-eos", flags.ignore_eos, "Go on after the end-of-text token")->group(group);
  command
      .add_option(
          "--draft", flags.max_draft,
          "Guess up to this many tokens from earlier text and check them at once: faster where text repeats, the "
          "same tokens; 0: off")
      ->check(CLI::Range(int64_t{0}, kMaxDraft).description(""))
      ->capture_default_str()
      ->group(group);
}

Logits wanted_logits(const SamplingFlags& flags) {
  return Sampler::n_best(flags.sampling) > 0 ? Logits::kBest : Logits::kAll;
}

GenerateOptions generate_options(const SamplingFlags& flags) {
  GenerateOptions options;
  options.sampling = flags.sampling;
  std::random_device device;
  options.sampling.seed = flags.seed ? *flags.seed : (uint64_t(device()) << 32 | device());
  options.stop = flags.stop;
  options.ignore_eos = flags.ignore_eos;
  options.max_draft = flags.max_draft;
  return options;
}

void add_text_flags(CLI::App& command, TextFlags& flags, const std::string& what) {
  CLI::Option* text = command.add_option_function<std::string>(
      "-p,--prompt",
      [&flags](const std::string& value) {
        flags.text = value;
        flags.has_text = true;
      },
      what);
  command.add_option("-f,--file", flags.file, "Read it from this file, every byte of it; -: from the standard input")
      ->excludes(text);
}

Result<DType> parse_type(const std::string& name, const std::string& flag) {
  if (const std::optional<DType> type = parse_dtype(name)) return *type;
  return invalid_argument("{}: '{}' is not a tensor type.", flag, name);
}

}  // namespace bitnet::cli
