#include "base/result.h"

#include <nlohmann/json.hpp>

namespace bitnet {

const char* error_kind(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInternal: return "internal";
    case ErrorCode::kInvalidArgument: return "invalid_argument";
    case ErrorCode::kInvalidInput: return "invalid_input";
    case ErrorCode::kUnsupported: return "unsupported";
    case ErrorCode::kResource: return "resource";
    case ErrorCode::kInterrupted: return "interrupted";
  }
  return "internal";
}

Severity severity(ErrorCode code) {
  if (code == ErrorCode::kInterrupted) return Severity::kNotice;
  return code == ErrorCode::kInternal ? Severity::kFatal : Severity::kError;
}

const char* severity_name(Severity severity) {
  switch (severity) {
    case Severity::kNotice: return "notice";
    case Severity::kError: return "error";
    case Severity::kFatal: return "fatal";
  }
  return "error";
}

std::string to_text(const Error& error) {
  std::string text = error.message + "\n";
  for (const std::string& step : error.context) text += "  " + step + "\n";
  if (!error.suggestion.empty()) text += "Try: " + error.suggestion + "\n";
  return text;
}

std::string to_json(const Error& error) {
  using Json = nlohmann::ordered_json;
  const Json document = {{"error",
                          {{"kind", error_kind(error.code)},
                           {"code", int(error.code)},
                           {"severity", severity_name(severity(error.code))},
                           {"message", error.message},
                           {"context", error.context},
                           {"suggestion", error.suggestion},
                           {"transient", error.transient}}}};
  return document.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace bitnet
