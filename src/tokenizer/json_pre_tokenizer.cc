#include "tokenizer/json_pre_tokenizer.h"

#include "format/text.h"
#include "tokenizer/json_fields.h"
#include "tokenizer/vocabulary.h"

#include <string_view>

namespace bitnet {
namespace {

constexpr std::string_view kDeepseekLettersExpression =
    "\\s?["
    "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ"
    "-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώ"
    "ᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨ"
    "K-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ"
    "-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀"
    "-𞥃"
    "]+";

struct KnownExpression {
  std::string_view text;
  SplitRule rule;
  bool covers_all;  // its matches leave no gaps
};

// Expressions of published tokenizer.json files, compared character by character.
constexpr KnownExpression kExpressions[] = {
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     SplitRule::kLlama3, true},
    {R"((?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     SplitRule::kLlama3, true},
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     SplitRule::kQwen2, true},
    {R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)", SplitRule::kGpt2, true},
    {R"('(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)", SplitRule::kGpt2, true},
    {R"([\p{P}\$\+<=>\^~\|`]+)", SplitRule::kPunctuation, false},
    {R"([\p{P}\$\+<=>\^~\|]+)", SplitRule::kPunctuationNoTick, false},
    {R"([0-9][0-9][0-9])", SplitRule::kThreeDigits, false},
    {R"(\p{N})", SplitRule::kNumber, false},
    {R"(\p{N}+)", SplitRule::kNumbers, false},
    {"[\r\n]", SplitRule::kLineBreak, false},
    {R"([\r\n])", SplitRule::kLineBreak, false},
    {R"(\s?\p{L}+)", SplitRule::kSpacedLetters, false},
    {R"(\s?\p{P}+)", SplitRule::kSpacedPunctuation, false},
    {R"([一-龥ࠀ-一가-퟿]+)", SplitRule::kEastAsian, false},
    {kDeepseekLettersExpression, SplitRule::kDeepseekLetters, false},
    {R"(\s?[!-/:-~！-／：-～‘-‟　-。]+)", SplitRule::kDeepseekSymbols, false},
    {R"(\s+$)", SplitRule::kTrailingSpace, false},
};

Status add_split(const Json& part, const std::string& name, JsonPreTokenizer& out) {
  const Json* pattern = json_member(part, "pattern");
  const std::string expression = pattern && pattern->is_object() ? json_text(*pattern, "Regex") : std::string();
  if (expression.empty()) return unsupported("{}: a Split pre-tokenizer without a \"Regex\" is not supported", name);
  const std::string behavior = json_text(part, "behavior");
  const bool invert = json_flag(part, "invert", false);
  for (const KnownExpression& known : kExpressions) {
    if (known.text != expression) continue;
    // Keeping matches and dropping the rest is the same as isolating them when there is no rest.
    const bool isolated = behavior == "Isolated" && !invert;
    const bool inverted = behavior == "Removed" && invert && known.covers_all;
    if (!isolated && !inverted) {
      return unsupported("{}: the Split pre-tokenizer {} with behavior {} is not supported, expected \"Isolated\"",
                         name, quote_name(expression), quote_name(behavior));
    }
    out.rules.push_back(known.rule);
    return ok();
  }
  return unsupported("{}: the pre-tokenizer expression {} is none that we know; name one of ours to use instead", name,
                     quote_name(expression));
}

Status add_metaspace(const Json& part, const std::string& name, JsonPreTokenizer& out) {
  const std::string scheme = json_text(part, "prepend_scheme");
  if (json_text(part, "replacement") != kSpaceMark || scheme != "never" || json_flag(part, "split", true)) {
    return unsupported(
        "{}: the Metaspace pre-tokenizer with prepend_scheme {} is not supported, expected \"never\" "
        "without \"split\"",
        name, quote_name(scheme));
  }
  out.metaspace = true;
  return ok();
}

Status add_part(const Json& part, const std::string& name, JsonPreTokenizer& out) {
  if (!part.is_object()) return invalid_input("{}: \"pre_tokenizer\" is not an object", name);
  const std::string type = json_text(part, "type");
  if (type == "Split") return add_split(part, name, out);
  if (type == "Metaspace") return add_metaspace(part, name, out);
  if (type == "ByteLevel") {
    if (json_flag(part, "add_prefix_space", true)) {
      return unsupported("{}: a ByteLevel pre-tokenizer with \"add_prefix_space\" is not supported", name);
    }
    if (json_flag(part, "use_regex", true)) out.rules.push_back(SplitRule::kGpt2);
    out.byte_level = true;
    return ok();
  }
  if (type == "Digits") {
    out.rules.push_back(json_flag(part, "individual_digits", false) ? SplitRule::kNumber : SplitRule::kNumbers);
    return ok();
  }
  if (type == "Punctuation" && json_text(part, "behavior") == "Contiguous") {
    out.rules.push_back(SplitRule::kPunctuation);
    return ok();
  }
  return unsupported("{}: the pre-tokenizer {} is not supported", name, quote_name(part.dump().substr(0, 200)));
}

}  // namespace

Result<JsonPreTokenizer> parse_json_pre_tokenizer(const Json& pre_tokenizer, const std::string& name) {
  JsonPreTokenizer result;
  if (pre_tokenizer.is_null()) return result;
  const Json* parts = pre_tokenizer.is_object() ? json_member(pre_tokenizer, "pretokenizers") : nullptr;
  if (!parts || !parts->is_array()) {
    BN_RETURN_IF_ERROR(add_part(pre_tokenizer, name, result));
    return result;
  }
  for (const Json& part : *parts) BN_RETURN_IF_ERROR(add_part(part, name, result));
  return result;
}

Json json_from_rules(std::span<const SplitRule> rules) {
  Json parts = Json::array();
  for (const SplitRule rule : rules) {
    for (const KnownExpression& known : kExpressions) {
      if (known.rule != rule) continue;
      parts.push_back({{"type", "Split"},
                       {"pattern", {{"Regex", std::string(known.text)}}},
                       {"behavior", "Isolated"},
                       {"invert", false}});
      break;
    }
  }
  parts.push_back({{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}});
  return {{"type", "Sequence"}, {"pretokenizers", std::move(parts)}};
}

Result<JsonSpaces> parse_json_normalizer(const Json& normalizer, const std::string& name) {
  JsonSpaces spaces;
  if (normalizer.is_null()) return spaces;
  const Json* list = json_member(normalizer, "normalizers");
  const Json parts = list && list->is_array() ? *list : Json::array({normalizer});
  for (const Json& part : parts) {
    const std::string type = json_text(part, "type");
    const Json* pattern = json_member(part, "pattern");
    if (type == "Prepend" && json_text(part, "prepend") == kSpaceMark && !spaces.marked && !spaces.prefix) {
      spaces.prefix = true;
    } else if (type == "Replace" && pattern && json_text(*pattern, "String") == " " &&
               json_text(part, "content") == kSpaceMark) {
      spaces.marked = true;
    } else {
      return unsupported("{}: the normalizer {} is not supported", name, quote_name(part.dump().substr(0, 200)));
    }
  }
  if (spaces.prefix && !spaces.marked) {
    return unsupported("{}: a Prepend normalizer without Replace is not supported", name);
  }
  return spaces;
}

}  // namespace bitnet
