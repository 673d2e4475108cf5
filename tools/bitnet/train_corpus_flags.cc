#include "train_corpus_flags.h"

#include <CLI/CLI.hpp>

namespace bitnet::cli {

void add_corpus_flags(CLI::App& command, CorpusFlags& flags, std::vector<std::string>& inputs) {
  command
      .add_option("INPUT", inputs,
                  "Text files, JSONL files (an object a line), folders of them; several are read in this order")
      ->required();
  command.add_option("--field", flags.field, "Member of a JSONL file's objects that holds the text")
      ->capture_default_str();
  command.add_option("--separator", flags.separator,
                     "What stands between the documents of a text file, \\n for a line break (default: a file is one "
                     "document)");
}

Result<CorpusOptions> corpus_options(const CorpusFlags& flags, CorpusOptions options) {
  options.field = flags.field;
  for (size_t i = 0; i < flags.separator.size(); ++i) {
    const char c = flags.separator[i];
    if (c != '\\') {
      options.separator += c;
      continue;
    }
    const char next = i + 1 < flags.separator.size() ? flags.separator[++i] : '\0';
    if (next != 'n' && next != 't' && next != '\\') {
      return invalid_argument(
          "--separator {}: a backslash stands for something with n, t or another one behind it only", flags.separator);
    }
    options.separator += next == 'n' ? '\n' : next == 't' ? '\t' : '\\';
  }
  return options;
}

}  // namespace bitnet::cli
