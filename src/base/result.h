#pragma once

#include "bitnet/result.h"

#include <fmt/format.h>

#include <string>
#include <utility>

namespace bitnet {

// make_error(ErrorCode::kInvalidInput, "{}: tensor {} has {} bytes, expected {}", ...).
template <class... Args>
Error make_error(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  return Error{code, fmt::format(format, std::forward<Args>(args)...)};
}
template <class... Args>
Error invalid_input(fmt::format_string<Args...> format, Args&&... args) {
  return Error{ErrorCode::kInvalidInput, fmt::format(format, std::forward<Args>(args)...)};
}
template <class... Args>
Error unsupported(fmt::format_string<Args...> format, Args&&... args) {
  return Error{ErrorCode::kUnsupported, fmt::format(format, std::forward<Args>(args)...)};
}
template <class... Args>
Error invalid_argument(fmt::format_string<Args...> format, Args&&... args) {
  return Error{ErrorCode::kInvalidArgument, fmt::format(format, std::forward<Args>(args)...)};
}

}  // namespace bitnet

#define BN_CONCAT_INNER(a, b) a##b
#define BN_CONCAT(a, b) BN_CONCAT_INNER(a, b)

// Returns the error of a Status or Result from the enclosing function, if it holds one.
#define BN_RETURN_IF_ERROR(expr) \
  if (auto bn_status = (expr); !bn_status) return std::move(bn_status.error())

// BN_ASSIGN_OR_RETURN(auto file, File::open(path));
#define BN_ASSIGN_OR_RETURN(declaration, expr)                                                     \
  auto BN_CONCAT(bn_result_, __LINE__) = (expr);                                                   \
  if (!BN_CONCAT(bn_result_, __LINE__)) return std::move(BN_CONCAT(bn_result_, __LINE__).error()); \
  declaration = *std::move(BN_CONCAT(bn_result_, __LINE__))
