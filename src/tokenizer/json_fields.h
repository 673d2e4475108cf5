#pragma once

#include "format/json.h"

#include <string>

namespace bitnet {

// Lenient access to the many optional fields of tokenizer files: a missing, null or mistyped member counts as absent.
inline const Json* json_member(const Json& object, const char* key) {
  if (!object.is_object()) return nullptr;
  const auto it = object.find(key);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}
inline bool json_flag(const Json& object, const char* key, bool fallback) {
  const Json* value = json_member(object, key);
  return value && value->is_boolean() ? value->get<bool>() : fallback;
}
inline std::string json_text(const Json& object, const char* key) {
  const Json* value = json_member(object, key);
  return value && value->is_string() ? value->get<std::string>() : std::string();
}

}  // namespace bitnet
