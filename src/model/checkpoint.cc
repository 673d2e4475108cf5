#include "model/checkpoint.h"

#include "bitnet/tokenizer.h"
#include "format/json.h"
#include "format/text.h"
#include "model/checkpoint_state.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <utility>

namespace bitnet {
namespace {

constexpr uint64_t kMaxConfig_bytes = uint64_t{16} << 20;

Status open_gguf(Checkpoint::State& state) {
  BN_ASSIGN_OR_RETURN(state.gguf, GgufFile::open(state.path));
  BN_ASSIGN_OR_RETURN(GgufConfig parsed, config_from_gguf(*state.gguf));
  state.config = std::move(parsed.config);
  if (interleaves_qk(state.config.architecture)) {
    state.qk_order = {RowOrder::kSplit, state.config.head_dim, state.config.rope_dim};
  }
  state.notices = std::move(parsed.notices);
  BN_ASSIGN_OR_RETURN(state.checksums, GgufChecksums::read(*state.gguf));
  if (state.checksums.kind() == GgufChecksums::Kind::kOutdated) {
    state.notices.push_back("the checksums in the file are of other tensors: another program rewrote it; not used");
  } else {
    BN_ASSIGN_OR_RETURN(state.exact_scales, read_exact_scales(*state.gguf));
  }
  return ok();
}

Status open_folder(Checkpoint::State& state) {
  const std::string config_path = state.path + "/config.json";
  BN_ASSIGN_OR_RETURN(const std::string text, read_file(config_path, kMaxConfig_bytes));
  BN_ASSIGN_OR_RETURN(const Json json, parse_json(text, config_path));
  BN_ASSIGN_OR_RETURN(state.hf, config_from_hf(json, config_path));
  state.config = state.hf.config;
  state.notices = std::move(state.hf.notices);
  BN_ASSIGN_OR_RETURN(state.folder, SafetensorsFolder::open(state.path));
  return ok();
}

Status open_microsoft(Checkpoint::State& state, const std::string& path) {
  BN_ASSIGN_OR_RETURN(state.microsoft, MicrosoftGpuFile::open(path));
  state.config = state.microsoft->config();
  state.notices = state.microsoft->notices();
  state.qk_order = {RowOrder::kSplit, state.config.head_dim, state.config.rope_dim};
  state.hf.quantized = true;
  return ok();
}

Status read_vocabulary(Checkpoint::State& state) {
  const CheckpointOptions& options = state.options;
  if (!options.read_vocabulary) return ok();
  if (!options.tokenizer_path.empty()) {
    BN_ASSIGN_OR_RETURN(const Tokenizer tokenizer, Tokenizer::load(options.tokenizer_path, {options.pre_tokenizer}));
    state.vocabulary = vocabulary_of(tokenizer);
  } else if (state.microsoft) {
    BN_ASSIGN_OR_RETURN(state.vocabulary,
                        vocabulary_of_microsoft_gpu(state.microsoft->archive().name(), options.pre_tokenizer));
  } else if (!state.is_gguf()) {
    BN_ASSIGN_OR_RETURN(state.vocabulary, vocabulary_from_folder(state.path, options.pre_tokenizer));
  } else if (gguf_has_vocabulary(*state.gguf)) {
    BN_ASSIGN_OR_RETURN(state.vocabulary, vocabulary_from_gguf(*state.gguf, options.pre_tokenizer));
  }
  if (!state.vocabulary) return ok();
  for (const std::string& notice : state.vocabulary->notices) state.notices.push_back(notice);
  return check_vocabulary(state, state.notices);
}

std::string name_of_folder(const std::string& path) {
  const std::filesystem::path canonical = std::filesystem::path(path).lexically_normal();
  return (canonical.has_filename() ? canonical : canonical.parent_path()).filename().string();
}

}  // namespace

Result<Checkpoint> Checkpoint::open(const std::string& path, const CheckpointOptions& options) {
  auto state = std::make_shared<State>();
  state->path = path;
  state->options = options;
  // What kind of file it is, its contents tell, not its name.
  std::error_code error;
  const bool is_folder = std::filesystem::is_directory(path, error);
  if (const auto archive = find_microsoft_gpu(path)) {
    BN_RETURN_IF_ERROR(open_microsoft(*state, *archive));
  } else if (is_folder) {
    BN_RETURN_IF_ERROR(open_folder(*state));
  } else {
    BN_RETURN_IF_ERROR(open_gguf(*state));
  }
  if (!state->is_gguf()) {
    state->config.name = is_folder ? name_of_folder(path) : std::filesystem::path(path).stem().string();
  }
  state->weights = list_weights(state->config);
  BN_RETURN_IF_ERROR(check_tensors(*state, state->notices));
  BN_RETURN_IF_ERROR(read_vocabulary(*state));
  return Checkpoint(std::move(state));
}

const std::string& Checkpoint::path() const { return state_->path; }
bool Checkpoint::is_gguf() const { return state_->is_gguf(); }
const GgufFile* Checkpoint::gguf() const { return state_->is_gguf() ? &*state_->gguf : nullptr; }
const TorchArchive* Checkpoint::torch_archive() const {
  return state_->microsoft ? &state_->microsoft->archive() : nullptr;
}
std::string Checkpoint::identity() const {
  std::string identity;
  const auto add = [&](const File* file) {
    if (file == nullptr) return;
    fmt::format_to(std::back_inserter(identity), "{}{} bytes of {} ns", identity.empty() ? "" : ", ",
                   file->size_bytes(), file->modified_ns());
  };
  if (state_->is_gguf()) {
    add(state_->gguf->file().get());
    return identity;
  }
  if (state_->microsoft) {
    add(state_->microsoft->archive().file().get());
    if (const auto config = File::open(state_->microsoft->config_path())) add(&*config);
    return identity;
  }
  for (const auto& file : state_->folder->files()) add(file->file().get());
  // What the scales mean stands in the configuration.
  if (const auto config = File::open(state_->path + "/config.json")) add(&*config);
  return identity;
}

uint64_t Checkpoint::file_bytes() const {
  if (state_->microsoft) return state_->microsoft->archive().size_bytes();
  return state_->is_gguf() ? state_->gguf->size_bytes() : state_->folder->size_bytes();
}
const ModelConfig& Checkpoint::config() const { return state_->config; }
const std::vector<WeightSpec>& Checkpoint::weights() const { return state_->weights; }
const std::optional<Vocabulary>& Checkpoint::vocabulary() const { return state_->vocabulary; }
const std::vector<std::string>& Checkpoint::notices() const { return state_->notices; }
const StoredTensor& Checkpoint::stored(const WeightSpec& spec) const { return *state_->find_weight(spec).tensor; }

std::string Checkpoint::weight_types() const {
  std::map<std::string_view, int64_t> counts;
  for (const WeightSpec& spec : state_->weights) ++counts[dtype_info(stored(spec).dtype).name];
  std::vector<std::pair<int64_t, std::string_view>> order;
  for (const auto& [name, count] : counts) order.emplace_back(-count, name);
  std::sort(order.begin(), order.end());
  std::string text;
  for (const auto& [count, name] : order) text += fmt::format("{}{} {}", text.empty() ? "" : ", ", name, -count);
  return text;
}

LocatedTensor Checkpoint::State::find(std::string_view name) const {
  if (gguf) return {gguf->find(name), nullptr};
  if (microsoft) return {microsoft->find(name), nullptr};
  const SafetensorsFolder::Entry* entry = folder->find(name);
  return entry == nullptr ? LocatedTensor{} : LocatedTensor{entry->tensor, entry->file};
}

LocatedTensor Checkpoint::State::find_weight(const WeightSpec& spec) const {
  if (gguf) return find(spec.gguf_name);
  const LocatedTensor tensor = find(spec.hf_name);
  return tensor || spec.hf_older_name.empty() ? tensor : find(spec.hf_older_name);
}

LocatedTensor Checkpoint::State::find_scale(const WeightSpec& spec) const {
  return find(gguf ? spec.gguf_scale_name : spec.hf_scale_name);
}

const std::string& Checkpoint::State::file_name(const LocatedTensor& tensor) const {
  return gguf ? gguf->name() : microsoft ? microsoft->archive().name() : tensor.file->name();
}

const std::shared_ptr<const File>& Checkpoint::State::file_of(const LocatedTensor& tensor) const {
  return gguf ? gguf->file() : microsoft ? microsoft->archive().file() : tensor.file->file();
}

std::string Checkpoint::State::label(const LocatedTensor& tensor) const {
  return fmt::format("{}: tensor {}", file_name(tensor), quote_name(tensor.tensor->name));
}

bool Checkpoint::State::is_converted(const WeightSpec& spec) const {
  if (gguf || !hf.quantized) return config.ternary;
  const std::string_view module = std::string_view(spec.hf_name).substr(0, spec.hf_name.rfind('.'));
  return hf.is_converted(module);
}

}  // namespace bitnet
