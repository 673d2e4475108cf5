#pragma once

#include "base/result.h"
#include "bitnet/tokenizer.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace bitnet {

// Tokens of which some count as targets of training.
struct MarkedTokens {
  std::vector<int32_t> ids;
  std::vector<uint8_t> counted;  // 1: a target

  int64_t n_counted() const;
};

// One line of a JSONL file of conversations, of which the assistant's replies count, with the end of their turns:
//   {"messages": [{"role": "user", "content": "..."}, ...]}
//   {"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", ...}]}
//   {"instruction": "...", "input": "...", "output": "..."}, input may be absent
// all three through the vocabulary's chat template, or without one
//   {"prompt": "...", "completion": "..."}: begin-of-text, both as plain text, end-of-text as far as there are such.
// `name` is the file and line that errors speak of. Refuses a line without a reply.
Result<MarkedTokens> encode_conversation(const Tokenizer& tokenizer, std::string_view line, const std::string& name);

}  // namespace bitnet
