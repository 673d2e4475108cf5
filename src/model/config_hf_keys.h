#pragma once

#include "base/result.h"
#include "format/json.h"

#include <string>
#include <vector>

// Keys of a Hugging Face config.json, for config_hf.cc.
namespace bitnet::hf {

// The value of a key, or null where it is left out or null.
const Json* find(const Json& object, const char* key);
// The value as text for an error, cut short.
std::string short_dump(const Json& value);
// A number or boolean (0, 1) that equals `neutral`.
bool is_neutral(const Json& value, double neutral);
Result<bool> bool_or(const Json& object, const char* key, const std::string& file, bool fallback);
Error changes_mathematics(const std::string& file, const std::string& key, const Json& value);

// Refuses keys that would change the mathematics and notes those that nobody knows.
Status check_keys(const Json& json, const std::string& file, std::vector<std::string>& notices);

}  // namespace bitnet::hf
