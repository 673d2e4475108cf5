#include "tokenizer/pre_tokenizer.h"

#include <algorithm>
#include <utility>

namespace bitnet {
namespace {

using enum SplitRule;

constexpr SplitRule kGpt2Rules[] = {kGpt2};
constexpr SplitRule kLlama3Rules[] = {kLlama3};
constexpr SplitRule kQwen2Rules[] = {kQwen2};
constexpr SplitRule kStarcoderRules[] = {kNumber, kGpt2};
constexpr SplitRule kFalconRules[] = {kPunctuation, kGpt2, kThreeDigits};
constexpr SplitRule kFalconJsonRules[] = {kPunctuation, kGpt2, kNumbers, kThreeDigits};
constexpr SplitRule kDefaultRules[] = {kPunctuationNoTick, kGpt2, kNumbers, kThreeDigits};
constexpr SplitRule kDeepseekLlmRules[] = {kLineBreak,     kDeepseekLetters, kDeepseekSymbols,
                                           kTrailingSpace, kEastAsian,       kNumbers};
constexpr SplitRule kDeepseekLlmJsonRules[] = {kLineBreak,     kDeepseekLetters, kDeepseekSymbols,
                                               kTrailingSpace, kEastAsian,       kNumber};
constexpr SplitRule kDeepseekCoderRules[] = {kLineBreak, kSpacedLetters, kSpacedPunctuation, kEastAsian, kNumber};

// The names that GGUF files use, and which expressions llama.cpp's converter means by them.
constexpr PreTokenizer::Known kKnown[] = {
    {"llama-bpe", "llama-bpe", kLlama3Rules, true, true},
    {"llama3", "llama-bpe", kLlama3Rules, true, true},
    {"llama-v3", "llama-bpe", kLlama3Rules, true, true},
    {"falcon3", "falcon3", kLlama3Rules, true, true},
    {"falcon_e", "falcon_e", kLlama3Rules, true, true},
    {"falcon-h1", "falcon-h1", kLlama3Rules, true, true},
    {"pixtral", "pixtral", kLlama3Rules, true, true},
    {"lfm2", "lfm2", kLlama3Rules, true, true},
    {"smaug-bpe", "smaug-bpe", kLlama3Rules, false, false},
    {"dbrx", "dbrx", kLlama3Rules, false, false},
    {"chatglm-bpe", "chatglm-bpe", kLlama3Rules, false, false},
    {"glm4", "glm4", kLlama3Rules, false, false},
    {"gpt-2", "gpt-2", kGpt2Rules, false, false},
    {"phi-2", "phi-2", kGpt2Rules, false, false},
    {"mpt", "mpt", kGpt2Rules, false, false},
    {"olmo", "olmo", kGpt2Rules, false, false},
    {"jais", "jais", kGpt2Rules, false, false},
    {"gigachat", "gigachat", kGpt2Rules, false, false},
    {"starcoder", "starcoder", kStarcoderRules, false, false},
    {"refact", "refact", kStarcoderRules, false, false},
    {"command-r", "command-r", kStarcoderRules, false, false},
    {"smollm", "smollm", kStarcoderRules, false, false},
    {"codeshell", "codeshell", kStarcoderRules, false, false},
    {"exaone", "exaone", kStarcoderRules, false, false},
    {"minerva-7b", "minerva-7b", kStarcoderRules, false, false},
    {"qwen2", "qwen2", kQwen2Rules, false, false},
    {"deepseek-r1-qwen", "deepseek-r1-qwen", kQwen2Rules, false, false},
    {"stablelm2", "stablelm2", kQwen2Rules, false, false},
    {"hunyuan", "hunyuan", kQwen2Rules, false, false},
    {"megrez", "megrez", kQwen2Rules, false, false},
    {"falcon", "falcon", kFalconRules, false, false},
    {"deepseek-llm", "deepseek-llm", kDeepseekLlmRules, false, false},
    {"deepseek-coder", "deepseek-coder", kDeepseekCoderRules, false, false},
    {"default", "default", kDefaultRules, false, false},
};

// The same pre-tokenizers as their tokenizer.json spells them: one digit rule more or other, which makes no
// difference to vocabularies that were trained with it.
constexpr std::pair<std::string_view, std::span<const SplitRule>> kSpelledOtherwise[] = {
    {"falcon", kFalconJsonRules},
    {"deepseek-llm", kDeepseekLlmJsonRules},
};

}  // namespace

const PreTokenizer::Known* PreTokenizer::find(std::string_view name) {
  for (const Known& known : kKnown) {
    if (known.name == name) return &known;
  }
  return nullptr;
}

std::string_view PreTokenizer::find_by_rules(std::span<const SplitRule> rules) {
  const auto same = [&](std::span<const SplitRule> other) {
    return std::equal(rules.begin(), rules.end(), other.begin(), other.end());
  };
  for (const Known& known : kKnown) {
    if (same(known.rules)) return known.canonical;
  }
  for (const auto& [name, spelled] : kSpelledOtherwise) {
    if (same(spelled)) return name;
  }
  return {};
}

std::string PreTokenizer::known_names() {
  std::string names;
  for (const Known& known : kKnown) names += (names.empty() ? "" : ", ") + std::string(known.name);
  return names;
}

}  // namespace bitnet
