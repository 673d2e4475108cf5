#pragma once

#include <cassert>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace bitnet {

// What kind of thing went wrong. The numbers are the exit codes of the `bitnet` program and never change.
enum class ErrorCode : int {
  kInternal = 1,         // a bug of ours
  kInvalidArgument = 2,  // the caller's options do not make sense
  kInvalidInput = 3,     // a file or a text is missing, damaged or contradicts itself
  kUnsupported = 4,      // valid, but not something this build or machine can do
  kResource = 5,         // memory, disk, device or another resource is not to be had
  kInterrupted = 6,      // stopped on request
};

// "internal", "invalid_argument", "invalid_input", "unsupported", "resource", "interrupted".
const char* error_kind(ErrorCode code);

// What an error means for the program that gets it, by its kind.
enum class Severity : int {
  kNotice,  // nothing is wrong: it was asked for (kInterrupted)
  kError,   // this call failed and changed nothing; others go on
  kFatal,   // a bug of ours (kInternal): results of this process are in doubt
};
Severity severity(ErrorCode code);
const char* severity_name(Severity severity);  // "notice", "error", "fatal"

// An input error as a value. `message` is a full sentence naming file, tensor or field, what was expected and what
// was found. `context` holds outer steps, innermost first; `suggestion` is empty or says what to try next.
struct Error {
  ErrorCode code = ErrorCode::kInternal;
  std::string message;
  std::vector<std::string> context = {};
  std::string suggestion = {};
  bool transient = false;  // the same call may succeed a moment later

  Error& add_context(std::string step) {
    context.push_back(std::move(step));
    return *this;
  }
};

// For people: the message, a line for each step of the context, and "Try: " with the suggestion. Each line ends.
std::string to_text(const Error& error);
// For programs, in one line: {"error": {"kind", "code", "severity", "message", "context", "suggestion", "transient"}}.
// Bytes that are not UTF-8 become U+FFFD.
std::string to_json(const Error& error);

// A subset of std::expected<T, Error>, which C++20 does not have yet.
template <class T>
class [[nodiscard]] Result {
 public:
  using value_type = T;

  Result(T value) : v_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error) : v_(std::in_place_index<1>, std::move(error)) {}

  bool has_value() const { return v_.index() == 0; }
  explicit operator bool() const { return has_value(); }

  T& operator*() & {
    assert(has_value());
    return *std::get_if<0>(&v_);
  }
  const T& operator*() const& {
    assert(has_value());
    return *std::get_if<0>(&v_);
  }
  T&& operator*() && {
    assert(has_value());
    return std::move(*std::get_if<0>(&v_));
  }
  T* operator->() {
    assert(has_value());
    return std::get_if<0>(&v_);
  }
  const T* operator->() const {
    assert(has_value());
    return std::get_if<0>(&v_);
  }
  const Error& error() const {
    assert(!has_value());
    return *std::get_if<1>(&v_);
  }
  Error& error() {
    assert(!has_value());
    return *std::get_if<1>(&v_);
  }

 private:
  std::variant<T, Error> v_;
};

// Success without a value, or an Error.
using Status = Result<std::monostate>;
inline Status ok() { return std::monostate{}; }

}  // namespace bitnet
