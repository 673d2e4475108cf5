// bitnet train tokenizer: a byte-level BPE vocabulary learned from text.
#include "train/tokenizer/train_tokenizer.h"

#include "base/thread_pool.h"
#include "interrupt.h"
#include "options.h"
#include "output.h"
#include "progress.h"
#include "train.h"
#include "train_corpus_flags.h"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <memory>

namespace bitnet::cli {
namespace {

struct TokenizerFlags {
  TokenizerTrainingOptions options;
  CorpusFlags corpus;
  std::string folder;
};

Result<int> run(const Invocation& invocation, TokenizerFlags flags) {
  TokenizerTrainingOptions& options = flags.options;
  BN_ASSIGN_OR_RETURN(options.corpus, corpus_options(flags.corpus, options.corpus));
  if (options.n_threads == 0) options.n_threads = available_cpus();
  const auto start = std::chrono::steady_clock::now();
  const Result<TokenizerTrainingReport> report = [&] {
    const InterruptScope scope;
    Progress progress("Learning a vocabulary");
    options.on_progress = [&](double done) {
      progress.update(done);
      return !interrupted();
    };
    return train_tokenizer(options);
  }();
  if (!report) return report.error();
  std::error_code error;
  std::filesystem::create_directories(flags.folder, error);
  if (error) {
    return Error{ErrorCode::kResource, fmt::format("{}: cannot create the folder: {}", flags.folder, error.message())};
  }
  BN_RETURN_IF_ERROR(vocabulary_to_folder(report->vocabulary, flags.folder));
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const double bytes_per_token = double(report->text_bytes) / double(std::max<int64_t>(report->n_tokens, 1));
  if (invocation.json) {
    print_json({{"folder", flags.folder},
                {"vocab_size", report->vocabulary.tokens.size()},
                {"n_merges", report->vocabulary.merges.size()},
                {"pre_tokenizer", report->vocabulary.pre},
                {"text_bytes", report->text_bytes},
                {"n_words", report->n_words},
                {"n_tokens", report->n_tokens},
                {"bytes_per_token", bytes_per_token},
                {"seconds", seconds},
                {"notices", report->notices}});
    return 0;
  }
  for (const std::string& notice : report->notices) print_note(invocation, notice);
  print_report(fmt::format(
      "{}: {} tokens, {} merges, {} pre-tokenizer; {} of text, {} different words, {:.2f} bytes a "
      "token; {:.1f} s",
      flags.folder, report->vocabulary.tokens.size(), report->vocabulary.merges.size(), report->vocabulary.pre,
      human_bytes(report->text_bytes), human_count(report->n_words), bytes_per_token, seconds));
  return 0;
}

}  // namespace

void add_train_tokenizer(CLI::App& train, Invocation& invocation) {
  auto flags = std::make_shared<TokenizerFlags>();
  VocabularyPlan& plan = flags->options.plan;
  CLI::App* command = train.add_subcommand("tokenizer", "Learn a vocabulary from text (byte-level BPE)");
  add_corpus_flags(*command, flags->corpus, flags->options.inputs);
  command
      ->add_option("--vocab-size", plan.vocab_size, "Tokens in all: 256 bytes, the special tokens, and what is learned")
      ->required()
      ->check(CLI::Range(int64_t{256}, int64_t{10'000'000}).description(""));
  command->add_option("-o,--out", flags->folder, "Folder for tokenizer.json and tokenizer_config.json")->required();
  command
      ->add_option("--pre", plan.pre,
                   "How text is cut into words first: llama-bpe, gpt-2, qwen2, starcoder, falcon, deepseek-llm, ...")
      ->capture_default_str();
  command->add_option("--bos", plan.bos, "Token that begins a text; '': none")->capture_default_str();
  command->add_option("--eos", plan.eos, "Token that ends a text; '': none")->capture_default_str();
  command->add_option("--special", plan.special, "More special tokens, such as those of a chat")->delimiter(',');
  command->add_option("--min-count", plan.min_count, "A pair must occur so often to become a token")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 40).description(""))
      ->capture_default_str();
  flags->options.n_threads = 0;
  add_threads_flag(*command, flags->options.n_threads);
  define(*command, invocation, "bitnet train tokenizer books/ --vocab-size 4096 --out vocabulary",
         [flags](const Invocation& self) { return run(self, *flags); });
}

}  // namespace bitnet::cli
