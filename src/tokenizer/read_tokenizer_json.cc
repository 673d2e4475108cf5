// tokenizer.json of Hugging Face's tokenizers: model type BPE, byte-level or SentencePiece-like.
#include "base/file.h"
#include "format/text.h"
#include "tokenizer/derived_merges.h"
#include "tokenizer/json_fields.h"
#include "tokenizer/json_pre_tokenizer.h"
#include "tokenizer/parse_vocabulary.h"
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/stop_tokens.h"
#include "tokenizer/vocabulary.h"

#include <algorithm>
#include <unordered_map>

namespace bitnet {
namespace {

constexpr int64_t kMaxId = (int64_t{1} << 30) - 1;

class Reader {
 public:
  Reader(const Json& root, const std::string& name) : root_(root), name_(name) {}

  Result<Vocabulary> read(const std::string& pre_override) {
    const Json* model = json_member(root_, "model");
    if (!model || !model->is_object()) return invalid_input("{}: \"model\" is missing, expected an object", name_);
    BN_RETURN_IF_ERROR(check_model(*model));
    BN_RETURN_IF_ERROR(read_tokens(*model));
    BN_RETURN_IF_ERROR(read_kind(*model, pre_override));
    BN_RETURN_IF_ERROR(read_merges(*model));
    v_.unk_id = find_token(v_, json_text(*model, "unk_token"));
    if (v_.kind == VocabularyKind::kSentencePieceBpe) read_sentencepiece(*model);
    read_post_processor();
    guess_bos_and_eos(v_);
    add_stop_ids(v_);
    BN_RETURN_IF_ERROR(check_vocabulary(v_, name_));
    return std::move(v_);
  }

 private:
  Status check_model(const Json& model) const {
    const std::string type = json_text(model, "type");
    if (!type.empty() && type != "BPE") {
      return unsupported("{}: models of type {} are not supported, only \"BPE\"", name_, quote_name(type));
    }
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      const std::string text = json_text(model, key);
      if (!text.empty()) return unsupported("{}: \"{}\" is {}, which is not supported", name_, key, quote_name(text));
    }
    const Json* dropout = json_member(model, "dropout");
    if (dropout && !(dropout->is_number() && dropout->get<double>() == 0)) {
      return unsupported("{}: \"dropout\" is set; random merges are not supported", name_);
    }
    return ok();
  }

  Status place(int64_t id, std::string text, TokenType type) {
    std::string& token = v_.tokens[size_t(id)];
    if (!token.empty() && token != text) {
      return invalid_input("{}: {} and {} both have the id {}", name_, quote_name(token), quote_name(text), id);
    }
    token = std::move(text);
    v_.types[size_t(id)] = type;
    return ok();
  }

  Status read_tokens(const Json& model) {
    const Json* vocab = json_member(model, "vocab");
    if (!vocab || !vocab->is_object()) return invalid_input("{}: \"vocab\" is missing, expected an object", name_);
    const Json* added = json_member(root_, "added_tokens");
    if (added && !added->is_array()) return invalid_input("{}: \"added_tokens\" is not an array", name_);
    const size_t n_most = vocab->size() + (added ? added->size() : 0);
    v_.tokens.resize(n_most);
    v_.types.resize(n_most, TokenType::kNormal);
    for (const auto& item : vocab->items()) {
      if (item.key().empty()) return invalid_input("{}: \"vocab\" holds an empty token", name_);
      BN_ASSIGN_OR_RETURN(const int64_t id, id_of(item.value(), item.key(), n_most));
      BN_RETURN_IF_ERROR(place(id, item.key(), TokenType::kNormal));
    }
    for (size_t i = 0; added && i < added->size(); ++i) BN_RETURN_IF_ERROR(read_added_token((*added)[i], n_most));
    while (!v_.tokens.empty() && v_.tokens.back().empty()) v_.tokens.pop_back();
    v_.types.resize(v_.tokens.size());
    for (size_t id = 0; id < v_.tokens.size(); ++id) {
      if (v_.tokens[id].empty()) return invalid_input("{}: no token has the id {}", name_, id);
    }
    return ok();
  }

  Result<int64_t> id_of(const Json& value, const std::string& token, size_t n_tokens) const {
    const bool whole = value.is_number_unsigned() || (value.is_number_integer() && value.get<int64_t>() >= 0);
    if (!whole || value.get<uint64_t>() >= std::min<uint64_t>(n_tokens, kMaxId)) {
      return invalid_input("{}: the id of token {} is {}, expected a whole number below the {} tokens that are listed",
                           name_, quote_name(token), value.dump(), n_tokens);
    }
    return value.get<int64_t>();
  }

  Status read_added_token(const Json& added, size_t n_most) {
    const std::string content = json_text(added, "content");
    const Json* id_field = json_member(added, "id");
    if (content.empty() || !id_field) return invalid_input("{}: an added token lacks \"content\" or \"id\"", name_);
    BN_ASSIGN_OR_RETURN(const int64_t id, id_of(*id_field, content, n_most));
    if (json_flag(added, "single_word", false)) {
      return unsupported("{}: the added token {} has \"single_word\" set, which is not supported", name_,
                         quote_name(content));
    }
    if (json_flag(added, "lstrip", false)) v_.lstrip_ids.push_back(int32_t(id));
    if (json_flag(added, "rstrip", false)) v_.rstrip_ids.push_back(int32_t(id));
    return place(id, content, json_flag(added, "special", false) ? TokenType::kControl : TokenType::kUserDefined);
  }

  // Byte-level if a ByteLevel pre-tokenizer says so, SentencePiece-like if spaces become U+2581; nothing else.
  Status read_kind(const Json& model, const std::string& pre_override) {
    const Json* normalizer = json_member(root_, "normalizer");
    BN_ASSIGN_OR_RETURN(const auto spaces, parse_json_normalizer(normalizer ? *normalizer : Json(), name_));
    v_.add_space_prefix = spaces.prefix;
    const Json* part = json_member(root_, "pre_tokenizer");
    auto parsed = parse_json_pre_tokenizer(part ? *part : Json(), name_);
    v_.ignore_merges = json_flag(model, "ignore_merges", false);
    if (!pre_override.empty() && !spaces.marked) {
      const auto* known = PreTokenizer::find(pre_override);
      if (!known) {
        return invalid_argument("unknown pre-tokenizer {}; known are {}", quote_name(pre_override),
                                PreTokenizer::known_names());
      }
      v_.pre = known->canonical;
      v_.add_bos = known->adds_bos;
      return ok();
    }
    if (!parsed) return std::move(parsed.error());
    const bool sentencepiece = spaces.marked || parsed->metaspace;
    if (sentencepiece == parsed->byte_level || (sentencepiece && !parsed->rules.empty())) {
      return unsupported("{}: expected either a ByteLevel pre-tokenizer or a normalizer that writes spaces as U+2581",
                         name_);
    }
    if (sentencepiece) {
      v_.kind = VocabularyKind::kSentencePieceBpe;
      v_.add_bos = true;
      return ok();
    }
    v_.pre = PreTokenizer::find_by_rules(parsed->rules);
    if (v_.pre.empty()) {
      return unsupported(
          "{}: this sequence of pre-tokenizers is none that we know; name one of ours to use instead: {}", name_,
          PreTokenizer::known_names());
    }
    v_.add_bos = PreTokenizer::find(v_.pre)->adds_bos;
    return ok();
  }

  Status read_merges(const Json& model) {
    const Json* merges = json_member(model, "merges");
    if (!merges || !merges->is_array()) return invalid_input("{}: \"merges\" is missing, expected an array", name_);
    v_.merges.reserve(merges->size());
    for (const Json& merge : *merges) {
      std::string left, right;
      if (merge.is_string()) {
        const std::string& text = merge.get_ref<const std::string&>();
        const size_t space = text.find(' ');
        if (space != std::string::npos && text.find(' ', space + 1) == std::string::npos) {
          left = text.substr(0, space);
          right = text.substr(space + 1);
        }
      } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
        left = merge[0].get<std::string>();
        right = merge[1].get<std::string>();
      }
      if (left.empty() || right.empty()) {
        return invalid_input("{}: merge {} is {}, expected two tokens", name_, v_.merges.size(),
                             quote_name(merge.dump().substr(0, 200)));
      }
      v_.merges.emplace_back(std::move(left), std::move(right));
    }
    return ok();
  }

  void read_sentencepiece(const Json& model) {
    const bool byte_fallback = json_flag(model, "byte_fallback", false);
    if (v_.unk_id) v_.types[size_t(*v_.unk_id)] = TokenType::kUnknown;
    std::unordered_map<std::string_view, size_t> ids;
    for (size_t id = 0; id < v_.tokens.size(); ++id) {
      const std::string& token = v_.tokens[id];
      ids.emplace(token, id);
      const bool spelled_as_byte = token.size() == 6 && token.rfind("<0x", 0) == 0 && token[5] == '>';
      if (byte_fallback && spelled_as_byte && v_.types[id] == TokenType::kNormal) v_.types[id] = TokenType::kByte;
    }
    // Scores for formats that keep no merges: the earlier a token is made, the higher.
    v_.scores.assign(v_.tokens.size(), -float(v_.merges.size()));
    for (size_t rank = v_.merges.size(); rank-- > 0;) {
      const auto made = ids.find(v_.merges[rank].first + v_.merges[rank].second);
      if (made != ids.end()) v_.scores[made->second] = -float(rank);
    }
    if (scores_make_listed_merges(v_)) v_.merges.clear();
  }

  // Whether the file's template puts a special token first.
  void read_post_processor() {
    const Json* processor = json_member(root_, "post_processor");
    if (!processor) return;
    if (const Json* list = json_member(*processor, "processors"); list && list->is_array()) {
      for (const Json& part : *list) read_template(part);
    } else {
      read_template(*processor);
    }
  }

  void read_template(const Json& processor) {
    const Json* single = json_member(processor, "single");
    if (json_text(processor, "type") != "TemplateProcessing" || !single || !single->is_array() || single->empty())
      return;
    const auto special = [&](const Json& part) -> std::optional<int32_t> {
      const Json* token = json_member(part, "SpecialToken");
      return token ? find_token(v_, json_text(*token, "id")) : std::nullopt;
    };
    if (const auto first = special(single->front())) {
      v_.bos_id = first;
      v_.add_bos = true;
    } else {
      v_.add_bos = false;
    }
    v_.add_eos = single->size() > 1 && special(single->back());
    if (v_.add_eos) v_.eos_id = special(single->back());
  }

  const Json& root_;
  const std::string& name_;
  Vocabulary v_;
};

}  // namespace

Result<Vocabulary> parse_tokenizer_json(std::string_view text, const std::string& name,
                                        const std::string& pre_override) {
  BN_ASSIGN_OR_RETURN(const Json root, parse_json(text, name));
  if (!root.is_object()) return invalid_input("{}: not a JSON object", name);
  return Reader(root, name).read(pre_override);
}

Result<Vocabulary> vocabulary_from_tokenizer_json(const std::string& path, const std::string& pre_override) {
  BN_ASSIGN_OR_RETURN(const std::string text, read_file(path, JsonLimits{}.max_bytes));
  return parse_tokenizer_json(text, path, pre_override);
}

}  // namespace bitnet
