#pragma once

#include "tokenizer/vocabulary.h"

#include <string>
#include <string_view>

namespace bitnet {

// The readers of vocabulary.h on bytes in memory; `name` is for error messages.
Result<Vocabulary> parse_tokenizer_json(std::string_view text, const std::string& name,
                                        const std::string& pre_override);
Result<Vocabulary> parse_tiktoken(std::string_view text, const std::string& name, const std::string& pre_override);
Result<Vocabulary> parse_sentencepiece(std::string_view bytes, const std::string& name);

// Whether a text begins as tiktoken ranks do: "IQ== 0", base64, a space, digits.
bool looks_like_tiktoken(std::string_view start);

}  // namespace bitnet
