#pragma once

#include "base/result.h"

#include "bitnet/tokenizer.h"

#include <cstdint>
#include <string>
#include <vector>

namespace bitnet::cli {

// Token ids to calibrate with, at most `max_tokens` of them (0: all): from a text file; from JSON lines (.jsonl), each
// a string or an object with a string "text"; or from a NumPy array of token ids (.npy), which needs no tokenizer.
Result<std::vector<int32_t>> calibration_ids(const std::string& path, const Tokenizer* tokenizer, int64_t max_tokens);

}  // namespace bitnet::cli
