#include "format/json.h"

#include "format/json_events.h"
#include "format/text.h"

#include <cmath>
#include <utility>
#include <vector>

namespace bitnet {
namespace {

using Kind = JsonEvent::Kind;

// Builds the value from events. Containers being filled form a path from the root; only the innermost one grows, so
// the pointers to the others stay valid.
class ValueBuilder {
 public:
  std::string take(const JsonEvent& event) {
    switch (event.kind) {
      case Kind::kNull: put(nullptr); break;
      case Kind::kBool: put(event.boolean); break;
      case Kind::kInt: put(event.integer); break;
      case Kind::kUint: put(event.unsigned_integer); break;
      case Kind::kFloat: put(event.number); break;
      case Kind::kString: put(std::move(*event.text)); break;
      case Kind::kBeginObject: path_.push_back(put(Json::object())); break;
      case Kind::kBeginArray: path_.push_back(put(Json::array())); break;
      case Kind::kEndObject:
      case Kind::kEndArray: path_.pop_back(); break;
      case Kind::kKey: {
        auto& object = path_.back()->get_ref<Json::object_t&>();
        const auto [place, is_new] = object.try_emplace(*event.text);
        if (!is_new) return fmt::format("the key {} appears twice in one object", quote_name(*event.text));
        value_of_key_ = &place->second;
        break;
      }
    }
    return {};
  }
  Json value() && { return std::move(root_); }

 private:
  Json* put(Json value) {
    Json* place = &root_;
    if (!path_.empty()) {
      if (path_.back()->is_array()) {
        path_.back()->push_back(std::move(value));
        return &path_.back()->back();
      }
      place = value_of_key_;
    }
    *place = std::move(value);
    return place;
  }

  Json root_;
  std::vector<Json*> path_;
  Json* value_of_key_ = nullptr;
};

std::string described(const Json& value) {
  switch (value.type()) {
    case Json::value_t::null: return "null";
    case Json::value_t::boolean: return value.get<bool>() ? "true" : "false";
    case Json::value_t::string: return "a string";
    case Json::value_t::object: return "an object";
    case Json::value_t::array: return "an array";
    case Json::value_t::number_integer: return fmt::format("{}", value.get<int64_t>());
    case Json::value_t::number_unsigned: return fmt::format("{}", value.get<uint64_t>());
    case Json::value_t::number_float: return fmt::format("{}", value.get<double>());
    default: return "a value of an unknown type";
  }
}

Result<const Json*> member(const Json& object, const char* key, const std::string& name, const char* expected) {
  if (!object.is_object()) return invalid_input("{}: is {}, expected an object", name, described(object));
  const auto place = object.find(key);
  if (place == object.end()) return invalid_input("{}: \"{}\" is missing, expected {}", name, key, expected);
  return &*place;
}

}  // namespace

Result<Json> parse_json(std::string_view text, const std::string& name, const JsonLimits& limits) {
  ValueBuilder builder;
  BN_RETURN_IF_ERROR(read_json(text, name, limits, [&](const JsonEvent& event) { return builder.take(event); }));
  return std::move(builder).value();
}

Result<int64_t> json_int(const Json& object, const char* key, const std::string& name, int64_t min, int64_t max) {
  BN_ASSIGN_OR_RETURN(const Json* value, member(object, key, name, "a whole number"));
  if (!value->is_number_integer()) {
    return invalid_input("{}: \"{}\" is {}, expected a whole number", name, key, described(*value));
  }
  const bool too_large = value->is_number_unsigned() && value->get<uint64_t>() > uint64_t(INT64_MAX);
  if (too_large || value->get<int64_t>() < min || value->get<int64_t>() > max) {
    return invalid_input("{}: \"{}\" is {}, expected {} to {}", name, key, described(*value), min, max);
  }
  return value->get<int64_t>();
}

Result<double> json_number(const Json& object, const char* key, const std::string& name) {
  BN_ASSIGN_OR_RETURN(const Json* value, member(object, key, name, "a number"));
  if (!value->is_number()) return invalid_input("{}: \"{}\" is {}, expected a number", name, key, described(*value));
  return value->get<double>();
}

Result<std::string> json_string(const Json& object, const char* key, const std::string& name) {
  BN_ASSIGN_OR_RETURN(const Json* value, member(object, key, name, "a string"));
  if (!value->is_string()) return invalid_input("{}: \"{}\" is {}, expected a string", name, key, described(*value));
  return value->get<std::string>();
}

}  // namespace bitnet
