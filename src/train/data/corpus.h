#pragma once

#include "base/file.h"
#include "base/result.h"
#include "train/data/shard.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace bitnet {

struct CorpusOptions {
  std::string field = "text";  // of a line of a JSONL file
  bool conversations = false;  // a document is a JSONL line as it stands, of a conversation; text files are refused
  std::string separator;       // between the documents of a text file; empty: a file is one document
  // Validation, at most one of the two: the last share of the bytes, or the documents whose contents hash below a
  // share.
  double valid_tail = 0;
  double valid_documents = 0;
  bool cut_at_newlines = true;  // a long document may be cut in front of a line break, not only of a space
};

// A stretch of a document of about a megabyte. Long documents are cut in front of a space that follows another
// character (or a line break that follows a letter or digit), where no pre-tokenizer has a piece on both sides: the
// tokens of the stretches are the tokens of the document.
struct TextChunk {
  std::string text;
  Split split = Split::kTrain;
  bool begins_document = true;
  bool ends_document = true;
  std::string origin;  // of a conversation: file and line, for errors
};

// The documents of text and JSONL files (.jsonl, .ndjson, .json: an object a line), in order, in bounded memory.
// Folders are searched for .txt, .text, .md and JSONL files, sorted by path. One thread at a time.
class Corpus {
 public:
  static Result<Corpus> open(std::span<const std::string> inputs, const CorpusOptions& options);
  ~Corpus();
  Corpus(Corpus&&) noexcept;
  Corpus& operator=(Corpus&&) noexcept;

  uint64_t size_bytes() const;      // of all files
  uint64_t position_bytes() const;  // read so far
  size_t n_files() const;
  const std::vector<std::string>& notices() const;  // files of folders that were left out
  // The next stretch; nothing at the end. Empty documents are left out.
  Result<std::optional<TextChunk>> next();

 private:
  struct Impl;
  explicit Corpus(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace bitnet
