// bitnet train CONFIG, bitnet finetune and bitnet distill: a training run, or what it would take.
#include "interrupt.h"
#include "output.h"
#include "train.h"
#include "train/trainer.h"

#include <CLI/CLI.hpp>

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <optional>

namespace bitnet::cli {
namespace {

struct TrainFlags {
  TrainOptions defaults;
  std::string config;
  TrainOptions given;  // by flags
  std::vector<CLI::Option*> flags;
  bool dry_run = false;
};

std::string flag_of(const OptionKey& key) {
  std::string name = "--" + key.name;
  std::replace(name.begin(), name.end(), '_', '-');
  return name;
}

// The file's values, and over them the flags'.
Result<TrainOptions> read_options(TrainFlags& flags) {
  TrainOptions options = flags.defaults;
  if (!flags.config.empty()) BN_RETURN_IF_ERROR(read_train_config(flags.config, options));
  const std::vector<OptionKey> to = option_keys(options), from = option_keys(flags.given);
  for (size_t i = 0; i < to.size(); ++i) {
    if (flags.flags[i]->count() == 0) continue;
    std::visit([&](auto* target) { *target = *std::get<decltype(target)>(from[i].value); }, to[i].value);
  }
  BN_RETURN_IF_ERROR(check_train_options(options));
  return options;
}

// The line of a step: rewritten on a terminal, otherwise one now and then.
class StepLine {
 public:
  explicit StepLine(int64_t every) : every_(every), terminal_(::isatty(STDERR_FILENO) != 0) {}
  ~StepLine() {
    if (open_) std::fputs("\n", stderr);
  }
  void show(const StepReport& r) {
    if (!terminal_ && r.step % every_ != 0 && r.step != r.n_steps && !r.skipped) return;
    if (r.zero_share > 0) {
      codes_ = fmt::format("  flipped {:.2f}%  zeros {:.1f}%", 100 * r.flipped_share, 100 * r.zero_share);
    }
    if (r.logits_divergence > 0) teacher_ = fmt::format("  teacher {:.4f}", r.logits_divergence);
    const double left = double(r.n_steps - r.step) * tokens_ / r.tokens_per_s;
    std::fputs(
        fmt::format("{}step {}/{}  loss {:.4f}{}  lr {:.3g}  grad norm {:.3g}{}  {:.0f} tokens/s  {:.0f} s left{}{}",
                    terminal_ ? "\r\x1b[K" : "", r.step, r.n_steps, r.loss, teacher_, r.lr, r.gradient_norm, codes_,
                    r.tokens_per_s, left, r.skipped ? "  skipped" : "", terminal_ ? "" : "\n")
            .c_str(),
        stderr);
    std::fflush(stderr);
    open_ = terminal_;
  }
  void say(const std::string& text) {
    std::fputs((std::string(open_ ? "\n" : "") + text + "\n").c_str(), stderr);
    open_ = false;
  }
  void set_tokens(double tokens) { tokens_ = tokens; }

 private:
  int64_t every_;
  bool terminal_, open_ = false;
  std::string codes_, teacher_;
  double tokens_ = 0;  // of a step
};

Result<int> dry_run(const Invocation& invocation, Trainer& trainer) {
  constexpr int kSteps = 3;  // the first one also takes memory
  StepReport report;
  for (int i = 0; i < kSteps; ++i) {
    BN_ASSIGN_OR_RETURN(report, trainer.train_step());
  }
  BN_RETURN_IF_ERROR(trainer.finish());
  if (!trainer.leads()) return 0;
  const double flops = trainer.flops_per_token(),
               tokens = double(trainer.n_tokens_per_step()) * double(trainer.n_steps());
  const double seconds = tokens / report.tokens_per_s;
  const std::optional<Trainer::TeacherCost> teacher = trainer.teacher_cost();
  if (invocation.json) {
    Json report_json = {{"parameters", trainer.n_parameters()},
                        {"trained_parameters", trainer.layout().n_parameters()},
                        {"memory_bytes", trainer.memory_bytes()},
                        {"activation_bytes", trainer.activation_bytes()},
                        {"flops_per_token", flops},
                        {"tokens", tokens},
                        {"tokens_per_s", report.tokens_per_s},
                        {"estimated_s", seconds}};
    if (teacher) {
      report_json["teacher"] = {{"parameters", teacher->n_parameters},
                                {"memory_bytes", teacher->memory_bytes},
                                {"flops_per_token", teacher->flops_per_token}};
    }
    print_json(report_json);
    return 0;
  }
  const auto n_parameters = uint64_t(trainer.n_parameters()), n_trained = uint64_t(trainer.layout().n_parameters());
  const std::string trained =
      n_trained == n_parameters ? "" : fmt::format(", {} of them trained", human_count(n_trained));
  print(fmt::format("parameters   {}{}\n", human_count(n_parameters), trained));
  print(fmt::format("memory       {} for weights, gradients and moments, {} for activations\n",
                    human_bytes(trainer.memory_bytes()), human_bytes(trainer.activation_bytes())));
  if (teacher) {
    print(fmt::format("teacher      {} parameters: {} and {:.4g} FLOPs a token of these\n",
                      human_count(uint64_t(teacher->n_parameters)), human_bytes(teacher->memory_bytes),
                      teacher->flops_per_token));
  }
  print(fmt::format("work         {:.4g} FLOPs a token, {:.4g} tokens, {:.4g} FLOPs\n", flops, tokens, flops * tokens));
  print(
      fmt::format("time         {:.0f} s at {:.0f} tokens/s, measured over one step\n", seconds, report.tokens_per_s));
  return 0;
}

Result<int> run(const Invocation& invocation, TrainFlags& flags, bool wants_teacher = false) {
  BN_ASSIGN_OR_RETURN(const TrainOptions options, read_options(flags));
  if (wants_teacher && options.teacher.empty()) return invalid_argument("distill wants a teacher: --teacher MODEL");
  BN_ASSIGN_OR_RETURN(const std::unique_ptr<Trainer> trainer, Trainer::create(options));
  if (flags.dry_run) return dry_run(invocation, *trainer);
  StepReport last;
  double valid_loss = 0;
  Status status = ok();
  {
    const InterruptScope scope;
    StepLine line(options.log_every);
    line.set_tokens(double(trainer->n_tokens_per_step()));
    TrainCallbacks callbacks;
    if (trainer->leads()) {
      callbacks.on_step = [&](const StepReport& report) { line.show(last = report); };
      callbacks.on_valid = [&](int64_t step, double loss) {
        valid_loss = loss;
        line.say(fmt::format("step {}  validation loss {:.4f}", step, loss));
      };
      callbacks.on_text = [&](int64_t step, const std::string& text) {
        line.say(fmt::format("step {}  {}", step, escaped(text)));
      };
      callbacks.on_notice = [&](const std::string& notice) { print_note(invocation, notice); };
    }
    callbacks.keep_going = [] { return !interrupted(); };
    status = trainer->run(callbacks);
  }
  BN_RETURN_IF_ERROR(std::move(status));
  if (!trainer->leads()) return 0;
  if (invocation.json) {
    print_json({{"run", options.run},
                {"steps", trainer->step()},
                {"loss", last.loss},
                {"valid_loss", valid_loss},
                {"tokens_per_s", last.tokens_per_s}});
  } else {
    print_report(fmt::format("{}: {} steps, validation loss {:.4f}", options.run, trainer->step(), valid_loss));
  }
  return 0;
}

// A flag for each key of the options, with the defaults that `flags` hold.
void add_option_flags(CLI::App& command, TrainFlags& flags) {
  command.add_option("--config,config", flags.config, "TOML file of the run (docs/training.md); flags win over it");
  command.add_flag("--dry-run", flags.dry_run, "Print parameters, memory, work and time, and train nothing");
  flags.given = flags.defaults;
  for (const OptionKey& key : option_keys(flags.given)) {
    std::visit(
        [&](auto* value) {
          flags.flags.push_back(command.add_option(flag_of(key), *value, key.help)->group("[" + key.section + "]"));
        },
        key.value);
  }
}

// Tuned on a model that has learned already: small steps, little of them, nothing that pulls weights to zero.
TrainOptions finetune_defaults() {
  TrainOptions options;
  options.n_ctx = 512;
  options.batch = 4;
  options.accumulation = 4;
  options.lr = 1e-4;
  options.weight_decay = 0;
  options.epochs = 3;
  options.warmup = 10;
  options.valid_share = 0.05;
  options.log_every = 1;
  options.eval_every = 20;
  options.checkpoint_every = 50;
  return options;
}

// What -d names: text, or conversations.
std::string& data_option(TrainOptions& options, const std::string& path) {
  return path.ends_with(".txt") || path.ends_with(".md") ? options.text : options.conversations;
}

}  // namespace

void add_train_run(CLI::App& train, Invocation& invocation) {
  auto flags = std::make_shared<TrainFlags>();
  add_option_flags(train, *flags);
  define(train, invocation,
         "bitnet train tokenizer books/ --vocab-size 4096 --out vocabulary\n"
         "  bitnet train prepare books/ --tokenizer vocabulary --out data\n"
         "  bitnet train --run runs/first --steps 2000 run.toml\n"
         "  bitnet train report runs/first",
         [flags](const Invocation& self) { return run(self, *flags); });
}

void add_finetune(CLI::App& app, Invocation& invocation) {
  CLI::App& command = *app.add_subcommand("finetune", "Train a model further, on conversations or text");
  struct FinetuneFlags : TrainFlags {
    std::string model, data;
  };
  auto flags = std::make_shared<FinetuneFlags>();
  flags->defaults = finetune_defaults();
  command.add_option("-m,--model", flags->model, "Model to begin with: a folder or a GGUF file, 16-bit or ternary")
      ->required();
  command
      .add_option("-d,--data", flags->data,
                  "Conversations (.jsonl, or a folder of such files; docs/training.md) or a text file")
      ->required();
  add_option_flags(command, *flags);
  define(command, invocation, "bitnet finetune -m models/storyteller-29m.gguf -d replies.jsonl --run runs/tuned",
         [flags](const Invocation& self) {
           flags->defaults.init = flags->model;
           data_option(flags->defaults, flags->data) = flags->data;
           return run(self, *flags);
         });
}

void add_distill(CLI::App& app, Invocation& invocation) {
  CLI::App& command =
      *app.add_subcommand("distill", "Train a ternary student on text and on what a teacher says of it");
  struct DistillFlags : TrainFlags {
    std::string model, data;
  };
  auto flags = std::make_shared<DistillFlags>();
  command.add_option("-m,--model", flags->model, "Student to begin with; without it a new one of the shape given");
  command.add_option("-d,--data", flags->data,
                     "Conversations (.jsonl, or a folder of such files; docs/training.md) or a text file");
  add_option_flags(command, *flags);
  define(command, invocation,
         "bitnet distill --teacher runs/teacher -d book.txt --run runs/student\n"
         "  bitnet distill --teacher models/big -m runs/first -d replies.jsonl --run runs/student",
         [flags](const Invocation& self) -> Result<int> {
           flags->defaults.init = flags->model;
           if (!flags->data.empty()) data_option(flags->defaults, flags->data) = flags->data;
           return run(self, *flags, true);
         });
}

}  // namespace bitnet::cli
