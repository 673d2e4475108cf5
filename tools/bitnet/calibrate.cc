// bitnet calibrate: what the inputs of each linear layer look like on a text, and what rounding them costs.
#include "runtime/observe_inputs.h"

#include "base/file.h"
#include "calibration.h"
#include "interrupt.h"
#include "model/checkpoint.h"
#include "model/find_model.h"
#include "options.h"
#include "output.h"
#include "progress.h"

#include "bitnet/tokenizer.h"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <memory>
#include <optional>

namespace bitnet::cli {
namespace {

struct CalibrateFlags {
  std::string source, output, calibration;
  int64_t n_ctx = 256, max_tokens = 2048;
  int n_threads = 0;
};

constexpr size_t kShownInputs = 12;

OrderedJson clips_json(const StreamingHistogram& histogram, int bits) {
  return {{"mse", histogram.clip_by_squared_error(bits)},
          {"kl", histogram.clip_by_kl(bits)},
          {"entropy", histogram.clip_by_entropy(bits)},
          {"percentile", histogram.percentile(0.999)}};
}

OrderedJson input_json(const InputStatistics& input) {
  const StreamingHistogram& h = input.histogram;
  return {{"weight", input.weight},
          {"n_tokens", input.n_tokens},
          {"absmax", h.absmax()},
          {"mean_magnitude", h.mean_magnitude()},
          {"mean_square", h.mean_square()},
          {"percentiles",
           {{"50", h.percentile(0.5)},
            {"90", h.percentile(0.9)},
            {"99", h.percentile(0.99)},
            {"99.9", h.percentile(0.999)}}},
          {"clip_int8", clips_json(h, 8)},
          {"clip_int4", clips_json(h, 4)},
          {"sqnr_db",
           {{"int8", input.int8.metrics().sqnr_db},
            {"int4", input.int4.metrics().sqnr_db},
            {"topk", input.topk.metrics().sqnr_db}}},
          {"column_mean_squares", input.mean_squares}};
}

// The inputs that rounding to int8 costs most.
std::string worst_inputs(const std::vector<InputStatistics>& inputs) {
  std::vector<const InputStatistics*> order;
  for (const InputStatistics& input : inputs) order.push_back(&input);
  std::stable_sort(order.begin(), order.end(),
                   [](auto* a, auto* b) { return a->int8.metrics().sqnr_db < b->int8.metrics().sqnr_db; });
  std::vector<std::vector<std::string>> rows = {
      {"input of", "absmax", "99.9%", "median", "int8 dB", "int4 dB", "top-k dB"}};
  for (size_t i = 0; i < std::min(order.size(), kShownInputs); ++i) {
    const InputStatistics& in = *order[i];
    rows.push_back(
        {in.weight, fmt::format("{:.3g}", in.histogram.absmax()), fmt::format("{:.3g}", in.histogram.percentile(0.999)),
         fmt::format("{:.3g}", in.histogram.percentile(0.5)), fmt::format("{:.1f}", in.int8.metrics().sqnr_db),
         fmt::format("{:.1f}", in.int4.metrics().sqnr_db), fmt::format("{:.1f}", in.topk.metrics().sqnr_db)});
  }
  return table(rows);
}

Result<int> run(const Invocation& invocation, const CalibrateFlags& flags) {
  BN_ASSIGN_OR_RETURN(const std::string source, find_model(flags.source));
  BN_ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::open(source, {}));
  std::optional<Tokenizer> tokenizer;
  if (checkpoint.vocabulary()) {
    BN_ASSIGN_OR_RETURN(tokenizer, make_tokenizer(*checkpoint.vocabulary(), source));
  }
  BN_ASSIGN_OR_RETURN(const std::vector<int32_t> ids,
                      calibration_ids(flags.calibration, tokenizer ? &*tokenizer : nullptr, flags.max_tokens));
  const Result<std::vector<InputStatistics>> inputs = [&] {
    const InterruptScope scope;
    Progress progress("Running " + flags.source);
    ObserveOptions options;
    options.ids = ids;
    options.n_ctx = flags.n_ctx;
    options.n_threads = flags.n_threads;
    options.on_progress = [&](double done) {
      progress.update(done);
      return !interrupted();
    };
    return observe_inputs(source, options);
  }();
  if (!inputs) return inputs.error();
  OrderedJson entries = OrderedJson::array();
  for (const InputStatistics& input : *inputs) entries.push_back(input_json(input));
  const OrderedJson document = {{"source", flags.source}, {"n_tokens", ids.size()}, {"inputs", std::move(entries)}};
  if (!flags.output.empty()) BN_RETURN_IF_ERROR(write_file_atomically(flags.output, document.dump(1) + "\n"));
  if (invocation.json) {
    print_json(document);
    return 0;
  }
  print(worst_inputs(*inputs));
  return 0;
}

}  // namespace

void add_calibrate(CLI::App& app, Invocation& invocation) {
  auto flags = std::make_shared<CalibrateFlags>();
  CLI::App* command = app.add_subcommand("calibrate", "Measure the inputs of each linear layer on a text");
  command->add_option("SOURCE", flags->source, "Model: Hugging Face folder or GGUF file")->required();
  command->add_option("-f,--calibration", flags->calibration, "A text file, JSON lines (.jsonl) or token ids (.npy)")
      ->required();
  command->add_option("-o,--output", flags->output, "Write everything to this JSON file");
  command->add_option("--ctx", flags->n_ctx, "Tokens a window")
      ->check(CLI::Range(2, 1 << 20).description(""))
      ->capture_default_str();
  command->add_option("--max-tokens", flags->max_tokens, "Use the text's first tokens only; 0: all")
      ->check(CLI::Range(0, 1 << 24).description(""))
      ->capture_default_str();
  add_threads_flag(*command, flags->n_threads);
  define(*command, invocation, "bitnet calibrate my-model.gguf -f book.txt -o inputs.json",
         [flags](const Invocation& self) { return run(self, *flags); });
}

}  // namespace bitnet::cli
