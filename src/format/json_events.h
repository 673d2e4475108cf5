#pragma once

#include "base/result.h"
#include "format/json.h"

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace bitnet {

// One step through a JSON text. `text` belongs to the receiver (kString, kKey), who may move it away.
struct JsonEvent {
  enum class Kind : uint8_t {
    kNull,
    kBool,
    kInt,
    kUint,
    kFloat,
    kString,
    kKey,
    kBeginObject,
    kEndObject,
    kBeginArray,
    kEndArray
  };
  Kind kind;
  bool boolean = false;
  int64_t integer = 0;  // kInt: negative numbers only
  uint64_t unsigned_integer = 0;
  double number = 0;
  std::string* text = nullptr;
};
std::string json_event_name(const JsonEvent& event);  // "a string", "the number 1.5", "an array"

// Takes an event; a non-empty answer is the reason to stop reading.
using JsonSink = std::function<std::string(const JsonEvent&)>;

// Walks over one JSON value without recursion and without building it. Depth, size and UTF-8 are checked here,
// duplicate keys are the sink's matter. Errors read 'NAME: byte 17: reason'.
Status read_json(std::string_view text, const std::string& name, const JsonLimits& limits, const JsonSink& sink);

}  // namespace bitnet
