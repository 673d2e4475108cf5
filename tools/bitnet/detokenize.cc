// bitnet detokenize: token ids back to the bytes they stand for.
#include "format/json.h"
#include "options.h"
#include "output.h"
#include "vocabulary_flags.h"

#include <CLI/CLI.hpp>

#include <unistd.h>

#include <memory>

namespace bitnet::cli {
namespace {

struct DetokenizeFlags {
  VocabularyFlags vocabulary;
  std::string ids;
  std::string file;
  bool no_special = false;
};

// Ids in any notation that our commands print, the document of `tokenize --json` too.
Result<std::vector<int32_t>> ids_of(const std::string& text, const std::string& name) {
  const size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string::npos || text[first] != '{') return parse_ids(text, name);
  BN_ASSIGN_OR_RETURN(const Json document, parse_json(text, name));
  const auto list = document.find("ids");
  if (list == document.end() || !list->is_array())
    return invalid_input("{}: \"ids\" is not an array of token ids", name);
  std::vector<int32_t> ids;
  for (const Json& id : *list) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() > uint64_t{INT32_MAX}) {
      return invalid_input("{}: \"ids\"[{}] is {}, expected a token id", name, ids.size(), id.dump().substr(0, 40));
    }
    ids.push_back(id.get<int32_t>());
  }
  return ids;
}

Result<std::vector<int32_t>> read_ids(const DetokenizeFlags& flags, bool has_ids) {
  if (has_ids) return parse_ids(flags.ids, "--ids");
  if (flags.file.empty() && ::isatty(STDIN_FILENO) != 0) {
    Error error = invalid_argument("No token ids: give them with --ids 1,2,3 or -f FILE, or pipe them in.");
    error.suggestion = "bitnet detokenize -m MODEL --ids 1,2,3";
    return error;
  }
  const std::string path = flags.file.empty() ? "-" : flags.file;
  BN_ASSIGN_OR_RETURN(const std::string text, read_path_or_stdin(path));
  return ids_of(text, path == "-" ? "standard input" : path);
}

Result<int> run(const Invocation& invocation, const DetokenizeFlags& flags, bool has_ids) {
  BN_ASSIGN_OR_RETURN(const Tokenizer tokenizer, load_vocabulary(invocation, flags.vocabulary));
  BN_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, read_ids(flags, has_ids));
  BN_ASSIGN_OR_RETURN(const std::string text, tokenizer.decode(ids, !flags.no_special));
  if (invocation.json) {
    print_json({{"text", text}});
    return 0;
  }
  print(text);  // the exact bytes; a newline only where a person reads them
  if (::isatty(STDOUT_FILENO) != 0 && (text.empty() || text.back() != '\n')) print("\n");
  return 0;
}

}  // namespace

void add_detokenize(CLI::App& app, Invocation& invocation) {
  auto flags = std::make_shared<DetokenizeFlags>();
  CLI::App* command = app.add_subcommand("detokenize", "Turn token ids back into text, exactly");
  add_vocabulary_flags(*command, flags->vocabulary);
  CLI::Option* ids = command->add_option("--ids", flags->ids, "Token ids, 1,2,3");
  command->add_option("-f,--file", flags->file, "Read the ids from this file; -: from the standard input")
      ->excludes(ids);
  command->add_flag("--no-special", flags->no_special, "Leave special tokens out");
  define(*command, invocation, "bitnet detokenize -m models/storyteller-29m.gguf --ids 49,1330,582",
         [flags, ids](const Invocation& self) { return run(self, *flags, ids->count() > 0); });
}

}  // namespace bitnet::cli
