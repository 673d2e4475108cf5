// bitnet bench: prompt and generation speed, memory, and how far both are from what the machine could do.
#include "bench.h"

#include "base/thread_pool.h"
#include "interrupt.h"
#include "memory/limits.h"
#include "memory/pool.h"
#include "model/convert.h"
#include "model/model.h"
#include "options.h"
#include "output.h"
#include "progress.h"
#include "report/statistics.h"

#include <CLI/CLI.hpp>

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>

namespace bitnet::cli {
namespace {

struct BenchFlags {
  ModelFlags model;
  std::string synthetic, type = "i2_s", embed_type = "f16", kv = "f16";
  int64_t chunk = 512;
  std::vector<double> densities;
  bool phases = false;
  BenchSizes sizes;
};

// A model of this shape in a file that goes away with us.
Status make_synthetic(const BenchFlags& flags, const std::string& path) {
  SynthOptions options;
  options.preset = flags.synthetic;
  BN_ASSIGN_OR_RETURN(options.linear_type, parse_type(flags.type, "--type"));
  BN_ASSIGN_OR_RETURN(options.embed_type, parse_type(flags.embed_type, "--embed-type"));
  const InterruptScope scope;
  Progress progress("Making " + flags.synthetic);
  options.on_progress = [&](double done) {
    progress.update(done);
    return !interrupted();
  };
  return synthesize(path, options);
}

std::string temporary_path() {
  std::error_code failure;
  std::filesystem::path folder = std::filesystem::temp_directory_path(failure);
  if (failure) folder = ".";
  return (folder / fmt::format("bitnet-bench-{}.gguf", ::getpid())).string();
}

OrderedJson to_json(const CopiedBytes& copied) {
  return {{"read", copied.read}, {"moved", copied.moved}, {"transferred", copied.transferred}};
}

OrderedJson to_json(const ModelInfo& info, const BenchReport& report, const BenchSizes& sizes) {
  OrderedJson results = OrderedJson::array();
  for (const BenchResult& r : report.results) {
    const double speed = median(r.speeds);
    OrderedJson entry = {{"test", r.test},
                         {"threads", r.n_threads},
                         {"device", info.device},
                         {"tokens_per_s", speed},
                         {"mean", mean(r.speeds)},
                         {"stddev", standard_deviation(r.speeds)},
                         {"bytes_per_token", r.bytes_per_token},
                         {"gb_per_s", speed * r.bytes_per_token / 1e9},
                         {"share_of_limit", nullptr},
                         {"limit_tokens_per_s", nullptr},
                         {"samples", r.speeds}};
    if (!r.share_of_limit.empty()) {
      entry["share_of_limit"] = median(r.share_of_limit);
      entry["limit_tokens_per_s"] = r.limit;
    }
    // A prompt reads the weights once a chunk.
    if (r.test.starts_with("pp")) {
      const int64_t n = sizes.n_prompt, n_reads = (n + sizes.session.chunk - 1) / sizes.session.chunk;
      const double bytes_per_token = r.bytes_per_token * double(n_reads) / double(n);
      entry["bytes_per_token"] = bytes_per_token;
      entry["gb_per_s"] = speed * bytes_per_token / 1e9;
      entry["gops_per_s"] = speed * double(info.ops_per_token) / 1e9;
    }
    for (const TimedBackend::Phase& phase : r.phases) {
      entry["phases"].push_back({{"name", phase.name},
                                 {"calls", phase.n_calls},
                                 {"us_per_token", phase.seconds * 1e6},
                                 {"weight_bytes_per_token", phase.weight_bytes}});
    }
    if (!r.step_phases.empty()) entry["phases"] = to_json(r.step_phases, report.limits.front());
    results.push_back(std::move(entry));
  }
  OrderedJson limits = OrderedJson::array();
  for (size_t i = 0; i < report.limits.size(); ++i) {
    limits.push_back({{"threads", sizes.threads[i]},
                      {"read_gb_per_s", report.limits[i].read_gb_per_s},
                      {"int8_gops_per_s", report.limits[i].int8_gops_per_s},
                      {"copy_gb_per_s", report.limits[i].copy_gb_per_s}});
  }
  const PoolReport pool = host_pool().report();
  return {
      {"model",
       {{"path", info.path},
        {"name", info.name},
        {"architecture", info.architecture},
        {"n_parameters", info.n_parameters},
        {"weight_types", info.weight_types},
        {"file_bytes", info.file_bytes},
        {"memory_bytes", info.memory_bytes},
        {"bytes_per_token", info.bytes_per_token},
        {"ops_per_token", info.ops_per_token}}},
      {"machine", {{"cpu", cpu_name()}, {"threads", available_cpus()}, {"kernels", info.kernels}, {"limits", limits}}},
      {"results", results},
      {"peak_rss_bytes", report.peak_rss_bytes},
      {"pool",
       {{"live_bytes", pool.live_bytes()},
        {"held_bytes", pool.held_bytes()},
        {"available_bytes", read_memory_limits().available_bytes}}},
      {"copied_bytes", {{"load", to_json(report.load_copied)}, {"token", to_json(report.token_copied)}}},
      {"load_s", report.load_s},
      {"first_token_s", report.first_token_s},
      {"logits_hash", report.logits_hash}};
}

void print_phases(const BenchResult& r) {
  if (r.phases.empty()) return;
  double total = 0;
  for (const TimedBackend::Phase& phase : r.phases) total += phase.seconds;
  std::vector<std::vector<std::string>> rows = {{"phase of " + r.test, "us/token", "share", "MB/token", "GB/s"}};
  for (const TimedBackend::Phase& phase : r.phases) {
    const double bytes = double(phase.weight_bytes);
    rows.push_back({phase.name, fmt::format("{:.0f}", phase.seconds * 1e6),
                    fmt::format("{:.1f}%", 100 * phase.seconds / total),
                    bytes > 0 ? fmt::format("{:.1f}", bytes / 1e6) : "",
                    bytes > 0 ? human_rate(bytes / phase.seconds / 1e9) : ""});
  }
  print(table(rows) + "\n");
}

void print_for_people(const ModelInfo& info, const BenchReport& report, const BenchSizes& sizes) {
  print(fmt::format("{}: {}, {} parameters, {} ({})\n", info.path, info.architecture,
                    human_count(uint64_t(info.n_parameters)), human_bytes(info.file_bytes), info.weight_types));
  print(fmt::format("{}, {} kernels\n\n", cpu_name(), info.kernels));
  std::vector<std::vector<std::string>> rows = {{"test", "threads", "tokens/s", "+-", "GB/s", "limit", "share of it"}};
  for (const BenchResult& r : report.results) {
    const double speed = median(r.speeds);
    const bool prompt = r.test.starts_with("pp");
    rows.push_back({r.test, fmt::format("{}", r.n_threads), human_rate(speed), human_rate(standard_deviation(r.speeds)),
                    prompt ? "" : human_rate(speed * r.bytes_per_token / 1e9),
                    r.share_of_limit.empty() ? "unknown" : human_rate(r.limit),
                    r.share_of_limit.empty() ? "" : fmt::format("{:.0f}%", 100 * median(r.share_of_limit))});
  }
  print(table(rows) + "\n");
  for (const BenchResult& r : report.results) {
    print_phases(r);
    print_step_phases(r.test, r.step_phases, report.limits.front());
  }
  for (size_t i = 0; i < report.limits.size(); ++i) {
    const MachineLimits& limits = report.limits[i];
    if (limits.read_gb_per_s <= 0) continue;
    print(fmt::format("this machine, {} thread{}: reads {} GB/s{}\n", sizes.threads[i],
                      sizes.threads[i] == 1 ? "" : "s", human_rate(limits.read_gb_per_s),
                      limits.int8_gops_per_s > 0 ? ", " + human_rate(limits.int8_gops_per_s) + " int8 GOP/s" : ""));
  }
  const double bytes = report.results.back().bytes_per_token;
  print(fmt::format("limit: generation reads {} of weights a token, a prompt token takes {} GOP\n",
                    human_bytes(uint64_t(bytes)), human_rate(double(info.ops_per_token) / 1e9)));
  if (std::any_of(report.results.begin(), report.results.end(),
                  [](const BenchResult& r) { return median(r.share_of_limit) > 1.05; })) {
    print("more than 100%: the weights are small enough to stay in the processor's cache\n");
  }
  print(fmt::format("load {:.2f} s, first token after {:.2f} s, peak memory {}, logits {}\n", report.load_s,
                    report.first_token_s, human_bytes(report.peak_rss_bytes), report.logits_hash));
  const CopiedBytes &load = report.load_copied, &token = report.token_copied;
  print(fmt::format("copied: loading read {} and moved {} in memory, a token {}{}\n", human_bytes(load.read),
                    human_bytes(load.moved), human_bytes(token.read + token.moved),
                    load.transferred == 0
                        ? ""
                        : fmt::format("; to and from the device {} and {}", human_bytes(load.transferred),
                                      human_bytes(token.transferred))));
}

Result<int> run(const Invocation& invocation, BenchFlags flags) {
  if (flags.model.model.empty() == flags.synthetic.empty()) {
    Error error = invalid_argument("Give either a model with -m or a shape with --synthetic.");
    error.suggestion = "bitnet bench -m models/storyteller-29m.gguf";
    return error;
  }
  if (flags.sizes.n_prompt == 0 && flags.sizes.n_generate == 0) {
    return invalid_argument("Nothing to measure: -p and -n are both 0.");
  }
  if (flags.sizes.sampled && flags.sizes.batch > 1) {
    return invalid_argument("--sample with --batch {}: sequences together take their best tokens", flags.sizes.batch);
  }
  MachineMeter meter;  // before the first thread
  std::optional<TemporaryFile> temporary;
  if (!flags.synthetic.empty()) {
    temporary.emplace(temporary_path());
    BN_RETURN_IF_ERROR(make_synthetic(flags, temporary->path()));
    flags.model.model = temporary->path();
  }
  if (flags.sizes.threads.empty()) flags.sizes.threads.push_back(available_cpus());
  flags.model.n_threads = *std::max_element(flags.sizes.threads.begin(), flags.sizes.threads.end());
  flags.sizes.session.chunk = flags.chunk;
  flags.sizes.session.kv_type = kv_type(flags.kv);

  const CopiedBytes copied_before = copied_bytes();
  const auto start = std::chrono::steady_clock::now();
  const auto elapsed = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); };
  MeasuringOptions measuring;
  if (!flags.densities.empty()) {
    measuring.gate_density = flags.densities[0];
    measuring.down_density = flags.densities[1];
    if (measuring.down_density > measuring.gate_density) {
      return invalid_argument("--densities {},{}: no more inputs of down can be non-zero than gates are positive",
                              measuring.gate_density, measuring.down_density);
    }
  }
  flags.sizes.step_phases = flags.phases && flags.model.device.starts_with("cuda");
  if (flags.phases && !flags.sizes.step_phases) {
    BN_ASSIGN_OR_RETURN(std::unique_ptr<Backend> backend, make_backend(flags.model.device));
    auto timed = std::make_unique<TimedBackend>(std::move(backend));
    flags.sizes.timed = timed.get();
    measuring.backend = std::move(timed);
  }
  BN_ASSIGN_OR_RETURN(const Model model, load_model(invocation, flags.model, Logits::kBest, {}, std::move(measuring)));
  if (flags.sizes.timed != nullptr) name_matrices(*model.impl(), *flags.sizes.timed);
  const double load_s = elapsed();
  const CopiedBytes load_copied = copied_bytes() - copied_before;
  CopiedBytes token_copied;
  {
    BN_ASSIGN_OR_RETURN(Session session, model.new_session(flags.sizes.session));
    const int32_t id = 0;
    session.want_logits(1);
    const CopiedBytes before = copied_bytes();
    BN_RETURN_IF_ERROR(session.append({&id, 1}));
    token_copied = copied_bytes() - before;
  }
  const double first_token_s = elapsed();
  BN_ASSIGN_OR_RETURN(BenchReport report, run_bench(model, flags.sizes, meter));
  report.load_s = load_s;
  report.load_copied = load_copied;
  report.token_copied = token_copied;
  report.first_token_s = first_token_s;
  if (invocation.json) {
    print_json(to_json(model.info(), report, flags.sizes));
  } else {
    print_for_people(model.info(), report, flags.sizes);
  }
  return 0;
}

}  // namespace

void add_bench(CLI::App& app, Invocation& invocation) {
  auto flags = std::make_shared<BenchFlags>();
  CLI::App* command = app.add_subcommand("bench", "Measure speed and memory, and the share of the machine's limits");
  CLI::Option* model = command->add_option("-m,--model", flags->model.model,
                                           "GGUF file, Hugging Face folder, Microsoft's model_state_int2.pt, or the "
                                           "name of a model in $BITNET_MODELS or ./models");
  command
      ->add_option("--synthetic", flags->synthetic, "Make a model of this shape with random weights and measure that")
      ->check(CLI::IsMember(synth_presets()))
      ->excludes(model);
  command->add_option("--type", flags->type, "With --synthetic: type of the linear layers")->capture_default_str();
  command->add_option("--embed-type", flags->embed_type, "With --synthetic: type of embedding and head")
      ->capture_default_str();
  command->add_option("-p,--prompt-tokens", flags->sizes.n_prompt, "Tokens of the prompt test; 0: leave it out")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 20).description(""))
      ->capture_default_str();
  command->add_option("-n,--new-tokens", flags->sizes.n_generate, "Tokens of the generation test; 0: leave it out")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 20).description(""))
      ->capture_default_str();
  command->add_option("-t,--threads", flags->sizes.threads, "Threads, 1,2,4 (default: all processors)")
      ->delimiter(',')
      ->check(CLI::Range(1, 1024).description(""));
  command
      ->add_option("-d,--depth", flags->sizes.depth, "Tokens in the cache, untimed, before the generation test starts")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20).description(""))
      ->capture_default_str();
  command
      ->add_option("--batch", flags->sizes.batch,
                   "Sequences that the generation test advances together, each with -d tokens in the cache")
      ->check(CLI::Range(int64_t{1}, int64_t{256}).description(""))
      ->capture_default_str();
  command->add_flag("--sample", flags->sizes.sampled,
                    "Draw the generation test's tokens by the default sampling options instead of taking the best");
  command
      ->add_option("-r,--repetitions", flags->sizes.repetitions, "Times that every test runs, after one that warms up")
      ->check(CLI::Range(1, 1000).description(""))
      ->capture_default_str();
  command->add_option("--device", flags->model.device, "Back end: cpu, cuda, cuda:N, cuda:N,M,... or reference")
      ->capture_default_str();
  add_kv_flag(*command, flags->kv);
  command->add_option("--chunk", flags->chunk, "Prompt tokens computed together")
      ->check(CLI::Range(int64_t{1}, int64_t{65536}).description(""))
      ->capture_default_str();
  command->add_flag("--phases", flags->phases, "Also tell what the time goes to");
  add_i2s_layout_flag(*command, flags->model.i2s_layout);
  add_head_flag(*command, flags->model.head);
  add_ffn_flag(*command, flags->model.ffn);
  add_cache_flag(*command, flags->model.cache);
  add_lora_flag(*command, flags->model.lora);
  command
      ->add_option("--densities", flags->densities,
                   "Impose these shares of positive gates and of non-zero inputs of down, such as a trained model's "
                   "0.34,0.19, by a mask")
      ->expected(2)
      ->delimiter(',')
      ->check(CLI::Range(1e-3, 1.0).description(""));
  add_bench_ops(*command, invocation);
  add_bench_report(*command, invocation);
  define(*command, invocation, "bitnet bench -m models/storyteller-29m.gguf -p 256 -n 64 -t 1,2 -r 5",
         [flags](const Invocation& self) { return run(self, *flags); });
}

}  // namespace bitnet::cli
