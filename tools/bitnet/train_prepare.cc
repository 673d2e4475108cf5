// bitnet train prepare: text to shards of tokens, which training reads.
#include "interrupt.h"
#include "options.h"
#include "output.h"
#include "progress.h"
#include "train.h"
#include "train/data/prepare.h"
#include "train_corpus_flags.h"

#include "base/thread_pool.h"

#include <CLI/CLI.hpp>

#include <chrono>
#include <memory>

namespace bitnet::cli {
namespace {

struct PrepareFlags {
  PrepareOptions options;
  CorpusFlags corpus;
  std::optional<double> valid_tail;
  bool no_bos = false, no_eos = false;
};

constexpr double kDefaultTail = 0.05;

OrderedJson split_as_json(const PrepareReport& report, Split split) {
  return {{"n_tokens", report.info.n_tokens(split)},
          {"n_documents", report.info.n_documents(split)},
          {"n_counted", report.info.marked ? int64_t(report.n_counted[size_t(split)]) : report.info.n_tokens(split)},
          {"n_shards", report.info.shards[size_t(split)].size()},
          {"text_bytes", report.text_bytes[size_t(split)]}};
}

void print_for_people(const Invocation& invocation, const PrepareReport& report, const std::string& folder,
                      double seconds) {
  for (const std::string& notice : report.notices) print_note(invocation, notice);
  std::vector<std::vector<std::string>> rows = {{"split", "documents", "text", "tokens", "bytes/token", "shards"}};
  uint64_t text_bytes = 0;
  for (const Split split : {Split::kTrain, Split::kValid}) {
    const uint64_t n_tokens = uint64_t(report.info.n_tokens(split)), n_bytes = report.text_bytes[size_t(split)];
    text_bytes += n_bytes;
    rows.push_back({split_name(split), fmt::format("{}", report.info.n_documents(split)), human_bytes(n_bytes),
                    human_count(n_tokens),
                    n_tokens > 0 ? fmt::format("{:.2f}", double(n_bytes) / double(n_tokens)) : "",
                    fmt::format("{}", report.info.shards[size_t(split)].size())});
  }
  print(table(rows));
  if (report.info.marked) {
    print(fmt::format("\nof replies, which are learned: {} and {} tokens\n", human_count(report.n_counted[0]),
                      human_count(report.n_counted[1])));
  }
  print_report(fmt::format("{}: {} file(s), {}, {:.1f} s ({}/s)", folder, report.n_files, report.info.tokenizer,
                           seconds, human_bytes(uint64_t(double(text_bytes) / std::max(seconds, 1e-3)))));
}

Result<int> run(const Invocation& invocation, PrepareFlags flags) {
  PrepareOptions& options = flags.options;
  BN_ASSIGN_OR_RETURN(options.corpus, corpus_options(flags.corpus, options.corpus));
  options.corpus.valid_tail = flags.valid_tail.value_or(options.corpus.valid_documents > 0 ? 0 : kDefaultTail);
  options.add_bos = !flags.no_bos;
  options.add_eos = !flags.no_eos;
  if (options.n_threads == 0) options.n_threads = available_cpus();
  const auto start = std::chrono::steady_clock::now();
  const Result<PrepareReport> report = [&] {
    const InterruptScope scope;
    Progress progress("Preparing " + options.folder);
    options.on_progress = [&](double done) {
      progress.update(done);
      return !interrupted();
    };
    return prepare_dataset(options);
  }();
  if (!report) return report.error();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (invocation.json) {
    print_json({{"folder", options.folder},
                {"vocab_size", report->info.vocab_size},
                {"tokenizer", report->info.tokenizer},
                {"n_files", report->n_files},
                {"train", split_as_json(*report, Split::kTrain)},
                {"valid", split_as_json(*report, Split::kValid)},
                {"seconds", seconds},
                {"notices", report->notices}});
    return 0;
  }
  print_for_people(invocation, *report, options.folder, seconds);
  return 0;
}

}  // namespace

void add_train_prepare(CLI::App& train, Invocation& invocation) {
  auto flags = std::make_shared<PrepareFlags>();
  PrepareOptions& options = flags->options;
  CLI::App* command = train.add_subcommand("prepare", "Turn text into tokens that training reads");
  add_corpus_flags(*command, flags->corpus, options.inputs);
  command
      ->add_option("--tokenizer", options.tokenizer,
                   "byte (each byte a token), or a vocabulary: a file or folder of `bitnet train tokenizer`, a "
                   "tokenizer.json, a GGUF file, a tokenizer.model")
      ->required();
  command->add_option("--pre", options.pre_tokenizer, "Use this pre-tokenizer instead of the vocabulary's own");
  command->add_option("-o,--out", options.folder, "Folder for the tokens; made when all is done")->required();
  CLI::Option* tail =
      command
          ->add_option("--valid-tail", flags->valid_tail,
                       "Validate on the last share of the text's bytes; 0: no validation (default 0.05)")
          ->check(CLI::Range(0.0, 0.9).description(""));
  command
      ->add_option("--valid-documents", options.corpus.valid_documents,
                   "Validate on this share of the documents instead, chosen by a hash of what they say")
      ->check(CLI::Range(1e-6, 0.9).description(""))
      ->excludes(tail);
  command->add_flag("--conversations", options.corpus.conversations,
                    "Each line of the JSONL files is a conversation, of which training learns the replies");
  command->add_flag("--no-bos", flags->no_bos, "No begin-of-text token in front of documents");
  command->add_flag("--no-eos", flags->no_eos, "No end-of-text token behind documents");
  command->add_option("--shard-tokens", options.shard_tokens, "Tokens in a file at most")
      ->check(CLI::Range(int64_t{1000}, int64_t{1} << 40).description(""))
      ->capture_default_str();
  options.n_threads = 0;
  add_threads_flag(*command, options.n_threads);
  define(*command, invocation, "bitnet train prepare books/ --tokenizer vocabulary --out data",
         [flags](const Invocation& self) { return run(self, *flags); });
}

}  // namespace bitnet::cli
