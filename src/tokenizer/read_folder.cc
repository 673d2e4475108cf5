// A Hugging Face folder: the vocabulary, and what the files beside it say about special tokens and chat.
#include "base/file.h"
#include "format/text.h"
#include "tokenizer/json_fields.h"
#include "tokenizer/parse_vocabulary.h"
#include "tokenizer/stop_tokens.h"
#include "tokenizer/vocabulary.h"

#include <algorithm>
#include <filesystem>

namespace bitnet {
namespace {

bool exists(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

// An object, or null where the file is missing.
Result<Json> read_optional(const std::string& path) {
  if (!exists(path)) return Json();
  BN_ASSIGN_OR_RETURN(const std::string text, read_file(path, uint64_t{64} << 20));
  BN_ASSIGN_OR_RETURN(Json value, parse_json(text, path));
  if (!value.is_object()) return invalid_input("{}: not a JSON object", path);
  return value;
}

// "bos_token": "<s>" or {"content": "<s>", ...}.
std::string token_name(const Json& config, const char* key) {
  const Json* value = json_member(config, key);
  return value && value->is_object() ? json_text(*value, "content") : json_text(config, key);
}

void apply_special_tokens(const Json& config, Vocabulary& vocabulary) {
  const std::pair<const char*, std::optional<int32_t>*> names[] = {{"bos_token", &vocabulary.bos_id},
                                                                   {"eos_token", &vocabulary.eos_id},
                                                                   {"unk_token", &vocabulary.unk_id},
                                                                   {"pad_token", &vocabulary.pad_id}};
  for (const auto& [key, id] : names) {
    if (const auto found = find_token(vocabulary, token_name(config, key))) *id = found;
  }
}

// "chat_template" is a text, or a list of named ones of which "default" counts.
std::string chat_template_of(const Json& config) {
  const Json* value = json_member(config, "chat_template");
  if (!value || !value->is_array()) return json_text(config, "chat_template");
  for (const Json& named : *value) {
    if (json_text(named, "name") == "default") return json_text(named, "template");
  }
  return {};
}

Status apply_generation_config(const Json& config, const std::string& name, Vocabulary& vocabulary) {
  const Json* eos = json_member(config, "eos_token_id");
  if (!eos) return ok();
  const auto add = [&](const Json& id) -> Status {
    if (!id.is_number_unsigned() || id.get<uint64_t>() >= vocabulary.tokens.size()) {
      return invalid_input("{}: \"eos_token_id\" is {}, expected the id of one of {} tokens", name,
                           quote_name(id.dump().substr(0, 100)), vocabulary.tokens.size());
    }
    vocabulary.stop_ids.push_back(int32_t(id.get<uint64_t>()));
    return ok();
  };
  if (!eos->is_array()) return add(*eos);
  for (const Json& id : *eos) BN_RETURN_IF_ERROR(add(id));
  return ok();
}

Status apply_configs(const std::string& folder, Vocabulary& vocabulary) {
  BN_ASSIGN_OR_RETURN(const Json special_tokens, read_optional(folder + "/special_tokens_map.json"));
  BN_ASSIGN_OR_RETURN(const Json config, read_optional(folder + "/tokenizer_config.json"));
  apply_special_tokens(special_tokens, vocabulary);
  apply_special_tokens(config, vocabulary);
  vocabulary.add_bos = json_flag(config, "add_bos_token", vocabulary.add_bos);
  vocabulary.add_eos = json_flag(config, "add_eos_token", vocabulary.add_eos);
  vocabulary.chat_template = chat_template_of(config);
  BN_ASSIGN_OR_RETURN(const Json chat, read_optional(folder + "/chat_template.json"));
  if (json_member(chat, "chat_template")) vocabulary.chat_template = chat_template_of(chat);
  if (const std::string path = folder + "/chat_template.jinja"; exists(path)) {
    BN_ASSIGN_OR_RETURN(vocabulary.chat_template, read_file(path, uint64_t{16} << 20));
  }
  const std::string generation_path = folder + "/generation_config.json";
  BN_ASSIGN_OR_RETURN(const Json generation, read_optional(generation_path));
  BN_RETURN_IF_ERROR(apply_generation_config(generation, generation_path, vocabulary));
  add_stop_ids(vocabulary);
  return ok();
}

// tokenizer.model is the name of two formats: SentencePiece's, and tiktoken ranks as Llama 3 has them.
Result<Vocabulary> read_tokenizer_model(const std::string& path, const std::string& pre_override) {
  BN_ASSIGN_OR_RETURN(const File file, File::open(path));
  std::string start(size_t(std::min<uint64_t>(file.size_bytes(), 4096)), '\0');
  BN_RETURN_IF_ERROR(file.read_at(0, std::as_writable_bytes(std::span(start))));
  return looks_like_tiktoken(start) ? vocabulary_from_tiktoken(path, pre_override)
                                    : vocabulary_from_sentencepiece(path);
}

}  // namespace

Result<std::optional<Vocabulary>> vocabulary_from_folder(const std::string& folder, const std::string& pre_override) {
  const std::string json_path = folder + "/tokenizer.json", model_path = folder + "/tokenizer.model";
  Vocabulary vocabulary;
  if (exists(json_path)) {
    auto from_json = vocabulary_from_tokenizer_json(json_path, pre_override);
    if (from_json) {
      vocabulary = *std::move(from_json);
    } else if (from_json.error().code == ErrorCode::kUnsupported && exists(model_path)) {
      // The model that such a tokenizer.json was made from says the same in a form that we know.
      auto from_model = read_tokenizer_model(model_path, pre_override);
      if (!from_model) return std::move(from_json.error());
      vocabulary = *std::move(from_model);
      vocabulary.notices.push_back("tokenizer.model is used; tokenizer.json is not: " + from_json.error().message);
    } else {
      return std::move(from_json.error());
    }
  } else if (exists(model_path)) {
    BN_ASSIGN_OR_RETURN(vocabulary, read_tokenizer_model(model_path, pre_override));
  } else {
    return std::optional<Vocabulary>();
  }
  BN_RETURN_IF_ERROR(apply_configs(folder, vocabulary));
  BN_RETURN_IF_ERROR(check_vocabulary(vocabulary, folder));
  return std::optional<Vocabulary>(std::move(vocabulary));
}

}  // namespace bitnet
