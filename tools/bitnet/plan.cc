// bitnet plan: which scheme each weight should have so that a model fits a size and loses least.
#include "runtime/plan_precision.h"

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

#include <charconv>
#include <cmath>
#include <map>
#include <memory>
#include <sstream>

namespace bitnet::cli {
namespace {

struct PlanFlags {
  std::string source, output, calibration, budget = "80%";
  std::string schemes = "absmean:store=tq1_0,keep,q1_0";
  std::string embed_schemes = "keep,q8_0,q6_k,q5_k,q4_k,q3_k,q2_k";
  int64_t n_ctx = 256, max_tokens = 1024;
  int n_threads = 0;
};

// Schemes have commas of their own, so that a new one begins where a name does: after a comma without '=' behind it.
Result<std::vector<QuantScheme>> parse_schemes(const std::string& text) {
  std::vector<QuantScheme> schemes;
  std::stringstream parts(text);
  std::string part, whole;
  const auto add = [&]() -> Status {
    if (whole.empty()) return ok();
    BN_ASSIGN_OR_RETURN(QuantScheme scheme, parse_scheme(whole));
    schemes.push_back(std::move(scheme));
    return ok();
  };
  while (std::getline(parts, part, ',')) {
    const bool option = part.find(':') == std::string::npos &&
                        (part.find('=') != std::string::npos || part == "asym" || part == "search");
    if (option && !whole.empty()) {
      whole += (whole.find(':') == std::string::npos ? ":" : ",") + part;
      continue;
    }
    BN_RETURN_IF_ERROR(add());
    whole = part;
  }
  BN_RETURN_IF_ERROR(add());
  if (schemes.empty()) return invalid_argument("no scheme in \"{}\"", text);
  return schemes;
}

// "80%" of the weights as they are, or bytes: "12MB", "11500000".
Result<uint64_t> parse_budget(const std::string& text, uint64_t weight_bytes) {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view unit(end, size_t(text.data() + text.size() - end));
  const std::map<std::string_view, double> units = {
      {"%", double(weight_bytes) / 100}, {"", 1}, {"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}};
  const auto factor = units.find(unit);
  if (error != std::errc() || factor == units.end() || !(number > 0) || number * factor->second > 1e15) {
    return invalid_argument("the budget \"{}\": expected a share (80%) or bytes (12MB)", text);
  }
  return uint64_t(number * factor->second);
}

OrderedJson plan_json(const PlanFlags& flags, const PrecisionPlan& plan, uint64_t budget_bytes, size_t n_tokens) {
  OrderedJson weights = OrderedJson::object(), sensitivity = OrderedJson::object();
  for (const PlannedWeight& weight : plan.weights) {
    weights[weight.name] = weight.choice().scheme;
    OrderedJson effects = OrderedJson::array();
    for (const SchemeEffect& effect : weight.schemes) {
      effects.push_back({{"scheme", effect.scheme}, {"bytes", effect.bytes}, {"kl", effect.kl}});
    }
    sensitivity[weight.name] = std::move(effects);
  }
  return {{"source", flags.source},
          {"budget_bytes", budget_bytes},
          {"bytes", plan.bytes},
          {"expected_kl", plan.kl},
          {"nll", plan.nll},
          {"n_tokens", n_tokens},
          {"weights", std::move(weights)},
          {"sensitivity", std::move(sensitivity)}};
}

// How many weights and bytes each scheme got.
std::string summary(const PrecisionPlan& plan) {
  struct Share {
    int64_t n = 0;
    uint64_t bytes = 0;
    double kl = 0;
  };
  std::map<std::string, Share> shares;
  for (const PlannedWeight& weight : plan.weights) {
    Share& share = shares[weight.choice().scheme];
    ++share.n;
    share.bytes += weight.choice().bytes;
    share.kl += weight.choice().kl;
  }
  std::vector<std::vector<std::string>> rows = {{"scheme", "weights", "size", "expected KL"}};
  for (const auto& [scheme, share] : shares) {
    rows.push_back({scheme, fmt::format("{}", share.n), human_bytes(share.bytes), fmt::format("{:.3g}", share.kl)});
  }
  return table(rows);
}

Result<int> run(const Invocation& invocation, const PlanFlags& flags) {
  BN_ASSIGN_OR_RETURN(const std::string source, find_model(flags.source));
  PlanOptions options;
  BN_ASSIGN_OR_RETURN(options.linears, parse_schemes(flags.schemes));
  BN_ASSIGN_OR_RETURN(options.tables, parse_schemes(flags.embed_schemes));
  BN_ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::open(source, {}));
  uint64_t weight_bytes = 0;
  for (const WeightSpec& spec : checkpoint.weights()) weight_bytes += checkpoint.stored(spec).size_bytes;
  BN_ASSIGN_OR_RETURN(options.budget_bytes, parse_budget(flags.budget, weight_bytes));
  std::optional<Tokenizer> tokenizer;
  if (checkpoint.vocabulary()) {
    BN_ASSIGN_OR_RETURN(tokenizer, make_tokenizer(*checkpoint.vocabulary(), source));
  }
  BN_ASSIGN_OR_RETURN(const std::vector<int32_t> ids,
                      calibration_ids(flags.calibration, tokenizer ? &*tokenizer : nullptr, flags.max_tokens));
  options.ids = ids;
  options.n_ctx = flags.n_ctx;
  options.n_threads = flags.n_threads;
  const Result<PrecisionPlan> plan = [&] {
    const InterruptScope scope;
    Progress progress("Measuring " + flags.source);
    options.on_progress = [&](double done) {
      progress.update(done);
      return !interrupted();
    };
    return plan_precision(source, options);
  }();
  if (!plan) return plan.error();
  const OrderedJson document = plan_json(flags, *plan, options.budget_bytes, ids.size());
  if (!flags.output.empty()) BN_RETURN_IF_ERROR(write_file_atomically(flags.output, document.dump(1) + "\n"));
  if (invocation.json) {
    print_json(document);
    return 0;
  }
  print(summary(*plan));
  print_report(fmt::format("{} of weights in a budget of {} (as they are: {}); expected KL {:.3g} nats a token",
                           human_bytes(plan->bytes), human_bytes(options.budget_bytes), human_bytes(weight_bytes),
                           plan->kl));
  return 0;
}

}  // namespace

void add_plan(CLI::App& app, Invocation& invocation) {
  auto flags = std::make_shared<PlanFlags>();
  CLI::App* command = app.add_subcommand("plan", "Choose a scheme for each weight so that the model fits a size");
  command->add_option("SOURCE", flags->source, "Model: Hugging Face folder or GGUF file")->required();
  command
      ->add_option("-f,--calibration", flags->calibration,
                   "Text to measure on: a text file, JSON lines (.jsonl) or token ids (.npy)")
      ->required();
  command->add_option("-o,--output", flags->output, "Plan for 'bitnet quantize --plan' (JSON)");
  command->add_option("--budget", flags->budget, "Size of all weights: a share of what they take now, or bytes (12MB)")
      ->capture_default_str();
  command->add_option("--schemes", flags->schemes, "What a linear layer may become, comma separated")
      ->capture_default_str();
  command->add_option("--embed-schemes", flags->embed_schemes, "What embedding and head may become")
      ->capture_default_str();
  command->add_option("--ctx", flags->n_ctx, "Tokens a window")
      ->check(CLI::Range(2, 1 << 20).description(""))
      ->capture_default_str();
  command->add_option("--max-tokens", flags->max_tokens, "Use the text's first tokens only; 0: all")
      ->check(CLI::Range(0, 1 << 24).description(""))
      ->capture_default_str();
  add_threads_flag(*command, flags->n_threads);
  define(*command, invocation, "bitnet plan my-model.gguf -f book.txt --budget 80% -o plan.json",
         [flags](const Invocation& self) { return run(self, *flags); });
}

}  // namespace bitnet::cli
