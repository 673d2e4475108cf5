#include "train/data/corpus_files.h"

#include "base/file.h"
#include "format/sniff.h"

#include <algorithm>
#include <array>
#include <filesystem>

namespace bitnet {
namespace {

namespace fs = std::filesystem;

constexpr size_t kSniff_bytes = 4096;

bool is_jsonl_name(const fs::path& path) {
  const std::string extension = path.extension().string();
  return extension == ".jsonl" || extension == ".ndjson" || extension == ".json";
}
bool is_text_name(const fs::path& path) {
  const std::string extension = path.extension().string();
  return extension == ".txt" || extension == ".text" || extension == ".md" || is_jsonl_name(path);
}

Result<std::vector<std::string>> files_of_folder(const std::string& folder, std::vector<std::string>& notices) {
  std::vector<std::string> paths;
  size_t n_other = 0;
  std::error_code error;
  for (fs::recursive_directory_iterator entry(folder, error); !error && entry != fs::recursive_directory_iterator();
       entry.increment(error)) {
    if (!entry->is_regular_file(error) || error) continue;
    if (is_text_name(entry->path())) {
      paths.push_back(entry->path().string());
    } else {
      ++n_other;
    }
  }
  if (error) return make_error(ErrorCode::kResource, "{}: cannot list the folder: {}", folder, error.message());
  if (paths.empty()) {
    return invalid_input("{}: the folder holds no text (.txt, .text, .md, .jsonl, .ndjson, .json)", folder);
  }
  if (n_other > 0) {
    notices.push_back(
        fmt::format("{}: {} file(s) with other names than .txt, .text, .md, .jsonl, .ndjson and .json "
                    "are left out; name them one by one to use them",
                    folder, n_other));
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

// Compressed files, archives, models, UTF-16: none of it is what a model should learn from.
Status check_is_text(const File& file) {
  std::array<std::byte, kSniff_bytes> bytes;
  const auto start = std::span(bytes).first(size_t(std::min<uint64_t>(kSniff_bytes, file.size_bytes())));
  BN_RETURN_IF_ERROR(file.read_at(0, start));
  if (std::find(start.begin(), start.end(), std::byte{0}) == start.end()) return ok();
  const std::string looks_like = describe_contents(start);
  return invalid_input("{}: is not text, as it holds NUL bytes{}", file.path(),
                       looks_like.empty() ? "" : "; it looks like " + looks_like);
}

// The first place at or behind `offset` where a character, or a line, begins.
Result<uint64_t> next_boundary(const File& file, uint64_t offset, bool is_jsonl) {
  std::array<std::byte, kSniff_bytes> bytes;
  bool line_ended = offset == 0;
  if (is_jsonl && offset > 0) --offset;  // it may be the first of a line already
  while (offset < file.size_bytes()) {
    const auto part = std::span(bytes).first(size_t(std::min<uint64_t>(kSniff_bytes, file.size_bytes() - offset)));
    BN_RETURN_IF_ERROR(file.read_at(offset, part));
    for (const std::byte byte : part) {
      if (is_jsonl ? line_ended : (byte & std::byte{0xc0}) != std::byte{0x80}) return offset;
      line_ended = byte == std::byte{'\n'};
      ++offset;
    }
  }
  return offset;
}

}  // namespace

Result<CorpusFiles> list_corpus(std::span<const std::string> inputs, double tail_share) {
  CorpusFiles files;
  std::vector<std::string> paths;
  for (const std::string& input : inputs) {
    std::error_code ignored;
    if (fs::is_directory(input, ignored)) {
      BN_ASSIGN_OR_RETURN(const auto in_folder, files_of_folder(input, files.notices));
      paths.insert(paths.end(), in_folder.begin(), in_folder.end());
    } else {
      paths.push_back(input);
    }
  }
  for (const std::string& path : paths) {
    BN_ASSIGN_OR_RETURN(const File file, File::open(path));
    BN_RETURN_IF_ERROR(check_is_text(file));
    files.segments.push_back({path, is_jsonl_name(path), 0, file.size_bytes(), false});
    files.size_bytes += file.size_bytes();
  }
  files.n_files = files.segments.size();
  if (tail_share <= 0) return files;
  const uint64_t cut = uint64_t((1 - tail_share) * double(files.size_bytes));
  uint64_t begin = 0;
  std::vector<CorpusSegment> segments;
  for (CorpusSegment& segment : files.segments) {
    const uint64_t size = segment.end;
    segment.is_tail = begin >= cut;
    if (begin < cut && cut < begin + size) {
      BN_ASSIGN_OR_RETURN(const File file, File::open(segment.path));
      BN_ASSIGN_OR_RETURN(const uint64_t boundary, next_boundary(file, cut - begin, segment.is_jsonl));
      segments.push_back({segment.path, segment.is_jsonl, 0, boundary, false});
      segments.push_back({segment.path, segment.is_jsonl, boundary, size, true});
    } else {
      segments.push_back(segment);
    }
    begin += size;
  }
  files.segments = std::move(segments);
  return files;
}

}  // namespace bitnet
