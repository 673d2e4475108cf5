// Texts and token ids from flags, files and the standard input.
#include "base/file.h"
#include "options.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <limits>

namespace bitnet::cli {
namespace {

constexpr size_t kMaxTextBytes = size_t{1} << 30;

Result<std::string> read_stream(int fd, const std::string& name) {
  std::string text;
  while (true) {
    const size_t old_size = text.size();
    if (old_size > kMaxTextBytes) return invalid_input("{}: longer than the limit of {} bytes", name, kMaxTextBytes);
    text.resize(old_size + std::max<size_t>(65536, old_size / 2));
    const ssize_t n = ::read(fd, text.data() + old_size, text.size() - old_size);
    text.resize(old_size + size_t(std::max<ssize_t>(n, 0)));
    if (n == 0) return text;
    if (n < 0 && errno != EINTR)
      return make_error(ErrorCode::kResource, "{}: cannot read: {}", name, std::strerror(errno));
  }
}

}  // namespace

Result<std::string> read_path_or_stdin(const std::string& path) {
  if (path == "-") return read_stream(STDIN_FILENO, "standard input");
  struct stat info {};
  if (::stat(path.c_str(), &info) == 0 && S_ISFIFO(info.st_mode)) {  // bitnet run -f <(command)
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return make_error(ErrorCode::kResource, "{}: cannot open: {}", path, std::strerror(errno));
    Result<std::string> text = read_stream(fd, path);
    ::close(fd);
    return text;
  }
  return read_file(path, kMaxTextBytes);
}

Result<std::string> read_text(const TextFlags& flags, const std::string& what, const std::string& example) {
  if (flags.has_text) return flags.text;
  if (!flags.file.empty()) return read_path_or_stdin(flags.file);
  if (::isatty(STDIN_FILENO) == 0) return read_path_or_stdin("-");
  Error error = invalid_argument("No {}: give it with -p TEXT or -f FILE, or pipe it in.", what);
  error.suggestion = example;
  return error;
}

Result<std::vector<int32_t>> parse_ids(const std::string& text, const std::string& where) {
  constexpr std::string_view kSeparators = " \t\r\n,[]";
  std::vector<int32_t> ids;
  for (size_t begin = text.find_first_not_of(kSeparators); begin != std::string::npos;) {
    const size_t end = std::min(text.find_first_of(kSeparators, begin), text.size());
    int32_t id = -1;
    const auto [stop, failure] = std::from_chars(text.data() + begin, text.data() + end, id);
    if (failure != std::errc() || stop != text.data() + end || id < 0) {
      Error error =
          invalid_argument("{}: '{}' is not a token id.", where, text.substr(begin, std::min<size_t>(end - begin, 40)));
      error.suggestion = "whole numbers from 0 with commas between them, for example 1,2,3";
      return error;
    }
    ids.push_back(id);
    begin = text.find_first_not_of(kSeparators, end);
  }
  return ids;
}

}  // namespace bitnet::cli
