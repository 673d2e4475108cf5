// bitnet inspect: what a model file says about itself. Headers only; no weight is read.
#include "format/gguf.h"
#include "format/safetensors.h"
#include "format/torch_archive.h"
#include "model/checkpoint.h"
#include "model/find_model.h"
#include "model/microsoft_gpu.h"
#include "options.h"
#include "output.h"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <memory>
#include <type_traits>

namespace bitnet::cli {
namespace {

struct InspectFlags {
  std::string path;
  std::string i2s_layout = "x86";
  bool all = false;
};

constexpr size_t kShownKeys = 200;
constexpr size_t kShownTensors = 24;
constexpr size_t kShownElements = 6;      // of a long array
constexpr size_t kShownCharacters = 200;  // of a long string

// What was found on disk, whatever the format.
struct Contents {
  std::string format, path;
  uint64_t size_bytes = 0;
  OrderedJson::object_t metadata;                        // with --json
  std::vector<std::vector<std::string>> metadata_table;  // without: key, value
  size_t n_hidden_keys = 0;
  std::vector<StoredTensor> tensors;
  std::optional<Checkpoint> checkpoint;
  std::optional<Error> refusal;  // why it is no model that this build can run
};

std::string shortened(const std::string& text) {
  if (text.size() <= kShownCharacters) return text;
  return fmt::format("{}... ({} bytes)", text.substr(0, kShownCharacters), text.size());
}

OrderedJson array_json(const GgufArray& array, bool all) {
  return std::visit(
      [&](const auto& values) -> OrderedJson {
        OrderedJson shown = OrderedJson::array();
        const size_t n = all ? values.size() : std::min(values.size(), kShownElements);
        for (size_t i = 0; i < n; ++i) shown.push_back(typename std::decay_t<decltype(values)>::value_type(values[i]));
        if (n == values.size()) return shown;
        return {{"n_elements", values.size()}, {"first", shown}};
      },
      array);
}

// The shortest decimal number that is this float32: 1e-05, not 9.999999747378752e-06.
double shortest(float value) { return std::isfinite(value) ? std::stod(fmt::format("{}", value)) : double(value); }

OrderedJson value_json(const GgufValue& value, bool all) {
  return std::visit(
      [&](const auto& v) -> OrderedJson {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_same_v<T, GgufArray>) {
          return array_json(v, all);
        } else if constexpr (std::is_same_v<T, float>) {
          return shortest(v);
        } else {
          return v;
        }
      },
      value);
}

std::string value_text(const GgufValue& value, bool all) {
  if (const std::string* text = std::get_if<std::string>(&value)) {
    return "\"" + escaped(all ? *text : shortened(*text)) + "\"";
  }
  const OrderedJson json = value_json(value, all);
  const auto dump = [](const OrderedJson& j) { return j.dump(-1, ' ', false, OrderedJson::error_handler_t::replace); };
  if (!json.is_object()) return dump(json);
  std::string first = dump(json["first"]);
  first.pop_back();
  return fmt::format("{}, ...] ({} elements)", first, json["n_elements"].get<size_t>());
}

// Keys are unique, so none is looked for: OrderedJson would compare each with all others.
void read_gguf(const GgufFile& file, bool all, bool json, Contents& contents) {
  contents.format = fmt::format("GGUF v{}", file.version());
  contents.size_bytes = file.size_bytes();
  contents.tensors = file.tensors();
  for (const auto& [key, value] : file.metadata().entries()) {
    if (!json && !all && contents.metadata_table.size() == kShownKeys) {
      contents.n_hidden_keys = file.metadata().entries().size() - kShownKeys;
      break;
    }
    if (json) {
      contents.metadata.emplace_back(key, value_json(value, all));
    } else {
      contents.metadata_table.push_back({"  " + escaped(key), value_text(value, all)});
    }
  }
}

Status read_safetensors(const std::string& path, Contents& contents) {
  BN_ASSIGN_OR_RETURN(const SafetensorsFile file, SafetensorsFile::open(path));
  contents.format = "safetensors";
  contents.size_bytes = file.size_bytes();
  contents.tensors = file.tensors();
  for (const auto& [key, value] : file.metadata()) {
    contents.metadata.emplace_back(key, value);
    contents.metadata_table.push_back({"  " + escaped(key), "\"" + escaped(shortened(value)) + "\""});
  }
  return ok();
}

Status read_folder(const std::string& path, Contents& contents) {
  BN_ASSIGN_OR_RETURN(const SafetensorsFolder folder, SafetensorsFolder::open(path));
  contents.format = "Hugging Face folder";
  contents.size_bytes = folder.size_bytes();
  for (const auto& entry : folder.tensors()) contents.tensors.push_back(*entry.tensor);
  return ok();
}

Status read_torch_archive(const std::string& path, Contents& contents) {
  BN_ASSIGN_OR_RETURN(const TorchArchive archive, TorchArchive::open(path));
  contents.format = "PyTorch archive";
  contents.size_bytes = archive.size_bytes();
  contents.tensors = archive.tensors();
  return ok();
}

Result<Contents> read(const InspectFlags& flags, bool json) {
  Contents contents;
  BN_ASSIGN_OR_RETURN(contents.path, find_model(flags.path));
  CheckpointOptions options;
  options.i2s_arm64 = flags.i2s_layout == "arm64";
  Result<Checkpoint> checkpoint = Checkpoint::open(contents.path, options);
  if (checkpoint) {
    contents.checkpoint = *std::move(checkpoint);
  } else {
    contents.refusal = checkpoint.error();
  }
  std::error_code ignored;
  if (const auto archive = find_microsoft_gpu(contents.path)) {
    BN_RETURN_IF_ERROR(read_torch_archive(*archive, contents));
  } else if (std::filesystem::is_directory(contents.path, ignored)) {
    BN_RETURN_IF_ERROR(read_folder(contents.path, contents));
  } else if (contents.path.ends_with(".safetensors")) {
    BN_RETURN_IF_ERROR(read_safetensors(contents.path, contents));
  } else if (contents.checkpoint) {
    read_gguf(*contents.checkpoint->gguf(), flags.all, json, contents);
  } else {
    BN_ASSIGN_OR_RETURN(const GgufFile file, GgufFile::open(contents.path));
    read_gguf(file, flags.all, json, contents);
  }
  return contents;
}

struct TypeTotal {
  int64_t n_tensors = 0;
  uint64_t size_bytes = 0;
};
std::map<std::string, TypeTotal> totals_by_type(const Contents& contents) {
  std::map<std::string, TypeTotal> totals;
  for (const StoredTensor& tensor : contents.tensors) {
    TypeTotal& total = totals[std::string(dtype_info(tensor.dtype).name)];
    ++total.n_tensors;
    total.size_bytes += tensor.size_bytes;
  }
  return totals;
}

const char* kind_name(VocabularyKind kind) {
  return kind == VocabularyKind::kByteLevelBpe ? "byte-level BPE" : "SentencePiece BPE";
}

// The config as (name, value) in the order that people want to read it.
OrderedJson config_json(const Checkpoint& checkpoint) {
  const ModelConfig& c = checkpoint.config();
  OrderedJson json = {{"architecture", c.architecture},
                      {"name", c.name},
                      {"n_parameters", count_parameters(c)},
                      {"n_layers", c.n_layers},
                      {"d_model", c.d_model},
                      {"d_ff", c.d_ff},
                      {"n_heads", c.n_heads},
                      {"n_kv_heads", c.n_kv_heads},
                      {"head_dim", c.head_dim},
                      {"vocab_size", c.vocab_size},
                      {"n_ctx_train", c.n_ctx_train},
                      {"rope_dim", c.rope_dim},
                      {"rope_theta", c.rope_theta},
                      {"rms_eps", shortest(c.rms_eps)},
                      {"gate_activation", c.gate_activation == GateActivation::kRelu2 ? "relu2" : "silu"},
                      {"sub_norms", c.sub_norms},
                      {"input_norms", c.input_norms},
                      {"tied_head", c.tied_head},
                      {"ternary", c.ternary}};
  if (const std::optional<Vocabulary>& vocabulary = checkpoint.vocabulary()) {
    json["vocabulary"] = {{"kind", kind_name(vocabulary->kind)},
                          {"pre", vocabulary->pre},
                          {"n_tokens", vocabulary->tokens.size()},
                          {"chat_template", !vocabulary->chat_template.empty()}};
  }
  return json;
}

void print_as_json(const Contents& contents) {
  OrderedJson types = OrderedJson::object(), tensors = OrderedJson::array();
  for (const auto& [name, total] : totals_by_type(contents)) {
    types[name] = {{"n_tensors", total.n_tensors}, {"size_bytes", total.size_bytes}};
  }
  for (const StoredTensor& tensor : contents.tensors) {
    tensors.push_back({{"name", tensor.name},
                       {"type", std::string(dtype_info(tensor.dtype).name)},
                       {"shape", tensor.shape},
                       {"size_bytes", tensor.size_bytes},
                       {"offset_bytes", tensor.offset_bytes}});
  }
  OrderedJson document = {{"path", contents.path},
                          {"format", contents.format},
                          {"size_bytes", contents.size_bytes},
                          {"runnable", contents.checkpoint.has_value()},
                          {"metadata", contents.metadata},
                          {"types", types},
                          {"tensors", tensors}};
  if (contents.checkpoint) {
    document["config"] = config_json(*contents.checkpoint);
    document["notices"] = contents.checkpoint->notices();
  } else {
    document["refusal"] = contents.refusal->message;
  }
  print_json(document);
}

void print_hidden(size_t n) {
  if (n > 0) print(fmt::format("  and {} more (--all shows them)\n", n));
}

void print_for_people(const Contents& contents, bool all) {
  print(fmt::format("{}: {}, {}, {} tensors\n", contents.path, contents.format, human_bytes(contents.size_bytes),
                    contents.tensors.size()));
  if (!contents.metadata_table.empty()) print("\nMetadata\n" + table(contents.metadata_table));
  print_hidden(contents.n_hidden_keys);
  std::vector<std::vector<std::string>> rows = {{"  name", "type", "shape", "size"}};
  for (const StoredTensor& tensor : contents.tensors) {
    rows.push_back({"  " + escaped(tensor.name), std::string(dtype_info(tensor.dtype).name), shape_string(tensor.shape),
                    human_bytes(tensor.size_bytes)});
  }
  const size_t n_hidden = !all && rows.size() > kShownTensors + 1 ? rows.size() - kShownTensors - 1 : 0;
  rows.resize(rows.size() - n_hidden);
  print("\nTensors\n" + table(rows));
  print_hidden(n_hidden);
  print("\nTypes\n");
  rows = {};
  for (const auto& [name, total] : totals_by_type(contents)) {
    rows.push_back({"  " + name, fmt::format("{} tensors", total.n_tensors), human_bytes(total.size_bytes)});
  }
  print(table(rows));
  if (!contents.checkpoint) {
    print("\nNot a model that this program can run: " + contents.refusal->message + "\n");
    return;
  }
  print("\nModel\n");
  rows = {};
  const OrderedJson config = config_json(*contents.checkpoint);
  for (const auto& [key, value] : config.items()) {
    if (value.is_object()) continue;
    rows.push_back({"  " + key, value.is_string() ? escaped(value.get<std::string>()) : value.dump()});
  }
  if (const auto& vocabulary = contents.checkpoint->vocabulary()) {
    rows.push_back(
        {"  vocabulary", fmt::format("{}{}{}, {} tokens, {}", kind_name(vocabulary->kind),
                                     vocabulary->pre.empty() ? "" : ", ", vocabulary->pre, vocabulary->tokens.size(),
                                     vocabulary->chat_template.empty() ? "no chat template" : "chat template")});
  } else {
    rows.push_back({"  vocabulary", "none"});
  }
  print(table(rows));
  for (const std::string& notice : contents.checkpoint->notices()) print("note: " + notice + "\n");
}

Result<int> run(const Invocation& invocation, const InspectFlags& flags) {
  BN_ASSIGN_OR_RETURN(const Contents contents, read(flags, invocation.json));
  if (invocation.json) {
    print_as_json(contents);
  } else {
    print_for_people(contents, flags.all);
  }
  return 0;
}

}  // namespace

void add_inspect(CLI::App& app, Invocation& invocation) {
  auto flags = std::make_shared<InspectFlags>();
  CLI::App* command = app.add_subcommand("inspect", "Show metadata, tensors, sizes and config of a model file");
  command
      ->add_option("MODEL,-m,--model", flags->path,
                   "GGUF file, safetensors file, Hugging Face folder, PyTorch archive or model name")
      ->required();
  command->add_flag("--all", flags->all, "Show every key and tensor and whole arrays");
  add_i2s_layout_flag(*command, flags->i2s_layout);
  define(*command, invocation, "bitnet inspect models/storyteller-29m.gguf",
         [flags](const Invocation& self) { return run(self, *flags); });
}

}  // namespace bitnet::cli
