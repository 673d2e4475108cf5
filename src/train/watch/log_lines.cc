#include "train/watch/log_lines.h"

#include "base/file.h"
#include "format/text.h"

#include <algorithm>
#include <charconv>
#include <optional>

namespace bitnet {
namespace {

constexpr size_t kBlock_bytes = size_t{1} << 20;
constexpr size_t kMaxLine_bytes = size_t{64} << 20;

std::optional<int64_t> step_of(std::string_view line) {
  if (!line.starts_with(kLogLineStart)) return std::nullopt;
  line.remove_prefix(kLogLineStart.size());
  int64_t step = 0;
  const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), step);
  if (error != std::errc() || end == line.data() + line.size() || *end != ',') return std::nullopt;
  return step;
}

}  // namespace

Status for_each_log_line(const std::string& path, const std::function<bool(const LogLine&)>& fn) {
  BN_ASSIGN_OR_RETURN(const File file, File::open(path));
  std::string text;  // read and not yet handed out
  uint64_t offset = 0, begin_byte = 0;
  int64_t number = 0;
  while (offset < file.size_bytes()) {
    const size_t n = size_t(std::min<uint64_t>(kBlock_bytes, file.size_bytes() - offset)), old = text.size();
    text.resize(old + n);
    BN_RETURN_IF_ERROR(file.read_at(offset, std::as_writable_bytes(std::span(text)).subspan(old)));
    offset += n;
    size_t begin = 0;
    for (size_t end = text.find('\n', old); end != std::string::npos; end = text.find('\n', begin)) {
      const std::string_view line = std::string_view(text).substr(begin, end - begin);
      const auto step = step_of(line);
      ++number;
      if (!step) return invalid_input("{}: line {} does not begin with a step: {}", path, number, quote_name(line));
      begin_byte += line.size() + 1;
      if (!fn({line, number, *step, begin_byte, true})) return ok();
      begin = end + 1;
    }
    text.erase(0, begin);
    if (text.size() > kMaxLine_bytes) {
      return invalid_input("{}: line {} has more than {} bytes", path, number + 1, kMaxLine_bytes);
    }
  }
  if (!text.empty()) fn({text, number + 1, 0, file.size_bytes(), false});
  return ok();
}

}  // namespace bitnet
