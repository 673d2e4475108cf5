#include "format/gguf.h"
#include "format/text.h"

#include <xxhash.h>
#include <cmath>
#include <random>
#include <type_traits>

namespace bitnet {
namespace {

// An integer of any GGUF width, as what holds them all.
struct Integer {
  bool is_negative;
  uint64_t magnitude_or_value;  // the value when not negative
  int64_t signed_value;
};

std::optional<Integer> as_integer(const GgufValue& value) {
  return std::visit(
      [](const auto& v) -> std::optional<Integer> {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>) {
          if constexpr (std::is_signed_v<T>) {
            if (v < 0) return Integer{true, 0, int64_t(v)};
          }
          return Integer{false, uint64_t(v), 0};
        } else {
          return std::nullopt;
        }
      },
      value);
}

Error missing(const std::string& file, std::string_view key, const char* expected) {
  return invalid_input("{}: metadata key {} is missing, expected {}", file, quote_name(key), expected);
}

Error wrong_type(const std::string& file, std::string_view key, const GgufValue& value, std::string_view expected) {
  return invalid_input("{}: metadata key {} has the type {}, expected {}", file, quote_name(key), gguf_type_name(value),
                       expected);
}

}  // namespace

size_t GgufMetadata::KeyHash::operator()(std::string_view key) const {
  static const uint64_t seed = [] {
    std::random_device device;
    return uint64_t(device()) << 32 | device();
  }();
  return size_t(XXH3_64bits_withSeed(key.data(), key.size(), seed));
}

const GgufValue* GgufMetadata::find(std::string_view key) const {
  const auto place = index_.find(key);
  return place == index_.end() ? nullptr : &entries_[place->second].second;
}

bool GgufMetadata::add(std::string key, GgufValue value) {
  if (!index_.try_emplace(key, entries_.size()).second) return false;
  entries_.emplace_back(std::move(key), std::move(value));
  return true;
}

Result<uint64_t> GgufMetadata::get_uint(std::string_view key, uint64_t min, uint64_t max,
                                        std::optional<uint64_t> fallback) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return fallback ? Result<uint64_t>(*fallback) : missing(file_name, key, "a whole number");
  const auto integer = as_integer(*value);
  if (!integer) return wrong_type(file_name, key, *value, "a whole number");
  if (integer->is_negative || integer->magnitude_or_value < min || integer->magnitude_or_value > max) {
    const std::string found = integer->is_negative ? fmt::format("{}", integer->signed_value)
                                                   : fmt::format("{}", integer->magnitude_or_value);
    return invalid_input("{}: metadata key {} is {}, expected {} to {}", file_name, quote_name(key), found, min, max);
  }
  return integer->magnitude_or_value;
}

Result<double> GgufMetadata::get_float(std::string_view key, std::optional<double> fallback) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return fallback ? Result<double>(*fallback) : missing(file_name, key, "a number");
  double number = 0;
  if (const auto* f32 = std::get_if<float>(value)) {
    number = *f32;
  } else if (const auto* f64 = std::get_if<double>(value)) {
    number = *f64;
  } else {
    return wrong_type(file_name, key, *value, "f32 or f64");
  }
  if (!std::isfinite(number)) {
    return invalid_input("{}: metadata key {} is {}, expected a finite number", file_name, quote_name(key), number);
  }
  return number;
}

Result<bool> GgufMetadata::get_bool(std::string_view key, std::optional<bool> fallback) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return fallback ? Result<bool>(*fallback) : missing(file_name, key, "a bool");
  const auto* flag = std::get_if<bool>(value);
  if (flag == nullptr) return wrong_type(file_name, key, *value, "bool");
  return *flag;
}

Result<std::string> GgufMetadata::get_string(std::string_view key, std::optional<std::string> fallback) const {
  const GgufValue* value = find(key);
  if (value == nullptr) {
    if (fallback) return *std::move(fallback);
    return missing(file_name, key, "a string");
  }
  const auto* text = std::get_if<std::string>(value);
  if (text == nullptr) return wrong_type(file_name, key, *value, "string");
  return *text;
}

template <class T>
Result<const std::vector<T>*> GgufMetadata::get_array(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return static_cast<const std::vector<T>*>(nullptr);
  if (const auto* array = std::get_if<GgufArray>(value)) {
    if (const auto* elements = std::get_if<std::vector<T>>(array)) return elements;
    if (std::visit([](const auto& elements) { return elements.empty(); }, *array)) {
      static const std::vector<T> kEmpty;
      return &kEmpty;
    }
  }
  return wrong_type(file_name, key, *value, gguf_type_name(GgufArray(std::vector<T>())));
}

template Result<const std::vector<uint8_t>*> GgufMetadata::get_array<uint8_t>(std::string_view) const;
template Result<const std::vector<int8_t>*> GgufMetadata::get_array<int8_t>(std::string_view) const;
template Result<const std::vector<uint16_t>*> GgufMetadata::get_array<uint16_t>(std::string_view) const;
template Result<const std::vector<int16_t>*> GgufMetadata::get_array<int16_t>(std::string_view) const;
template Result<const std::vector<uint32_t>*> GgufMetadata::get_array<uint32_t>(std::string_view) const;
template Result<const std::vector<int32_t>*> GgufMetadata::get_array<int32_t>(std::string_view) const;
template Result<const std::vector<float>*> GgufMetadata::get_array<float>(std::string_view) const;
template Result<const std::vector<bool>*> GgufMetadata::get_array<bool>(std::string_view) const;
template Result<const std::vector<std::string>*> GgufMetadata::get_array<std::string>(std::string_view) const;
template Result<const std::vector<uint64_t>*> GgufMetadata::get_array<uint64_t>(std::string_view) const;
template Result<const std::vector<int64_t>*> GgufMetadata::get_array<int64_t>(std::string_view) const;
template Result<const std::vector<double>*> GgufMetadata::get_array<double>(std::string_view) const;

}  // namespace bitnet
