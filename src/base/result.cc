#include "base/result.h"

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

}  // namespace bitnet
