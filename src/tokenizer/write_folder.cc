// tokenizer.json and tokenizer_config.json as Hugging Face's tokenizers and transformers load them.
#include "base/file.h"
#include "format/json.h"
#include "tokenizer/derived_merges.h"
#include "tokenizer/json_pre_tokenizer.h"
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/vocabulary.h"

#include <algorithm>

namespace bitnet {
namespace {

Json added_tokens(const Vocabulary& v) {
  std::vector<bool> lstrip(v.tokens.size()), rstrip(v.tokens.size());
  for (const int32_t id : v.lstrip_ids) lstrip[size_t(id)] = true;
  for (const int32_t id : v.rstrip_ids) rstrip[size_t(id)] = true;
  Json added = Json::array();
  for (size_t id = 0; id < v.tokens.size(); ++id) {
    if (!is_special(v.types[id]) && v.types[id] != TokenType::kUserDefined) continue;
    added.push_back({{"id", id},
                     {"content", v.tokens[id]},
                     {"single_word", false},
                     {"lstrip", bool(lstrip[id])},
                     {"rstrip", bool(rstrip[id])},
                     {"normalized", false},
                     {"special", is_special(v.types[id])}});
  }
  return added;
}

Json model(const Vocabulary& v) {
  Json vocab = Json::object(), merges = Json::array();
  for (size_t id = 0; id < v.tokens.size(); ++id) vocab[v.tokens[id]] = id;
  // Merges as strings load everywhere; pairs, which newer versions read, only where a token holds a space.
  const auto list = merges_as_list(v);
  const bool as_pairs = std::any_of(list.begin(), list.end(), [](const auto& merge) {
    return (merge.first + merge.second).find(' ') != std::string::npos;
  });
  for (const auto& [left, right] : list) {
    // Single characters that are no token can merge by score, but not here.
    if (!vocab.contains(left) || !vocab.contains(right)) continue;
    merges.push_back(as_pairs ? Json::array({left, right}) : Json(left + " " + right));
  }
  const bool byte_fallback = std::find(v.types.begin(), v.types.end(), TokenType::kByte) != v.types.end();
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", v.unk_id ? Json(v.tokens[size_t(*v.unk_id)]) : Json()},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", v.kind == VocabularyKind::kSentencePieceBpe},
          {"byte_fallback", byte_fallback},
          {"ignore_merges", v.ignore_merges},
          {"vocab", std::move(vocab)},
          {"merges", std::move(merges)}};
}

Json normalizer(const Vocabulary& v) {
  if (v.kind == VocabularyKind::kByteLevelBpe) return nullptr;
  Json parts = Json::array();
  if (v.add_space_prefix) parts.push_back({{"type", "Prepend"}, {"prepend", kSpaceMark}});
  parts.push_back({{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", kSpaceMark}});
  return {{"type", "Sequence"}, {"normalizers", std::move(parts)}};
}

Json decoder(const Vocabulary& v) {
  if (v.kind == VocabularyKind::kByteLevelBpe) {
    return {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}};
  }
  Json parts = Json::array();
  parts.push_back({{"type", "Replace"}, {"pattern", {{"String", kSpaceMark}}}, {"content", " "}});
  parts.push_back({{"type", "ByteFallback"}});
  parts.push_back({{"type", "Fuse"}});
  if (v.add_space_prefix) parts.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  return {{"type", "Sequence"}, {"decoders", std::move(parts)}};
}

// Puts the begin-of-text token first and the end-of-text token last, where the model asks for them.
Json post_processor(const Vocabulary& v) {
  Json special = Json::object(), single = Json::array(), pair = Json::array();
  const auto add_special = [&](const std::optional<int32_t>& id, bool wanted) {
    if (!id || !wanted) return;
    const std::string& token = v.tokens[size_t(*id)];
    for (Json* list : {&single, &pair}) list->push_back({{"SpecialToken", {{"id", token}, {"type_id", 0}}}});
    special[token] = {{"id", token}, {"ids", Json::array({*id})}, {"tokens", Json::array({token})}};
  };
  const auto add_sequence = [](Json& list, const char* id, int type) {
    list.push_back({{"Sequence", {{"id", id}, {"type_id", type}}}});
  };
  add_special(v.bos_id, v.add_bos);
  add_sequence(single, "A", 0);
  add_sequence(pair, "A", 0);
  add_sequence(pair, "B", 1);
  add_special(v.eos_id, v.add_eos);
  if (special.empty()) return nullptr;
  return {{"type", "TemplateProcessing"},
          {"single", std::move(single)},
          {"pair", std::move(pair)},
          {"special_tokens", std::move(special)}};
}

Json tokenizer_config(const Vocabulary& v) {
  Json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                 {"clean_up_tokenization_spaces", false},
                 {"add_bos_token", v.add_bos},
                 {"add_eos_token", v.add_eos}};
  const std::pair<const char*, std::optional<int32_t>> names[] = {
      {"bos_token", v.bos_id}, {"eos_token", v.eos_id}, {"unk_token", v.unk_id}, {"pad_token", v.pad_id}};
  for (const auto& [key, id] : names) {
    if (id) config[key] = v.tokens[size_t(*id)];
  }
  if (!v.chat_template.empty()) config["chat_template"] = v.chat_template;
  return config;
}

}  // namespace

Status vocabulary_to_folder(const Vocabulary& vocabulary, const std::string& folder) {
  BN_RETURN_IF_ERROR(check_vocabulary(vocabulary, folder));
  const bool byte_level = vocabulary.kind == VocabularyKind::kByteLevelBpe;
  const Json root = {
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", added_tokens(vocabulary)},
      {"normalizer", normalizer(vocabulary)},
      {"pre_tokenizer", byte_level ? json_from_rules(PreTokenizer::find(vocabulary.pre)->rules) : Json()},
      {"post_processor", post_processor(vocabulary)},
      {"decoder", decoder(vocabulary)},
      {"model", model(vocabulary)},
  };
  const auto text = [](const Json& json) { return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n"; };
  BN_RETURN_IF_ERROR(write_file_atomically(folder + "/tokenizer.json", text(root)));
  return write_file_atomically(folder + "/tokenizer_config.json", text(tokenizer_config(vocabulary)));
}

}  // namespace bitnet
