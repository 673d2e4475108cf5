#include "base/file.h"
#include "format/sniff.h"
#include "tokenizer/parse_vocabulary.h"
#include "tokenizer/tokenizer_impl.h"

#include <algorithm>
#include <filesystem>

namespace bitnet {
namespace {

Result<Vocabulary> read_folder(const std::string& path, const std::string& pre) {
  BN_ASSIGN_OR_RETURN(auto vocabulary, vocabulary_from_folder(path, pre));
  if (!vocabulary) {
    return invalid_input("{}: the folder holds no vocabulary, expected tokenizer.json or tokenizer.model", path);
  }
  return *std::move(vocabulary);
}

Result<Vocabulary> read_gguf(const std::string& path, const std::string& pre) {
  BN_ASSIGN_OR_RETURN(const GgufFile file, GgufFile::open(path));
  if (!gguf_has_vocabulary(file)) return invalid_input("{}: the file holds no vocabulary (tokenizer.ggml.*)", path);
  return vocabulary_from_gguf(file, pre);
}

// The kind of file is in its first bytes, not in its name.
Result<Vocabulary> read_any(const std::string& path, const std::string& pre) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) return read_folder(path, pre);
  BN_ASSIGN_OR_RETURN(const File file, File::open(path));
  std::string start(size_t(std::min<uint64_t>(file.size_bytes(), 4096)), '\0');
  BN_RETURN_IF_ERROR(file.read_at(0, std::as_writable_bytes(std::span(start))));
  const size_t first = start.find_first_not_of(" \t\r\n");
  if (start.substr(0, 4) == "GGUF") return read_gguf(path, pre);
  if (first != std::string::npos && start[first] == '{') return vocabulary_from_tokenizer_json(path, pre);
  if (looks_like_tiktoken(start)) return vocabulary_from_tiktoken(path, pre);
  // Field 1 of a SentencePiece ModelProto: a piece, whose own field 1 is its text.
  if (start.size() > 2 && start[0] == '\x0a' && (start[2] == '\x0a' || start[3] == '\x0a')) {
    return vocabulary_from_sentencepiece(path);
  }
  const std::string contents = describe_contents(std::as_bytes(std::span(start)));
  return invalid_input("{}: not a vocabulary we know (tokenizer.json, tiktoken ranks, SentencePiece model, GGUF){}",
                       path, contents.empty() ? "" : "; it looks like " + contents);
}

}  // namespace

Result<Tokenizer> Tokenizer::load(const std::string& path, const TokenizerOptions& options) {
  BN_ASSIGN_OR_RETURN(Vocabulary vocabulary, read_any(path, options.pre));
  return make_tokenizer(std::move(vocabulary), path);
}

}  // namespace bitnet
