#include "tokenizer/stop_tokens.h"

#include <algorithm>
#include <string_view>

namespace bitnet {
namespace {

constexpr std::string_view kStopNames[] = {"<|eot_id|>",    "<|eom_id|>",      "<|im_end|>", "<|end|>", "<end_of_turn>",
                                           "<|endoftext|>", "<|end_of_text|>", "<|EOT|>",    "<|eot|>"};
constexpr std::string_view kBosNames[] = {"<|begin_of_text|>", "<s>", "<bos>", "<|startoftext|>", "<|bos|>"};
constexpr std::string_view kEosNames[] = {"<|end_of_text|>", "</s>", "<eos>", "<|endoftext|>", "<|eos|>"};

template <size_t n>
std::optional<int32_t> find_special(const Vocabulary& vocabulary, const std::string_view (&names)[n]) {
  for (const std::string_view name : names) {
    for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
      if (vocabulary.types[id] == TokenType::kControl && vocabulary.tokens[id] == name) return int32_t(id);
    }
  }
  return std::nullopt;
}

}  // namespace

std::optional<int32_t> find_token(const Vocabulary& vocabulary, std::string_view text) {
  const auto it = std::find(vocabulary.tokens.begin(), vocabulary.tokens.end(), text);
  if (text.empty() || it == vocabulary.tokens.end()) return std::nullopt;
  return int32_t(it - vocabulary.tokens.begin());
}

void add_stop_ids(Vocabulary& vocabulary) {
  std::vector<int32_t>& ids = vocabulary.stop_ids;
  if (vocabulary.eos_id) ids.push_back(*vocabulary.eos_id);
  if (vocabulary.eot_id) ids.push_back(*vocabulary.eot_id);
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    if (vocabulary.types[id] != TokenType::kControl) continue;
    const bool stops =
        std::find(std::begin(kStopNames), std::end(kStopNames), vocabulary.tokens[id]) != std::end(kStopNames);
    if (stops) ids.push_back(int32_t(id));
    if (vocabulary.tokens[id] == "<|eot_id|>" && !vocabulary.eot_id) vocabulary.eot_id = int32_t(id);
  }
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
}

void guess_bos_and_eos(Vocabulary& vocabulary) {
  if (!vocabulary.bos_id) vocabulary.bos_id = find_special(vocabulary, kBosNames);
  if (!vocabulary.eos_id) vocabulary.eos_id = find_special(vocabulary, kEosNames);
}

}  // namespace bitnet
