// bitnet train report: what a run did, as one page for a browser.
#include "train/watch/report.h"

#include "base/file.h"
#include "output.h"
#include "train.h"

#include <CLI/CLI.hpp>

#include <filesystem>
#include <memory>

namespace bitnet::cli {
namespace {

struct ReportFlags {
  std::string folder, output, title;
};

constexpr const char* kConfigNames[] = {"config.toml", "train.toml"};

Result<std::string> read_config(const std::string& folder) {
  for (const char* name : kConfigNames) {
    const std::string path = folder + "/" + name;
    std::error_code ignored;
    if (std::filesystem::exists(path, ignored)) return read_file(path, uint64_t{1} << 20);
  }
  return std::string();
}

Result<int> run(const Invocation& invocation, ReportFlags flags) {
  BN_ASSIGN_OR_RETURN(const RunHistory history, read_run_history(flags.folder));
  BN_ASSIGN_OR_RETURN(const std::string config, read_config(flags.folder));
  const std::filesystem::path folder = std::filesystem::absolute(flags.folder).lexically_normal();
  if (flags.title.empty()) {
    flags.title = (folder.has_filename() ? folder : folder.parent_path()).filename().string();
  }
  if (flags.output.empty()) flags.output = (std::filesystem::path(flags.folder) / "report.html").string();
  BN_RETURN_IF_ERROR(write_file_atomically(flags.output, run_report_html(history, flags.title, config)));
  if (invocation.json) {
    std::vector<std::string> metrics;
    for (const auto& [name, series] : history.series) metrics.push_back(name);
    print_json({{"output", flags.output},
                {"last_step", history.last_step},
                {"n_samples", history.samples.size()},
                {"metrics", metrics}});
    return 0;
  }
  print_report(fmt::format("{}: {} metrics up to step {}, {} samples; open it in a browser", flags.output,
                           history.series.size(), history.last_step, history.samples.size()));
  return 0;
}

}  // namespace

void add_train_report(CLI::App& train, Invocation& invocation) {
  auto flags = std::make_shared<ReportFlags>();
  CLI::App* command = train.add_subcommand("report", "Show a run as one page with plots");
  command->add_option("RUN", flags->folder, "Folder of the run")->required();
  command->add_option("-o,--output", flags->output, "HTML file (default: RUN/report.html)");
  command->add_option("--title", flags->title, "Title of the page (default: the folder's name)");
  define(*command, invocation, "bitnet train report run",
         [flags](const Invocation& self) { return run(self, *flags); });
}

}  // namespace bitnet::cli
