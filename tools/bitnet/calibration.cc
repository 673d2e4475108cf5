#include "calibration.h"

#include "base/file.h"
#include "format/json.h"
#include "format/npy.h"

#include <span>
#include <string_view>

namespace bitnet::cli {
namespace {

constexpr uint64_t kMaxFile_bytes = uint64_t{1} << 30;

// The texts of a file of JSON lines, one after another with an empty line between.
Result<std::string> texts_of_lines(std::string_view lines, const std::string& path) {
  std::string text;
  for (size_t number = 1; !lines.empty(); ++number) {
    const size_t end = lines.find('\n');
    const std::string_view line = lines.substr(0, end);
    lines.remove_prefix(end == std::string_view::npos ? lines.size() : end + 1);
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    BN_ASSIGN_OR_RETURN(const Json json, parse_json(line, fmt::format("{}: line {}", path, number)));
    const Json* found = &json;
    if (json.is_object() && json.contains("text")) found = &json["text"];
    if (!found->is_string()) {
      return invalid_input("{}: line {} is neither a string nor an object with a string \"text\"", path, number);
    }
    if (!text.empty()) text += "\n\n";
    text += found->get<std::string>();
  }
  return text;
}

}  // namespace

Result<std::vector<int32_t>> calibration_ids(const std::string& path, const Tokenizer* tokenizer, int64_t max_tokens) {
  BN_ASSIGN_OR_RETURN(std::string contents, read_file(path, kMaxFile_bytes));
  std::vector<int32_t> ids;
  if (path.ends_with(".npy")) {
    BN_ASSIGN_OR_RETURN(ids, npy_ids(std::as_bytes(std::span(contents)), path));
  } else {
    if (tokenizer == nullptr) {
      Error error = unsupported("{}: the model has no vocabulary to read a text with", path);
      error.suggestion = "give token ids as a NumPy array (.npy)";
      return error;
    }
    if (path.ends_with(".jsonl")) {
      BN_ASSIGN_OR_RETURN(contents, texts_of_lines(contents, path));
    }
    BN_ASSIGN_OR_RETURN(ids, tokenizer->encode(contents, {}));
  }
  if (max_tokens > 0 && int64_t(ids.size()) > max_tokens) ids.resize(size_t(max_tokens));
  if (ids.size() < 2) return invalid_input("{}: has {} tokens, calibration needs at least 2", path, ids.size());
  return ids;
}

}  // namespace bitnet::cli
