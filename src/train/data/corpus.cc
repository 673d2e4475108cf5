#include "train/data/corpus.h"

#include "format/checksum.h"
#include "format/json.h"
#include "tokenizer/unicode.h"
#include "train/data/corpus_files.h"

#include <algorithm>
#include <utility>

namespace bitnet {
namespace {

constexpr size_t kChunk_bytes = size_t{1} << 20;
constexpr size_t kMaxUncut_bytes = size_t{64} << 20;  // of text without a place where it may be cut
constexpr size_t kMaxLine_bytes = size_t{256} << 20;  // of a JSONL file
constexpr size_t kHashed_bytes = size_t{64} << 10;    // of a document, for its place in a split

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

// Whether the character that ends in front of `pos` is a letter or a digit.
bool ends_word(std::string_view text, size_t pos) {
  size_t begin = pos - 1;
  while (begin > 0 && pos - begin < 4 && (uint8_t(text[begin]) & 0xc0) == 0x80) --begin;
  const Utf8Char c = utf8_at(text.data(), begin, pos);
  const CharClass k = CharClasses::get()[c.code_point];
  return begin + c.size_bytes == pos && (k == CharClass::kLetter || k == CharClass::kNumber);
}

// The last place in (0, limit] where text may be cut; 0 when there is none.
size_t last_cut(std::string_view text, size_t limit, bool at_newlines) {
  for (size_t pos = std::min(limit, text.size() - 1); pos > 0; --pos) {
    const char before = text[pos - 1];
    if (text[pos] == ' ' && (uint8_t(before) < 0x80 ? !is_space(before) : ends_word(text, pos))) return pos;
    if (text[pos] == '\n' && at_newlines && ends_word(text, pos)) return pos;
  }
  return 0;
}

// Reads the bytes of a segment in order.
class SegmentReader {
 public:
  SegmentReader(File file, const CorpusSegment& segment)
      : file_(std::move(file)), offset_(segment.begin), end_(segment.end) {}

  std::string_view text() const { return std::string_view(text_).substr(n_taken_); }  // read and not yet taken
  void take(size_t n_bytes) { n_taken_ += n_bytes; }
  bool at_end() const { return offset_ == end_; }
  uint64_t offset() const { return offset_; }
  // At least n_bytes more, if the segment has them.
  Status read_more(size_t n_bytes) {
    text_.erase(0, std::exchange(n_taken_, 0));
    const size_t n = size_t(std::min<uint64_t>(n_bytes, end_ - offset_)), old = text_.size();
    text_.resize(old + n);
    BN_RETURN_IF_ERROR(file_.read_at(offset_, std::as_writable_bytes(std::span(text_)).subspan(old)));
    offset_ += n;
    return ok();
  }

 private:
  File file_;
  uint64_t offset_, end_;
  std::string text_;
  size_t n_taken_ = 0;
};

}  // namespace

struct Corpus::Impl {
  CorpusOptions options;
  CorpusFiles files;
  size_t n_segments_begun = 0;
  uint64_t bytes_before = 0;  // of the segments that are done
  std::optional<SegmentReader> reader;
  int64_t line_number = 0;

  bool begins_document = true;
  Split document_split = Split::kTrain;
  std::string json_text;  // the document of a JSONL line
  size_t n_json_taken = 0;

  const CorpusSegment& segment() const { return files.segments[n_segments_begun - 1]; }

  Status begin_segment() {
    if (n_segments_begun > 0) bytes_before += segment().end - segment().begin;
    const CorpusSegment& next = files.segments[n_segments_begun++];
    if (options.conversations && !next.is_jsonl) {
      return invalid_input("{}: conversations are read from .jsonl files, a JSON object a line", next.path);
    }
    BN_ASSIGN_OR_RETURN(File file, File::open(next.path));
    reader.emplace(std::move(file), next);
    if (next.begin == 0) line_number = 0;
    begins_document = true;
    return ok();
  }

  TextChunk chunk_of(std::string_view text, bool ends_document) {
    if (begins_document) document_split = split_of(text);
    TextChunk chunk{std::string(text), document_split, begins_document, ends_document};
    begins_document = ends_document;
    return chunk;
  }

  // By contents, so that a document stays on its side when others come or go.
  Split split_of(std::string_view text) const {
    if (segment().is_tail) return Split::kValid;
    if (options.valid_documents <= 0) return Split::kTrain;
    const uint64_t hash = checksum_of(std::as_bytes(std::span(text.substr(0, kHashed_bytes))));
    return double(hash >> 11) * 0x1p-53 < options.valid_documents ? Split::kValid : Split::kTrain;
  }

  // How much of a document's text makes a chunk: as far as it can be cut, or all of it when it is complete; 0: none
  // yet.
  Result<size_t> chunk_size(std::string_view text, bool complete) const {
    if (text.size() <= kChunk_bytes) return complete ? text.size() : 0;
    size_t pos = last_cut(text, kChunk_bytes, options.cut_at_newlines);
    if (pos == 0) pos = last_cut(text, text.size(), options.cut_at_newlines);
    if (pos > 0) return pos;
    if (text.size() > kMaxUncut_bytes) {
      return invalid_input("{}: {} bytes without a space or a line break where the text could be cut", segment().path,
                           text.size());
    }
    return complete ? text.size() : 0;
  }

  Result<std::optional<TextChunk>> next_of_text() {
    const std::string& separator = options.separator;
    for (;;) {
      const std::string_view text = reader->text();
      const size_t end = separator.empty() ? std::string::npos : text.find(separator);
      const bool found = end != std::string::npos, complete = found || reader->at_end();
      // Without one in sight the last bytes may be the start of a separator.
      const size_t known = found ? end : complete ? text.size() : text.size() - std::min(text.size(), separator.size());
      if (complete && known == 0 && begins_document) {
        if (!found) return std::optional<TextChunk>();
        reader->take(separator.size());
        continue;
      }
      BN_ASSIGN_OR_RETURN(const size_t n, chunk_size(text.substr(0, known), complete));
      if (n > 0 || complete) {
        const bool ends = complete && n == known;
        TextChunk chunk = chunk_of(text.substr(0, n), ends);
        reader->take(n + (ends && found ? separator.size() : 0));
        return std::optional(std::move(chunk));
      }
      BN_RETURN_IF_ERROR(reader->read_more(std::max(kChunk_bytes, text.size())));
    }
  }

  Result<std::optional<TextChunk>> next_of_jsonl() {
    while (n_json_taken == json_text.size()) {
      BN_ASSIGN_OR_RETURN(const bool found, next_line());
      if (!found) return std::optional<TextChunk>();
    }
    const std::string_view text = std::string_view(json_text).substr(n_json_taken);
    size_t n = text.size();
    if (!options.conversations) {
      BN_ASSIGN_OR_RETURN(n, chunk_size(text, true));
    }
    n_json_taken += n;
    TextChunk chunk = chunk_of(text.substr(0, n), n == text.size());
    if (options.conversations) chunk.origin = line_name();
    return std::optional(std::move(chunk));
  }

  std::string line_name() const { return fmt::format("{}: line {}", segment().path, line_number); }

  // Reads a line and the document in it, empty for a blank line; false at the end.
  Result<bool> next_line() {
    size_t searched = 0, end = std::string::npos;
    while ((end = reader->text().find('\n', searched)) == std::string::npos && !reader->at_end()) {
      searched = reader->text().size();
      if (searched > kMaxLine_bytes) {
        return invalid_input("{}: line {} has more than {} bytes", segment().path, line_number + 1, kMaxLine_bytes);
      }
      BN_RETURN_IF_ERROR(reader->read_more(kChunk_bytes));
    }
    const std::string_view line = reader->text().substr(0, end);
    if (line.empty() && end == std::string::npos) return false;
    ++line_number;
    json_text.clear();
    n_json_taken = 0;
    if (!std::all_of(line.begin(), line.end(), is_space)) {
      if (options.conversations) {
        json_text = line;
      } else {
        BN_ASSIGN_OR_RETURN(const Json json, parse_json(line, line_name()));
        if (!json.is_object()) return invalid_input("{}: is not a JSON object", line_name());
        BN_ASSIGN_OR_RETURN(json_text, json_string(json, options.field.c_str(), line_name()));
      }
    }
    reader->take(line.size() + (end != std::string::npos ? 1 : 0));
    return true;
  }
};

Corpus::Corpus(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Corpus::~Corpus() = default;
Corpus::Corpus(Corpus&&) noexcept = default;
Corpus& Corpus::operator=(Corpus&&) noexcept = default;

Result<Corpus> Corpus::open(std::span<const std::string> inputs, const CorpusOptions& options) {
  const auto is_share = [](double share) { return share >= 0 && share < 1; };
  if (!is_share(options.valid_tail) || !is_share(options.valid_documents)) {
    return invalid_argument("a share for validation of {}, expected at least 0 and less than 1",
                            is_share(options.valid_tail) ? options.valid_documents : options.valid_tail);
  }
  if (options.valid_tail > 0 && options.valid_documents > 0) {
    return invalid_argument("validation is either the tail of the text or some of the documents, not both");
  }
  auto impl = std::make_unique<Impl>();
  impl->options = options;
  BN_ASSIGN_OR_RETURN(impl->files, list_corpus(inputs, options.valid_tail));
  return Corpus(std::move(impl));
}

uint64_t Corpus::size_bytes() const { return impl_->files.size_bytes; }
size_t Corpus::n_files() const { return impl_->files.n_files; }
const std::vector<std::string>& Corpus::notices() const { return impl_->files.notices; }
uint64_t Corpus::position_bytes() const {
  return impl_->bytes_before + (impl_->reader ? impl_->reader->offset() - impl_->segment().begin : 0);
}

Result<std::optional<TextChunk>> Corpus::next() {
  Impl& impl = *impl_;
  for (;;) {
    if (impl.reader) {
      BN_ASSIGN_OR_RETURN(auto chunk, impl.segment().is_jsonl ? impl.next_of_jsonl() : impl.next_of_text());
      if (chunk) return chunk;
    }
    if (impl.n_segments_begun == impl.files.segments.size()) return std::optional<TextChunk>();
    BN_RETURN_IF_ERROR(impl.begin_segment());
  }
}

}  // namespace bitnet
