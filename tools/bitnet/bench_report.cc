// bitnet bench report: a full set of measurements as a page of HTML, as Markdown and as JSON; comparison with a saved
// set; a verdict on another binary.
#include "bench_report.h"

#include "base/file.h"
#include "interrupt.h"
#include "kernels/cpu/dispatch.h"
#include "options.h"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <set>

namespace bitnet::cli {
namespace {

constexpr int kSlowerExitCode = 7;  // beside the codes of errors: nothing failed, the answer is "slower"

struct ReportFlags {
  SpeedReportOptions options;
  std::string output = "bench-report.html", save, baseline;
  bool quick = false, no_phases = false;
  CLI::Option *rounds = nullptr, *generate = nullptr, *pairs = nullptr;
};

// A small set for a first look; what was asked for by a flag stays.
void make_quick(ReportFlags& flags) {
  SpeedReportOptions& options = flags.options;
  if (flags.rounds->count() == 0) options.n_rounds = 3;
  if (flags.generate->count() == 0) options.n_generate = 16;
  if (flags.pairs->count() == 0) options.n_pairs = 8;
  if (options.prompts.empty()) options.prompts = {32};
  if (options.depths.empty()) options.depths = {1};
  if (options.threads.empty()) options.threads = {available_cpus()};
}

std::string markdown_path(const std::string& html) { return std::filesystem::path(html).replace_extension(".md"); }

// The line that makes this report again, without the folders of this machine.
std::string command_line(const ReportFlags& flags) {
  const SpeedReportOptions& o = flags.options;
  std::string line = "bitnet bench report";
  for (const std::string& model : o.models) line += " -m " + model;
  line += fmt::format(" -r {} -n {}", o.n_rounds, o.n_generate);
  if (!o.threads.empty()) line += fmt::format(" -t {}", fmt::join(o.threads, ","));
  if (!o.prompts.empty()) line += fmt::format(" -p {}", fmt::join(o.prompts, ","));
  if (!o.depths.empty()) line += fmt::format(" -d {}", fmt::join(o.depths, ","));
  if (!o.isas.empty()) line += fmt::format(" --isa {}", fmt::join(o.isas, ","));
  if (o.kv != "f16") line += " --kv " + o.kv;
  if (!o.against.empty()) line += fmt::format(" --against {} --pairs {}", o.against, o.n_pairs);
  return line;
}

Status check(const ReportFlags& flags) {
  const SpeedReportOptions& options = flags.options;
  if (options.n_rounds == 0 && options.against.empty()) {
    return invalid_argument("Nothing to measure: -r is 0 and there is no --against.");
  }
  if (markdown_path(flags.output) == flags.output) {
    return invalid_argument("-o {}: the name of the HTML file, beside which the Markdown gets the ending .md",
                            flags.output);
  }
  std::set<std::string> names;  // by which measurements are told apart, also from a baseline's
  for (const std::string& model : options.models) {
    if (!names.insert(model_name(model)).second) {
      return invalid_argument("-m {}: another model here is called {}, too", model, model_name(model));
    }
  }
  // A folder that is not there is better found now than after the measurements.
  for (const std::string& path : {flags.output, markdown_path(flags.output), flags.save}) {
    if (!path.empty()) BN_RETURN_IF_ERROR(AtomicFile::create(path));
  }
  const std::vector<const CpuKernels*> usable = usable_cpu_kernels();
  for (const std::string& isa : options.isas) {
    if (std::none_of(usable.begin(), usable.end(), [&](const CpuKernels* k) { return isa == k->name; })) {
      return unsupported("--isa {}: this machine or build cannot run it; 'bitnet devices' lists what it can", isa);
    }
  }
  return ok();
}

Result<int> run(const Invocation& invocation, ReportFlags& flags) {
  if (flags.options.models.empty()) flags.options.models = {"models/storyteller-29m.gguf"};
  if (flags.quick) make_quick(flags);
  flags.options.phases = !flags.no_phases;
  std::sort(flags.options.threads.begin(), flags.options.threads.end());
  BN_RETURN_IF_ERROR(check(flags));
  BN_ASSIGN_OR_RETURN(SpeedReport report, measure_speed(invocation, flags.options));
  if (!flags.options.against.empty()) {
    report.against = flags.options.against;
    BN_ASSIGN_OR_RETURN(report.pairs, run_pairs(flags.options));
  }
  if (!flags.baseline.empty()) BN_RETURN_IF_ERROR(compare_with_baseline(flags.baseline, report));

  const ReportDocument document = to_document(report, command_line(flags));
  const OrderedJson json = to_json(report);
  {
    const InterruptScope scope;  // an unfinished file goes away before we do
    BN_RETURN_IF_ERROR(write_file_atomically(flags.output, document_html(document)));
    BN_RETURN_IF_ERROR(write_file_atomically(markdown_path(flags.output), document_markdown(document)));
    if (!flags.save.empty()) {
      BN_RETURN_IF_ERROR(
          write_file_atomically(flags.save, json.dump(1, ' ', false, OrderedJson::error_handler_t::replace) + "\n"));
    }
  }
  if (invocation.json) {
    print_json(json);
  } else {
    print(for_people(report));
  }
  print_report(flags.output + ", " + markdown_path(flags.output) + (flags.save.empty() ? "" : ", " + flags.save) +
               ": written");
  const bool slower = std::any_of(report.pairs.begin(), report.pairs.end(),
                                  [](const PairedRuns& runs) { return runs.result.verdict == Verdict::kSlower; });
  return slower ? kSlowerExitCode : 0;
}

}  // namespace

void add_bench_report(CLI::App& bench, Invocation& invocation) {
  auto flags = std::make_shared<ReportFlags>();
  SpeedReportOptions& options = flags->options;
  CLI::App* command = bench.add_subcommand(
      "report",
      "Measure a full set on the CPU and write it as HTML and Markdown; tell whether another binary is slower");
  command->add_option("-m,--model", options.models,
                      "Model, may be given several times (default: models/storyteller-29m.gguf)");
  command->add_option("-o,--output", flags->output, "HTML file; the Markdown goes beside it")->capture_default_str();
  command->add_option("-t,--threads", options.threads, "Threads, 1,2,4 (default: powers of two and all processors)")
      ->delimiter(',')
      ->check(CLI::Range(1, 1024).description(""));
  const auto sizes = CLI::Range(int64_t{1}, int64_t{1} << 20).description("");
  command
      ->add_option("-p,--prompt-tokens", options.prompts, "Tokens of the prompts (default: 64,512 as far as they fit)")
      ->delimiter(',')
      ->check(sizes);
  flags->generate = command->add_option("-n,--new-tokens", options.n_generate, "Tokens that are generated")
                        ->check(sizes)
                        ->capture_default_str();
  command
      ->add_option("-d,--depth", options.depths,
                   "Tokens in the cache when generation starts (default: 1,512 as far as they fit)")
      ->delimiter(',')
      ->check(sizes);
  command->add_option("--isa", options.isas, "Instruction sets besides the best (default: all usable but generic)")
      ->delimiter(',');
  flags->rounds =
      command
          ->add_option("-r,--rounds", options.n_rounds,
                       "Times that everything runs, in turn, after a round that warms up; 0: only --against")
          ->check(CLI::Range(0, 1000).description(""))
          ->capture_default_str();
  add_kv_flag(*command, options.kv);
  command->add_flag("--no-phases", flags->no_phases, "Do not tell what the time goes to");
  command->add_flag("--quick", flags->quick, "A small set for a first look");
  command->add_option("--save", flags->save, "Also write all samples as JSON, a baseline for later");
  command->add_option("--baseline", flags->baseline, "Compare with such a file");
  command->add_option("--against", options.against,
                      "Another bitnet binary: run both in turn and tell whether this one is slower (exit code 7)");
  flags->pairs = command->add_option("--pairs", options.n_pairs, "Pairs of runs with --against")
                     ->check(CLI::Range(1, 500).description(""))
                     ->capture_default_str();
  define(*command, invocation,
         "bitnet bench report --quick\n"
         "  bitnet bench report -m models/storyteller-29m.gguf -o report.html --save today.json\n"
         "  bitnet bench report -r 0 --against ../before/bitnet\n\n"
         "Exit codes: 0, or 7 when --against finds this binary slower; errors as everywhere.",
         [flags](const Invocation& self) { return run(self, *flags); });
}

}  // namespace bitnet::cli
