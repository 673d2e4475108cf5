#include "format/safetensors_header.h"

#include "format/json_events.h"
#include "format/text.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <optional>
#include <utility>

namespace bitnet {
namespace {

using Kind = JsonEvent::Kind;

struct NamedType {
  std::string_view name;
  std::optional<DType> dtype;  // nothing: a type of the specification that we do not read
};
constexpr NamedType kTypes[] = {
    {"F64", DType::kF64},          {"F32", DType::kF32},          {"F16", DType::kF16},      {"BF16", DType::kBF16},
    {"I64", DType::kI64},          {"I32", DType::kI32},          {"I16", DType::kI16},      {"I8", DType::kI8},
    {"U64", DType::kU64},          {"U32", DType::kU32},          {"U16", DType::kU16},      {"U8", DType::kU8},
    {"BOOL", DType::kBool},        {"F8_E4M3", std::nullopt},     {"F8_E5M2", std::nullopt}, {"F8_E8M0", std::nullopt},
    {"F8_E4M3FNUZ", std::nullopt}, {"F8_E5M2FNUZ", std::nullopt}, {"F6_E2M3", std::nullopt}, {"F6_E3M2", std::nullopt},
    {"F4", std::nullopt},          {"C64", std::nullopt},
};

std::string number_problem(const char* what, const JsonEvent& event) {
  return fmt::format("{} is {}, expected whole numbers from 0 to 2^63 - 1", what, json_event_name(event));
}

// Understands the events of a header and nothing else: an object of tensors, each an object of exactly three members,
// and one object of strings. No value is kept that does not belong.
class HeaderReader {
 public:
  std::string take(const JsonEvent& event) {
    std::string problem = take_in_state(event);
    if (!problem.empty() && state_ >= State::kTensor && !tensor_.name.empty()) {
      problem += fmt::format(" (tensor {})", quote_name(tensor_.name));
    }
    return problem;
  }
  ErrorCode error_code() const { return error_code_; }
  SafetensorsHeader header() && { return std::move(header_); }

 private:
  enum class State : uint8_t {
    kStart,
    kEntries,
    kMetadata,
    kMetadataValues,
    kTensor,
    kMembers,
    kDtype,
    kShape,
    kShapeNumbers,
    kOffsets,
    kOffsetNumbers
  };

  std::string take_in_state(const JsonEvent& event) {
    switch (state_) {
      case State::kStart: return expect(event, Kind::kBeginObject, "the header", State::kEntries);
      case State::kEntries: return entry_key(event);
      case State::kMetadata: return expect(event, Kind::kBeginObject, "\"__metadata__\"", State::kMetadataValues);
      case State::kMetadataValues: return metadata_value(event);
      case State::kTensor: return expect(event, Kind::kBeginObject, "the tensor's entry", State::kMembers);
      case State::kMembers: return member_key(event);
      case State::kDtype: return dtype(event);
      case State::kShape: return expect(event, Kind::kBeginArray, "\"shape\"", State::kShapeNumbers);
      case State::kShapeNumbers: return shape_number(event);
      case State::kOffsets: return expect(event, Kind::kBeginArray, "\"data_offsets\"", State::kOffsetNumbers);
      case State::kOffsetNumbers: return offset_number(event);
    }
    return "has an unexpected value";
  }

  std::string expect(const JsonEvent& event, Kind kind, const char* what, State next) {
    if (event.kind != kind) {
      return fmt::format("{} is {}, expected {}", what, json_event_name(event),
                         kind == Kind::kBeginObject ? "an object" : "an array");
    }
    state_ = next;
    return {};
  }

  std::string entry_key(const JsonEvent& event) {
    if (event.kind == Kind::kEndObject) return {};
    if (*event.text == kMetadataKey) {
      if (std::exchange(has_metadata_, true)) return "the key \"__metadata__\" appears twice";
      state_ = State::kMetadata;
      return {};
    }
    if (event.text->size() > kMaxSafetensorsName_bytes || event.text->empty()) {
      return fmt::format("a tensor's name has {} bytes, expected 1 to {}", event.text->size(),
                         kMaxSafetensorsName_bytes);
    }
    if (event.text->find('\0') != std::string::npos) {
      return fmt::format("the tensor name {} has a NUL inside", quote_name(*event.text));
    }
    tensor_ = StoredTensor{};
    tensor_.name = std::move(*event.text);
    has_dtype_ = has_shape_ = has_offsets_ = false;
    state_ = State::kTensor;
    return {};
  }

  std::string metadata_value(const JsonEvent& event) {
    if (event.kind == Kind::kEndObject) {
      state_ = State::kEntries;
    } else if (event.kind == Kind::kKey) {
      metadata_key_ = std::move(*event.text);
      if (header_.metadata.contains(metadata_key_)) {
        return fmt::format("the key {} of \"__metadata__\" appears twice", quote_name(metadata_key_));
      }
    } else if (event.kind == Kind::kString) {
      if (event.text->size() > kMaxSafetensorsMetadata_bytes) {
        return fmt::format("the value of {} in \"__metadata__\" has {} bytes, more than the limit of {}",
                           quote_name(metadata_key_), event.text->size(), kMaxSafetensorsMetadata_bytes);
      }
      header_.metadata.emplace(std::move(metadata_key_), std::move(*event.text));
    } else {
      return fmt::format("the value of {} in \"__metadata__\" is {}, expected a string", quote_name(metadata_key_),
                         json_event_name(event));
    }
    return {};
  }

  std::string member_key(const JsonEvent& event) {
    if (event.kind == Kind::kEndObject) return end_tensor();
    const auto begin_member = [&](bool& seen, State next) -> std::string {
      if (std::exchange(seen, true)) return fmt::format("the key {} appears twice", quote_name(*event.text));
      state_ = next;
      return {};
    };
    if (*event.text == "dtype") return begin_member(has_dtype_, State::kDtype);
    if (*event.text == "shape") return begin_member(has_shape_, State::kShape);
    if (*event.text == "data_offsets") return begin_member(has_offsets_, State::kOffsets);
    return fmt::format("the key {} is none of \"dtype\", \"shape\", \"data_offsets\"", quote_name(*event.text));
  }

  std::string dtype(const JsonEvent& event) {
    if (event.kind != Kind::kString) {
      return fmt::format("\"dtype\" is {}, expected a string", json_event_name(event));
    }
    const auto* type = std::find_if(std::begin(kTypes), std::end(kTypes),
                                    [&](const NamedType& known) { return known.name == *event.text; });
    if (type == std::end(kTypes)) return fmt::format("the \"dtype\" {} is unknown", quote_name(*event.text));
    if (!type->dtype) {
      error_code_ = ErrorCode::kUnsupported;
      return fmt::format("the \"dtype\" {} is not supported", quote_name(*event.text));
    }
    tensor_.dtype = *type->dtype;
    state_ = State::kMembers;
    return {};
  }

  std::string shape_number(const JsonEvent& event) {
    if (event.kind == Kind::kEndArray) {
      state_ = State::kMembers;
      return {};
    }
    if (event.kind != Kind::kUint || event.unsigned_integer > uint64_t(INT64_MAX)) {
      return number_problem("\"shape\"", event);
    }
    if (tensor_.shape.size() == kMaxSafetensorsDims) {
      return fmt::format("\"shape\" has more than {} dimensions", kMaxSafetensorsDims);
    }
    tensor_.shape.push_back(int64_t(event.unsigned_integer));
    return {};
  }

  std::string offset_number(const JsonEvent& event) {
    if (event.kind == Kind::kEndArray) {
      if (n_offsets_ != 2) return fmt::format("\"data_offsets\" has {} numbers, expected 2", n_offsets_);
      n_offsets_ = 0;
      state_ = State::kMembers;
      return {};
    }
    if (event.kind != Kind::kUint || event.unsigned_integer > uint64_t(INT64_MAX)) {
      return number_problem("\"data_offsets\"", event);
    }
    if (n_offsets_ == 2) return "\"data_offsets\" has more than 2 numbers";
    offsets_[n_offsets_++] = event.unsigned_integer;
    return {};
  }

  std::string end_tensor() {
    for (const auto& [seen, name] :
         {std::pair(has_dtype_, "dtype"), std::pair(has_shape_, "shape"), std::pair(has_offsets_, "data_offsets")}) {
      if (!seen) return fmt::format("\"{}\" is missing", name);
    }
    const auto [begin, end] = offsets_;
    if (begin > end) return fmt::format("\"data_offsets\" begin at {} and end before, at {}", begin, end);
    const auto size_bytes = tensor_bytes(tensor_.dtype, tensor_.shape);
    if (!size_bytes) return size_bytes.error().message;
    if (end - begin != *size_bytes) {
      return fmt::format("\"data_offsets\" span {} bytes, but {} {} takes {}", end - begin,
                         dtype_info(tensor_.dtype).name, shape_string(tensor_.shape), *size_bytes);
    }
    tensor_.offset_bytes = begin;
    tensor_.size_bytes = *size_bytes;
    header_.tensors.push_back(std::move(tensor_));
    state_ = State::kEntries;
    return {};
  }

  SafetensorsHeader header_;
  State state_ = State::kStart;
  StoredTensor tensor_;
  std::string metadata_key_;
  bool has_metadata_ = false, has_dtype_ = false, has_shape_ = false, has_offsets_ = false;
  std::array<uint64_t, 2> offsets_{};
  size_t n_offsets_ = 0;
  ErrorCode error_code_ = ErrorCode::kInvalidInput;
};

}  // namespace

Result<SafetensorsHeader> parse_safetensors_header(std::string_view text, const std::string& file) {
  HeaderReader reader;
  const JsonLimits limits{.max_depth = 3, .max_bytes = kMaxSafetensorsHeader_bytes};
  Status status =
      read_json(text, file + ": header", limits, [&](const JsonEvent& event) { return reader.take(event); });
  if (!status) {
    if (status.error().code == ErrorCode::kInvalidInput) status.error().code = reader.error_code();
    return std::move(status.error());
  }
  return std::move(reader).header();
}

std::string_view safetensors_dtype_name(DType type) {
  for (const NamedType& known : kTypes) {
    if (known.dtype == type) return known.name;
  }
  return {};
}

}  // namespace bitnet
