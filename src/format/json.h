#pragma once

#include "base/result.h"

#include <nlohmann/json.hpp>

#include <string>
#include <string_view>

namespace bitnet {

using Json = nlohmann::json;  // object keys are sorted; order is never meaning in our inputs

struct JsonLimits {
  size_t max_depth = 64;
  size_t max_bytes = size_t{256} << 20;
};

// Parses untrusted text: one value, valid UTF-8, no duplicate key in an object, limited depth. `name` is the file or
// field that an error names, with the byte offset.
Result<Json> parse_json(std::string_view text, const std::string& name, const JsonLimits& limits = {});

// Typed access with errors that name file and key: 'config.json: "hidden_size" is a string, expected a whole number'.
Result<int64_t> json_int(const Json& object, const char* key, const std::string& name, int64_t min, int64_t max);
Result<double> json_number(const Json& object, const char* key, const std::string& name);
Result<std::string> json_string(const Json& object, const char* key, const std::string& name);

}  // namespace bitnet
