// bitnet perplexity: how well a model predicts a text, and how far it is from another model's predictions.
#include "runtime/perplexity.h"

#include "interrupt.h"
#include "logits_file.h"
#include "options.h"
#include "output.h"
#include "progress.h"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <memory>

namespace bitnet::cli {
namespace {

struct PerplexityFlags {
  ModelFlags model;
  SessionFlags session;
  std::string file;
  std::string kl_base, save_logits;
  int64_t stride = 0;
  int64_t max_tokens = 0;
  bool no_bos = false;
};

// Distance from the base file's predictions, over all scored tokens.
struct Divergence {
  double sum = 0, largest = 0;
  int64_t n = 0, n_same_top = 0;

  void add(std::span<const float> base, std::span<const float> logits) {
    const double kl = kl_divergence(base, logits);
    sum += kl;
    largest = std::max(largest, kl);
    n_same_top += std::max_element(base.begin(), base.end()) - base.begin() ==
                  std::max_element(logits.begin(), logits.end()) - logits.begin();
    ++n;
  }
};

struct Measured {
  PerplexityResult result;
  Divergence divergence;
};

// The indices of the tokens that perplexity() scores, in its order.
std::vector<int32_t> scored_indices(int64_t n, int64_t n_ctx, int64_t stride) {
  std::vector<int32_t> indices;
  int64_t n_seen = 0;
  for (int64_t begin = 0; n_seen < n; begin += stride) {
    const int64_t end = std::min(begin + n_ctx, n);
    for (int64_t i = std::max(n_seen, begin + 1); i < end; ++i) indices.push_back(int32_t(i));
    n_seen = end;
  }
  return indices;
}

Result<Measured> measure(Session& session, const std::vector<int32_t>& ids, const PerplexityFlags& flags) {
  std::unique_ptr<LogitsWriter> writer;
  std::unique_ptr<LogitsReader> base;
  const int64_t stride = flags.stride == 0 ? session.n_ctx() : flags.stride;
  if (!flags.save_logits.empty()) {
    BN_ASSIGN_OR_RETURN(writer, LogitsWriter::create(flags.save_logits, ids,
                                                     scored_indices(int64_t(ids.size()), session.n_ctx(), stride),
                                                     session.model().info().vocab_size));
  }
  if (!flags.kl_base.empty()) {
    BN_ASSIGN_OR_RETURN(base, LogitsReader::open(flags.kl_base, ids, session.model().info().vocab_size));
  }
  Measured measured;
  Status streamed = ok();
  PerplexityOptions options;
  options.stride = flags.stride;
  options.on_logits = [&](int64_t index, std::span<const float> logits) {
    if (base) {
      Result<std::span<const float>> row = base->predicting(index);
      if (!row) streamed = row.error();
      if (row) measured.divergence.add(*row, logits);
    }
    if (writer && streamed) streamed = writer->add(logits);
    return bool(streamed) && !interrupted();
  };
  const InterruptScope scope(&session);
  Progress progress("Perplexity");
  options.on_progress = [&](double done, const PerplexityResult&) {
    progress.update(done);
    return !interrupted();
  };
  Result<PerplexityResult> result = perplexity(session, ids, options);
  if (interrupted()) return interrupted_error();
  BN_RETURN_IF_ERROR(streamed);
  if (!result) return result.error();
  if (writer) BN_RETURN_IF_ERROR(writer->finish());
  measured.result = *result;
  return measured;
}

Result<int> run(const Invocation& invocation, const PerplexityFlags& flags) {
  BN_ASSIGN_OR_RETURN(const std::string text, read_path_or_stdin(flags.file));
  BN_ASSIGN_OR_RETURN(const Model model, load_model(invocation, flags.model, Logits::kAll));
  BN_ASSIGN_OR_RETURN(const Tokenizer* const tokenizer, tokenizer_of(model));
  EncodeOptions encode;
  encode.add_bos = !flags.no_bos;
  BN_ASSIGN_OR_RETURN(std::vector<int32_t> ids, tokenizer->encode(text, encode));
  if (flags.max_tokens > 0 && int64_t(ids.size()) > flags.max_tokens) ids.resize(size_t(flags.max_tokens));
  if (ids.size() < 2)
    return invalid_input("{}: the text has {} tokens, perplexity needs at least 2", flags.file, ids.size());
  BN_ASSIGN_OR_RETURN(Session session, model.new_session(session_options(flags.session, flags.model.n_threads)));
  BN_ASSIGN_OR_RETURN(const Measured measured, measure(session, ids, flags));

  const PerplexityResult& r = measured.result;
  const Divergence& d = measured.divergence;
  const int64_t stride = flags.stride == 0 ? session.n_ctx() : flags.stride;
  if (invocation.json) {
    OrderedJson document = {{"perplexity", r.perplexity},     {"nll", r.nll},           {"n_tokens", r.n_tokens},
                            {"tokens_per_s", r.tokens_per_s}, {"ctx", session.n_ctx()}, {"stride", stride},
                            {"n_text_tokens", ids.size()}};
    if (d.n > 0) {
      document["mean_kl"] = d.sum / double(d.n);
      document["max_kl"] = d.largest;
      document["same_top"] = double(d.n_same_top) / double(d.n);
    }
    print_json(document);
    return 0;
  }
  print(fmt::format("perplexity {:.4f}  (nll {:.6f} over {} tokens, context {}, stride {}, {} tokens/s)\n",
                    r.perplexity, r.nll, r.n_tokens, session.n_ctx(), stride, human_rate(r.tokens_per_s)));
  if (d.n > 0) {
    print(fmt::format("KL divergence from {}: mean {:.3g}, largest {:.3g}; same most likely token {:.2f}%\n",
                      flags.kl_base, d.sum / double(d.n), d.largest, 100 * double(d.n_same_top) / double(d.n)));
  }
  return 0;
}

}  // namespace

void add_perplexity(CLI::App& app, Invocation& invocation) {
  auto flags = std::make_shared<PerplexityFlags>();
  flags->session.kv = "f32";
  CLI::App* command = app.add_subcommand("perplexity", "Measure how well a model predicts a text");
  add_model_flags(*command, flags->model);
  command->add_option("-f,--file", flags->file, "Text; -: from the standard input")->required();
  command
      ->add_option("--stride", flags->stride,
                   "Tokens from window to window; 0: as many as --ctx. Smaller is slower and gives tokens more context")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 24).description(""))
      ->capture_default_str();
  command->add_option("--max-tokens", flags->max_tokens, "Use the text's first tokens only; 0: all")
      ->check(CLI::Range(0, 1 << 30).description(""))
      ->capture_default_str();
  command->add_option("--kl-base", flags->kl_base,
                      "Also compare with these logits: a file of --save-logits or of 'bitnet logits -o'");
  command->add_option("--save-logits", flags->save_logits, "Write the logits of every scored token, for --kl-base");
  command->add_flag("--no-bos", flags->no_bos, "Put no begin-of-text token in front of the text");
  add_session_flags(*command, flags->session);
  define(*command, invocation, "bitnet perplexity -m models/storyteller-29m.gguf -f book.txt --stride 256",
         [flags](const Invocation& self) { return run(self, *flags); });
}

}  // namespace bitnet::cli
