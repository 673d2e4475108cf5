#pragma once

#include "format/json.h"
#include "tokenizer/split_rules.h"

#include <span>
#include <string>
#include <vector>

namespace bitnet {

// What "pre_tokenizer" of a tokenizer.json says.
struct JsonPreTokenizer {
  std::vector<SplitRule> rules;
  bool byte_level = false;  // has a ByteLevel part
  bool metaspace = false;   // turns spaces into U+2581, adding none
};

// Refuses any part or regular expression that we do not have as a scanner.
Result<JsonPreTokenizer> parse_json_pre_tokenizer(const Json& pre_tokenizer, const std::string& name);

// The rules as JSON: a Split for each rule and ByteLevel at the end.
Json json_from_rules(std::span<const SplitRule> rules);

// What "normalizer" says: nothing, or SentencePiece's way to write spaces.
struct JsonSpaces {
  bool marked = false;  // as U+2581
  bool prefix = false;  // one in front of every text
};

// Refuses any other normaliser.
Result<JsonSpaces> parse_json_normalizer(const Json& normalizer, const std::string& name);

}  // namespace bitnet
