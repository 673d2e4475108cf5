#include "train/trainer.h"

#include "bitnet/generate.h"
#include "memory/pressure.h"
#include "model/checkpoint.h"
#include "model/convert.h"
#include "train/data/prepare.h"
#include "train/export_model.h"
#include "train/initial_weights.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <new>
#include <system_error>

namespace bitnet {
namespace {

using Clock = std::chrono::steady_clock;
namespace fs = std::filesystem;

constexpr double kNormMemory = 0.98;
constexpr int32_t kNoTarget = -1;

// The dataset that the options name; text becomes one of bytes in the run's folder, which `makes` it where it is not
// there yet.
Result<Dataset> open_dataset(const TrainOptions& o, bool makes) {
  if (!o.dataset.empty()) return Dataset::open(o.dataset);
  const std::string folder = o.run + "/data";
  std::error_code ignored;
  if (makes && !fs::exists(folder + "/dataset.json", ignored)) {
    fs::create_directories(o.run, ignored);
    PrepareOptions prepare;
    prepare.corpus.conversations = !o.conversations.empty();
    prepare.inputs = {o.text + o.conversations};
    const std::string& model = o.init.empty() ? o.teacher : o.init;
    prepare.tokenizer = model.empty() ? "byte" : model_of(model);
    prepare.folder = folder;
    prepare.corpus.valid_tail = o.valid_share;
    BN_RETURN_IF_ERROR(prepare_dataset(prepare));
  }
  return Dataset::open(folder);
}

// The first rank's process before the others'.
Result<Dataset> open_together(const TrainOptions& options, const TrainRanks& ranks) {
  if (!ranks.peers) return open_dataset(options, true);
  std::optional<Result<Dataset>> dataset;
  for (const bool leader : {true, false}) {
    if (ranks.leads() == leader) dataset = open_dataset(options, leader);
    const bool failed = ranks.leads() == leader && !*dataset;
    BN_RETURN_IF_ERROR(ranks.peers->agree(failed ? Status(Error(dataset->error())) : ok()));
  }
  return *std::move(dataset);
}

Error no_memory() {
  Error error =
      make_error(ErrorCode::kResource, "there is not enough memory for this training run: {} bytes are available",
                 read_memory_limits().available_bytes);
  error.suggestion = "a smaller batch with more accumulation, or recompute = true";
  return error;
}

}  // namespace

Result<std::unique_ptr<Trainer>> Trainer::create(const TrainOptions& options) try {
  BN_ASSIGN_OR_RETURN(TrainRanks ranks, join_ranks(options.device, [](const char* name) { return std::getenv(name); }));
  BN_ASSIGN_OR_RETURN(Dataset dataset, open_together(options, ranks));
  std::unique_ptr<Trainer> trainer(new Trainer(options, std::move(ranks), std::move(dataset)));
  Trainer& t = *trainer;
  BN_ASSIGN_OR_RETURN(t.share_, share_step(options.batch, options.accumulation, t.ranks_.n));
  BN_ASSIGN_OR_RETURN(t.vocabulary_, t.dataset_.vocabulary());
  BN_ASSIGN_OR_RETURN(t.config_, model_config(options, t.dataset_.vocab_size()));
  if (options.epochs > 0) {
    const double n_sequences = double(t.dataset_.n_sequences(Split::kTrain, options.n_ctx + 1));
    const double steps = std::ceil(options.epochs * n_sequences / double(options.batch * options.accumulation));
    t.options_.steps = int64_t(std::clamp(steps, 1.0, 1e12));
  }
  BN_ASSIGN_OR_RETURN(t.schedule_, schedule_options(t.options_));
  BN_ASSIGN_OR_RETURN(const OptimizerOptions optimizer, optimizer_options(options));
  BN_ASSIGN_OR_RETURN(t.quantization_, quantization_schedule(options));
  if (const int64_t whole = t.quantization_.ends_at(t.config_.n_layers); whole > t.options_.steps) {
    return invalid_argument("the linears are quantised as they will be served from step {} on, but the run ends at {}",
                            whole, t.options_.steps);
  }
  if (options.group_cols > 0 && options.export_model) {
    return unsupported("group_cols is {}: no folder or I2_S file holds such scales; train with export_model = false",
                       options.group_cols);
  }
  EngineOptions engine;
  if (options.lora_rank > 0) {
    BN_ASSIGN_OR_RETURN(const LoraShape lora, lora_shape(options, t.config_));
    BN_ASSIGN_OR_RETURN(t.base_, FrozenBase::open(options.init, int(options.threads)));
    t.layout_ = ParameterLayout::make_adapters(t.config_, lora.rank, lora.targets);
    engine.base = &*t.base_;
    engine.lora_scale = float(lora.alpha / double(lora.rank));
  } else {
    t.layout_ = ParameterLayout::make(t.config_, t.quantization_.finished.scale == WeightScale::kLearned);
  }
  engine.device = options.device;
  engine.ranks = t.ranks_;
  BN_ASSIGN_OR_RETURN(engine.precision, parse_precision(options.precision));
  engine.n_threads = int(options.threads);
  engine.graph = {t.share_.n_sequences, options.n_ctx, options.recompute};
  engine.optimizer = optimizer;
  engine.keeps_average = options.ema > 0;
  if (!options.teacher.empty()) BN_RETURN_IF_ERROR(t.open_teacher(engine));
  BN_ASSIGN_OR_RETURN(t.engine_, make_train_engine(t.config_, t.layout_, engine));
  float* const parameters = t.engine_->parameters().data();
  if (!t.leads()) {
    // The first rank's process has them.
  } else if (t.trains_adapter()) {
    initialize_adapters(t.layout_, uint64_t(options.seed), parameters);
  } else if (options.init.empty()) {
    ThreadPool pool(options.threads > 0 ? int(options.threads) : available_cpus());
    initialize_parameters(t.config_, t.layout_, uint64_t(options.seed), options.init_deviation, parameters, &pool);
  } else {
    BN_RETURN_IF_ERROR(read_initial_weights(options.init, t.layout_, parameters));
  }
  if (t.has_average()) t.engine_->average() = t.engine_->parameters();
  BN_RETURN_IF_ERROR(t.engine_->send());
  return trainer;
} catch (const std::bad_alloc&) {
  return no_memory();
}

Status Trainer::open_teacher(EngineOptions& engine) {
  BN_ASSIGN_OR_RETURN(teacher_, read_teacher(options_.teacher));
  if (teacher_->config.vocab_size != config_.vocab_size) {
    return invalid_argument("{}: the teacher has {} tokens and the student {}: they must share the vocabulary",
                            options_.teacher, teacher_->config.vocab_size, config_.vocab_size);
  }
  BN_ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::open(model_of(options_.teacher)));
  const std::optional<Vocabulary>& theirs = checkpoint.vocabulary();
  for (size_t i = 0; theirs && vocabulary_ && i < std::min(theirs->tokens.size(), vocabulary_->tokens.size()); ++i) {
    if (theirs->tokens[i] == vocabulary_->tokens[i]) continue;
    return invalid_argument(
        "{}: token {} is \"{}\" for the teacher and \"{}\" in the data: they must share the vocabulary",
        options_.teacher, i, theirs->tokens[i], vocabulary_->tokens[i]);
  }
  BN_ASSIGN_OR_RETURN(distillation_, distillation_options(options_, config_, teacher_->config));
  engine.teacher = teacher_.get();
  engine.distillation = distillation_;
  return ok();
}

Status Trainer::load_sequences(Split split, uint64_t first, int64_t n_sequences, Sequences& out) {
  const size_t n = size_t(options_.n_ctx);
  sequence_.resize(n + 1);
  counted_.resize(n + 1);
  out.ids.clear();
  out.targets.clear();
  out.n_counted = 0;
  out.first = first;
  for (int64_t i = 0; i < n_sequences; ++i) {
    BN_RETURN_IF_ERROR(dataset_.sequence(split, uint64_t(options_.seed), first + uint64_t(i), sequence_, counted_));
    out.ids.insert(out.ids.end(), sequence_.begin(), sequence_.end() - 1);
    for (size_t k = 1; k <= n; ++k) {
      out.targets.push_back(counted_[k] != 0 ? sequence_[k] : kNoTarget);
      out.n_counted += int64_t(counted_[k] != 0);
    }
  }
  return ok();
}

Status Trainer::prepare(bool averaged, bool finished) {
  if (finished) return engine_->prepare(quantization_.finished, averaged);
  return engine_->prepare(quantization_.at(step_ + 1, config_.n_layers), averaged);
}

Result<StepReport> Trainer::train_step() try {
  const Clock::time_point start = Clock::now();
  if (!prepared_ || step_ < quantization_.ends_at(config_.n_layers)) BN_RETURN_IF_ERROR(prepare(false, false));
  BN_RETURN_IF_ERROR(engine_->begin_step(share_.n_parts));
  // A step without targets, of marked data, changes nothing: its loss and gradients are 0.
  const int64_t n_sequences = options_.batch * options_.accumulation;
  if (ahead_.ids.empty() || ahead_.first != position_) {
    BN_RETURN_IF_ERROR(load_sequences(Split::kTrain, position_, n_sequences, ahead_));
  }
  const int64_t n_counted = ahead_.n_counted;
  const double n_targets = double(std::max<int64_t>(n_counted, 1));
  const auto n_part = size_t(n_sequences_together() * options_.n_ctx);
  for (size_t at = 0; n_counted > 0 && at < ahead_.ids.size(); at += n_part) {
    BN_RETURN_IF_ERROR(engine_->backpropagate(std::span(ahead_.ids).subspan(at, n_part),
                                              std::span(ahead_.targets).subspan(at, n_part), float(1.0 / n_targets)));
  }
  // While a GPU is at it.
  BN_RETURN_IF_ERROR(load_sequences(Split::kTrain, position_ + uint64_t(n_sequences), n_sequences, ahead_));
  BN_ASSIGN_OR_RETURN(const StepSums sums, engine_->step_sums());
  const double loss = sums.loss / n_targets, norm = sums.gradient_norm;
  const Rates rates = rates_at(schedule_, step_ + 1);
  const bool finite = std::isfinite(loss) && std::isfinite(norm);
  const bool spike =
      finite && options_.spike_factor > 0 && n_updates_ >= 20 && norm > options_.spike_factor * usual_norm_;
  const bool skipped = !finite || spike || n_counted == 0;
  prepared_ = skipped;  // the weights stay as they are
  if (!prepared_) {
    usual_norm_ = n_updates_ == 0 ? norm : kNormMemory * usual_norm_ + (1 - kNormMemory) * norm;
    const double factor = options_.clip > 0 ? std::min(1.0, options_.clip / (norm + 1e-6)) : 1.0;
    BN_RETURN_IF_ERROR(engine_->update({++n_updates_, rates.lr, rates.weight_decay, factor}));
    BN_RETURN_IF_ERROR(average_weights());
    BN_RETURN_IF_ERROR(prepare(false, false));
    prepared_ = true;
  }
  n_bad_ = finite ? 0 : n_bad_ + 1;
  if (n_bad_ >= kMaxBadSteps) {
    return invalid_input("the loss or its gradient has not been finite for {} steps: try a lower lr, or more warmup",
                         n_bad_);
  }
  ++step_;
  position_ += uint64_t(n_sequences);
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  StepReport report;
  report.step = step_;
  report.n_steps = options_.steps;
  report.loss = loss;
  report.lr = rates.lr;
  report.gradient_norm = norm;
  report.logits_divergence = sums.logits_divergence / n_targets;
  report.attention_divergence = sums.attention_divergence / n_targets;
  report.tokens_per_s = double(n_tokens_per_step()) / seconds;
  report.skipped = skipped;
  return report;
} catch (const std::bad_alloc&) {
  return no_memory();
}

Status Trainer::average_weights() {
  if (!has_average()) return ok();
  // Early on the average follows quickly, so that the first weights are soon forgotten.
  const double decay = std::min(options_.ema, double(1 + n_updates_) / double(10 + n_updates_));
  return engine_->move_average(float(decay), float(1 - decay));
}

Result<double> Trainer::validate() try {
  const bool own = !has_average() && prepared_;
  if (!own) BN_RETURN_IF_ERROR(prepare(has_average(), false));
  prepared_ = own;
  const int64_t n_whole = dataset_.n_sequences(Split::kValid, options_.n_ctx + 1) / options_.batch;
  const int64_t n_batches = std::clamp<int64_t>(n_whole, 1, options_.eval_batches);
  const int64_t n_sequences = n_batches * options_.batch;
  double loss = 0;
  int64_t n_targets = 0;
  for (int64_t at = 0; at < n_sequences; at += n_sequences_together()) {
    const int64_t n = std::min(n_sequences_together(), n_sequences - at);
    BN_RETURN_IF_ERROR(load_sequences(Split::kValid, uint64_t(at), n, part_));
    BN_ASSIGN_OR_RETURN(const double part, engine_->evaluate(part_.ids, part_.targets));
    loss += part;
    n_targets += part_.n_counted;
  }
  return loss / double(std::max<int64_t>(n_targets, 1));
} catch (const std::bad_alloc&) {
  return no_memory();
}

Status Trainer::fetch_served() try {
  prepared_ = false;
  BN_RETURN_IF_ERROR(prepare(has_average(), true));
  return engine_->fetch();
} catch (const std::bad_alloc&) {
  return no_memory();
}

Status Trainer::write_folder(const std::string& folder) try {
  if (trains_adapter()) return export_adapter(folder);
  const PoolVector<float>& served = has_average() ? engine_->average() : engine_->parameters();
  const auto linear = [&](const WeightSpec& spec) { return engine_->linear(spec); };
  return export_trained_folder({config_, layout_, served.data(), vocabulary_, linear}, folder);
} catch (const std::bad_alloc&) {
  return no_memory();
}

Status Trainer::export_folder(const std::string& folder) {
  BN_RETURN_IF_ERROR(fetch_served());
  return leads() ? write_folder(folder) : ok();
}

Result<bool> Trainer::any(bool mine) const {
  if (!ranks_.peers) return mine;
  BN_ASSIGN_OR_RETURN(const std::string said, ranks_.peers->meet(mine ? "yes" : ""));
  return !said.empty();
}

Status Trainer::finish() { return ranks_.peers ? ranks_.peers->leave() : ok(); }

Status Trainer::export_adapter(const std::string& folder) {
  const float* const served = (has_average() ? engine_->average() : engine_->parameters()).data();
  BN_ASSIGN_OR_RETURN(const LoraShape lora, lora_shape(options_, config_));
  const std::vector<WeightSpec> weights = list_weights(config_);
  std::vector<LoraValues> values;
  for (const WeightSpec& spec : weights) {
    const int64_t a = layout_.lora_a_offset(spec.role, spec.layer), b = layout_.lora_b_offset(spec.role, spec.layer);
    if (a >= 0) values.push_back({&spec, served + a, served + b});
  }
  return write_lora_adapter({options_.init, base_->identity(), lora.rank, lora.alpha, lora.targets}, values, folder);
}

Status Trainer::write_text(const TrainCallbacks& callbacks) {
  const std::string folder = options_.run + "/sampling";
  BN_RETURN_IF_ERROR(export_folder(folder));
  if (!leads()) return ok();
  LoadOptions load;
  load.n_threads = int(options_.threads);
  if (trains_adapter()) load.lora = folder;
  BN_ASSIGN_OR_RETURN(const Model model, Model::load(trains_adapter() ? options_.init : folder, load));
  SessionOptions session_options;
  session_options.n_threads = int(options_.threads);
  BN_ASSIGN_OR_RETURN(Session session, model.new_session(session_options));
  GenerateOptions generate_options;
  generate_options.max_new_tokens = options_.sample_tokens;
  generate_options.sampling.seed = uint64_t(options_.seed);
  const std::string prompt = options_.sample_prompt.empty() ? "The " : options_.sample_prompt;
  BN_ASSIGN_OR_RETURN(const Output output, generate(session, prompt, generate_options));
  std::error_code ignored;
  fs::remove_all(folder, ignored);
  if (callbacks.on_text) callbacks.on_text(step_, prompt + output.text);
  return log_->log_text(step_, "sample", prompt + output.text);
}

Status Trainer::log_step(const StepReport& report) {
  std::vector<Metric> metrics = {{metric::kLoss, report.loss},
                                 {metric::kLearningRate, report.lr},
                                 {metric::kGradientNorm, report.gradient_norm},
                                 {metric::kTokensPerSecond, report.tokens_per_s}};
  if (counts_codes() && options_.group_cols == 0) {
    metrics.push_back({metric::kFlippedShare, report.flipped_share});
    metrics.push_back({metric::kZeroShare, report.zero_share});
  }
  if (distillation_.logits > 0) metrics.push_back({metric::kLogitsDivergence, report.logits_divergence});
  if (distillation_.attention > 0) metrics.push_back({metric::kAttentionDivergence, report.attention_divergence});
  return log_->log(report.step, metrics);
}

Status Trainer::run(const TrainCallbacks& callbacks) {
  if (options_.run.empty()) return invalid_argument("run names no folder for checkpoints and the finished model");
  if (leads()) {
    BN_ASSIGN_OR_RETURN(store_, CheckpointStore::open(options_.run + "/checkpoints", {.n_keep = int(options_.keep)}));
  }
  BN_RETURN_IF_ERROR(resume(callbacks));
  if (leads()) {
    BN_ASSIGN_OR_RETURN(log_, MetricsLog::open(options_.run, step_ > 0 ? step_ : -1));
  }
  const auto due = [&](int64_t every) { return (every > 0 && step_ % every == 0) || step_ == options_.steps; };
  // What the pool keeps for the next step goes before the kernel looks for something to end.
  PressureMonitor pressure([&](Pressure level, const MemoryLimits& limits) {
    if (level < Pressure::kHigh) return;
    host_pool().trim();
    if (!callbacks.on_notice) return;
    callbacks.on_notice(fmt::format("memory pressure is {}: {} of {} bytes are used", pressure_name(level),
                                    limits.used_bytes, limits.limit_bytes));
  });
  while (step_ < options_.steps) {
    BN_ASSIGN_OR_RETURN(StepReport report, train_step());
    pressure.look();
    const bool logged = due(options_.log_every) || report.skipped;
    if (logged && counts_codes()) {
      BN_ASSIGN_OR_RETURN(const CodeShares shares, engine_->count_codes());
      report.flipped_share = shares.flipped;
      report.zero_share = shares.zeros;
    }
    if (callbacks.on_step) callbacks.on_step(report);
    if (logged && leads()) BN_RETURN_IF_ERROR(log_step(report));
    if (due(options_.eval_every)) {
      BN_ASSIGN_OR_RETURN(const double loss, validate());
      const Metric metric{metric::kValidLoss, loss};
      if (leads()) BN_RETURN_IF_ERROR(log_->log(step_, {&metric, 1}));
      if (callbacks.on_valid) callbacks.on_valid(step_, loss);
    }
    if (options_.sample_every > 0 && due(options_.sample_every)) BN_RETURN_IF_ERROR(write_text(callbacks));
    BN_ASSIGN_OR_RETURN(const bool stop, any(callbacks.keep_going && !callbacks.keep_going()));
    if (stop || due(options_.checkpoint_every)) BN_RETURN_IF_ERROR(save());
    if (stop && step_ < options_.steps) {
      BN_RETURN_IF_ERROR(finish());
      if (leads()) BN_RETURN_IF_ERROR(store_->wait());
      return make_error(ErrorCode::kInterrupted, "stopped after step {}; the same command goes on from there", step_);
    }
  }
  if (options_.export_model) BN_RETURN_IF_ERROR(fetch_served());
  BN_RETURN_IF_ERROR(finish());
  if (!leads()) return ok();
  BN_RETURN_IF_ERROR(store_->wait());
  if (!options_.export_model) return ok();
  if (trains_adapter()) return write_folder(options_.run + "/adapter");
  const std::string folder = options_.run + "/model";
  BN_RETURN_IF_ERROR(write_folder(folder));
  if (!options_.export_gguf) return ok();
  ConvertOptions to_gguf;
  to_gguf.linear_type = config_.ternary ? DType::kI2_S : DType::kF32;
  BN_RETURN_IF_ERROR(convert(folder, options_.run + "/model.gguf", to_gguf));
  return ok();
}

}  // namespace bitnet
