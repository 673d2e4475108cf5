#include "train/train_options.h"

#include "base/file.h"
#include "model/lora_adapter.h"
#include "model/presets.h"
#include "train/engine.h"
#include "train/initial_weights.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <type_traits>

#define TOML_EXCEPTIONS 0
#define TOML_HEADER_ONLY 1
#include <toml++/toml.h>

namespace bitnet {
namespace {

const char* type_name(const OptionKey& key) {
  constexpr const char* kNames[] = {"a whole number", "a number", "true or false", "a text"};
  return kNames[key.value.index()];
}

// False: the value has another type.
bool assign(const toml::node& node, const OptionKey& key) {
  return std::visit(
      [&](auto* target) {
        using Value = std::remove_pointer_t<decltype(target)>;
        if constexpr (std::is_same_v<Value, double>) {  // 1 is a number too
          if (const auto whole = node.value_exact<int64_t>()) {
            *target = double(*whole);
            return true;
          }
        }
        const auto value = node.value_exact<Value>();
        if (value) *target = *value;
        return value.has_value();
      },
      key.value);
}

Status refuse_unless(bool holds, const char* key, const std::string& found, const char* expected) {
  if (holds) return ok();
  return invalid_argument("{} is {}, expected {}", key, found, expected);
}

}  // namespace

std::vector<OptionKey> option_keys(TrainOptions& o) {
  return {
      {"model", "init",
       "Continue from this model: a folder or a GGUF file, 16-bit or ternary, or a finished run; its shape counts",
       &o.init},
      {"model", "preset", "Shape of a published model, overridden by the keys that are given", &o.preset},
      {"model", "architecture", "bitnet-b1.58, bitnet (SiLU) or llama", &o.architecture},
      {"model", "n_layers", "Layers", &o.n_layers},
      {"model", "d_model", "Width of the residual stream", &o.d_model},
      {"model", "d_ff", "Width of the feed-forward", &o.d_ff},
      {"model", "n_heads", "Attention heads", &o.n_heads},
      {"model", "n_kv_heads", "Key/value heads; 0: as many as n_heads", &o.n_kv_heads},
      {"model", "head_dim", "Dimensions of a head; 0: d_model / n_heads", &o.head_dim},
      {"model", "vocab_size", "Tokens of the vocabulary; 0: the data's", &o.vocab_size},
      {"model", "activation", "relu2 or silu; empty: the architecture's", &o.activation},
      {"model", "rope_theta", "Base of the rotary embedding", &o.rope_theta},
      {"model", "rms_eps", "Epsilon of the RMSNorms", &o.rms_eps},
      {"model", "sub_norms", "Norms in front of o and down", &o.sub_norms},
      {"model", "tied_head", "The head is the token embedding", &o.tied_head},
      {"model", "insert_sub_norms", "Put norms in front of o and down of init, which has none", &o.insert_sub_norms},
      {"model", "init_deviation", "Standard deviation of the first weights", &o.init_deviation},
      {"quantization", "quantize", "Ternary weights and int8 activations", &o.quantize},
      {"quantization", "weight_scale", "absmean or learned", &o.weight_scale},
      {"quantization", "group_cols", "Columns that share a scale; 0: the whole matrix", &o.group_cols},
      {"quantization", "lambda_warmup", "Steps in which quantisation is mixed in", &o.lambda_warmup},
      {"quantization", "layer_steps", "Steps between the quantisation of one layer and the next one's; 0: all at once",
       &o.layer_steps},
      {"quantization", "layer_order", "first or last: the layer that is quantised first", &o.layer_order},
      {"quantization", "bits", "Widths before the ternary one with their steps, as in 8:500,4:500", &o.bits},
      {"lora", "lora_rank", "Rank of an adapter that is trained while the ternary model stays as it is; 0: none",
       &o.lora_rank},
      {"lora", "lora_alpha", "The adapter counts alpha / rank times; 0: twice the rank", &o.lora_alpha},
      {"lora", "lora_targets", "Linears that get an adapter, of q,k,v,o,gate,up,down", &o.lora_targets},
      {"distillation", "teacher", "Learn from this model too: a folder, a GGUF file or the folder of a finished run",
       &o.teacher},
      {"distillation", "distill_logits", "Weight of the divergence from the teacher's next tokens", &o.distill_logits},
      {"distillation", "distill_attention", "Weight of the divergence from the teacher's attention relations",
       &o.distill_attention},
      {"distillation", "temperature", "That the logits of both are divided by", &o.temperature},
      {"distillation", "distill_layer", "Layer whose relations are compared; 1: the last one", &o.distill_layer},
      {"distillation", "relation_heads", "Heads of the relations; 0: the most that both models allow",
       &o.relation_heads},
      {"data", "dataset", "Folder that `bitnet train prepare` made", &o.dataset},
      {"data", "text", "Text file to train on: byte by byte, or with the vocabulary of init", &o.text},
      {"data", "conversations", "JSONL file or folder of conversations, of which the replies are learned",
       &o.conversations},
      {"data", "valid_share", "Share at the end of the text that is kept for validation", &o.valid_share},
      {"data", "n_ctx", "Tokens of a sequence", &o.n_ctx},
      {"data", "batch", "Sequences of a step, times accumulation", &o.batch},
      {"data", "accumulation", "Parts of a step whose gradients are added up", &o.accumulation},
      {"data", "seed", "Of the first weights and the order of the data", &o.seed},
      {"optimizer", "optimizer", "adamw, adamw8, muon or sgd", &o.optimizer},
      {"optimizer", "lr", "Learning rate at its peak", &o.lr},
      {"optimizer", "beta1", "Adam's", &o.beta1},
      {"optimizer", "beta2", "Adam's", &o.beta2},
      {"optimizer", "eps", "Adam's", &o.eps},
      {"optimizer", "momentum", "Of muon and sgd", &o.momentum},
      {"optimizer", "weight_decay", "Of matrices, not of norms", &o.weight_decay},
      {"optimizer", "clip", "Largest norm of the gradient; 0: any", &o.clip},
      {"optimizer", "ema", "Decay of the weights' moving average, which is exported; 0: none", &o.ema},
      {"optimizer", "spike_factor", "Skip a step whose gradient is so many times the usual; 0: never", &o.spike_factor},
      {"schedule", "schedule", "two_stage, cosine, wsd or linear", &o.schedule},
      {"schedule", "steps", "Steps of the whole run", &o.steps},
      {"schedule", "epochs", "Passes over the data instead of steps; 0: steps", &o.epochs},
      {"schedule", "warmup", "Steps in which the rate rises", &o.warmup},
      {"schedule", "second_lr", "two_stage: peak of the second half; 0: two thirds of lr", &o.second_lr},
      {"schedule", "final_share", "Share of lr at the end", &o.final_share},
      {"schedule", "decay_share", "wsd: share of the steps in which the rate falls", &o.decay_share},
      {"run", "run", "Folder for checkpoints, metrics and the finished model", &o.run, false},
      {"run", "device", "cpu, cuda, cuda:N, or several GPUs as cuda:N,M", &o.device, false},
      {"run", "precision", "Of a GPU's activations and products: bf16 or float32", &o.precision},
      {"run", "threads", "Threads; 0: all processors", &o.threads, false},
      {"run", "log_every", "Steps between two lines of metrics", &o.log_every, false},
      {"run", "eval_every", "Steps between two validations; 0: at the end only", &o.eval_every, false},
      {"run", "eval_batches", "Batches of a validation", &o.eval_batches, false},
      {"run", "checkpoint_every", "Steps between two checkpoints; 0: at the end only", &o.checkpoint_every, false},
      {"run", "keep", "Checkpoints that stay", &o.keep, false},
      {"run", "sample_every", "Steps between two texts that the model writes; 0: none", &o.sample_every, false},
      {"run", "sample_tokens", "Tokens of such a text", &o.sample_tokens, false},
      {"run", "sample_prompt", "How such a text begins", &o.sample_prompt, false},
      {"run", "recompute", "Less memory for a third more work", &o.recompute, false},
      {"run", "export_model", "Write the finished model as a Hugging Face folder", &o.export_model, false},
      {"run", "export_gguf", "Write a GGUF file beside the Hugging Face folder", &o.export_gguf, false},
  };
}

Status read_train_config(const std::string& path, TrainOptions& options) {
  BN_ASSIGN_OR_RETURN(const std::string text, read_file(path, uint64_t{1} << 20));
  const toml::parse_result parsed = toml::parse(std::string_view(text), path);
  if (!parsed) {
    return invalid_input("{}: line {}: {}", path, parsed.error().source().begin.line, parsed.error().description());
  }
  const std::vector<OptionKey> keys = option_keys(options);
  for (const auto& [section, table] : parsed.table()) {
    if (!table.is_table()) return invalid_input("{}: {} stands in no section", path, section.str());
    for (const auto& [name, node] : *table.as_table()) {
      const auto key = std::find_if(keys.begin(), keys.end(), [&, &s = section, &n = name](const OptionKey& k) {
        return k.section == s.str() && k.name == n.str();
      });
      if (key == keys.end()) return invalid_input("{}: there is no key {} in [{}]", path, name.str(), section.str());
      if (!assign(node, *key)) {
        return invalid_input("{}: {} in [{}] is not {}", path, name.str(), section.str(), type_name(*key));
      }
    }
  }
  return ok();
}

Result<ModelConfig> model_config(const TrainOptions& o, int64_t vocab_size) {
  ModelConfig c;
  if (!o.init.empty()) {
    BN_ASSIGN_OR_RETURN(c, initial_config(o.init));
    if (o.insert_sub_norms) {
      if (c.sub_norms) return invalid_argument("insert_sub_norms: {} has sub-norms already", o.init);
      c.sub_norms = true;
      c.architecture = c.gate_activation == GateActivation::kSilu ? "bitnet" : "bitnet-b1.58";
    }
  } else if (!o.preset.empty()) {
    BN_ASSIGN_OR_RETURN(c, preset_config(o.preset));
  } else {
    if (o.architecture != "bitnet-b1.58" && o.architecture != "bitnet" && o.architecture != "llama") {
      return invalid_argument("architecture is \"{}\", expected bitnet-b1.58, bitnet or llama", o.architecture);
    }
    const bool llama = o.architecture == "llama";
    c.architecture = o.architecture;
    c.n_layers = o.n_layers;
    c.d_model = o.d_model;
    c.d_ff = o.d_ff;
    c.n_heads = o.n_heads;
    c.n_kv_heads = o.n_kv_heads > 0 ? o.n_kv_heads : o.n_heads;
    c.head_dim = c.rope_dim = o.head_dim > 0 ? o.head_dim : o.d_model / std::max<int64_t>(o.n_heads, 1);
    c.rope_theta = o.rope_theta;
    c.rms_eps = float(o.rms_eps);
    c.sub_norms = !llama && o.sub_norms;
    c.tied_head = o.tied_head;
    const std::string activation = !o.activation.empty()              ? o.activation
                                   : o.architecture == "bitnet-b1.58" ? "relu2"
                                                                      : "silu";
    if (activation != "relu2" && activation != "silu") {
      return invalid_argument("activation is \"{}\", expected relu2 or silu", activation);
    }
    c.gate_activation = activation == "relu2" ? GateActivation::kRelu2 : GateActivation::kSilu;
  }
  c.name = "trained by bitnet train";
  if (o.init.empty()) c.vocab_size = o.vocab_size > 0 ? o.vocab_size : vocab_size;
  c.n_ctx_train = o.n_ctx;
  c.ternary = o.quantize;
  if (c.vocab_size < vocab_size) {
    return invalid_argument("vocab_size is {}, but the data have {} different tokens", c.vocab_size, vocab_size);
  }
  BN_RETURN_IF_ERROR(check_config(c, "the model's configuration"));
  if (o.group_cols > 0 &&
      (c.d_model % o.group_cols != 0 || c.d_ff % o.group_cols != 0 || c.n_heads * c.head_dim % o.group_cols != 0)) {
    return invalid_argument("group_cols is {}, which does not divide every linear's columns", o.group_cols);
  }
  return c;
}

Result<LoraShape> lora_shape(const TrainOptions& o, const ModelConfig& config) {
  LoraShape shape;
  shape.rank = o.lora_rank;
  shape.alpha = o.lora_alpha > 0 ? o.lora_alpha : 2 * double(o.lora_rank);
  if (shape.rank > config.d_model) {
    return invalid_argument("lora_rank is {}, expected at most the model's width of {}", shape.rank, config.d_model);
  }
  auto targets = parse_lora_targets(o.lora_targets);
  if (!targets) {
    targets.error().message = "lora_targets: " + targets.error().message;
    return std::move(targets.error());
  }
  shape.targets = *std::move(targets);
  return shape;
}

Result<OptimizerOptions> optimizer_options(const TrainOptions& o) {
  OptimizerOptions options;
  BN_ASSIGN_OR_RETURN(options.kind, parse_optimizer(o.optimizer));
  options.beta1 = float(o.beta1);
  options.beta2 = float(o.beta2);
  options.eps = float(o.eps);
  options.momentum = float(o.momentum);
  return options;
}

Result<ScheduleOptions> schedule_options(const TrainOptions& o) {
  ScheduleOptions options;
  BN_ASSIGN_OR_RETURN(options.kind, parse_schedule(o.schedule));
  options.n_steps = o.steps;
  options.n_warmup = o.warmup;
  options.lr = o.lr;
  options.second_lr = o.second_lr;
  options.final_share = o.final_share;
  options.decay_share = o.decay_share;
  options.weight_decay = o.weight_decay;
  return options;
}

Result<QuantizationSchedule> quantization_schedule(const TrainOptions& o) {
  QuantizationSchedule schedule;
  schedule.finished.enabled = o.quantize;
  if (o.weight_scale != "absmean" && o.weight_scale != "learned") {
    return invalid_argument("weight_scale is \"{}\", expected absmean or learned", o.weight_scale);
  }
  schedule.finished.scale = o.weight_scale == "learned" ? WeightScale::kLearned : WeightScale::kAbsmean;
  schedule.finished.group_cols = o.group_cols;
  schedule.lambda_warmup = o.lambda_warmup;
  schedule.layer_steps = o.layer_steps;
  if (o.layer_order != "first" && o.layer_order != "last") {
    return invalid_argument("layer_order is \"{}\", expected first or last", o.layer_order);
  }
  schedule.last_first = o.layer_order == "last";
  BN_ASSIGN_OR_RETURN(schedule.widths, parse_widths(o.bits));
  if (!o.quantize && (o.layer_steps > 0 || !schedule.widths.empty())) {
    return invalid_argument("quantize is false: there is nothing for {} to bring in",
                            o.layer_steps > 0 ? "layer_steps" : "bits");
  }
  if (schedule.finished.scale == WeightScale::kLearned && !schedule.widths.empty()) {
    return invalid_argument("bits is \"{}\", but weight_scale is learned: a learned step is that of one width", o.bits);
  }
  return schedule;
}

Result<DistillationOptions> distillation_options(const TrainOptions& o, const ModelConfig& student,
                                                 const ModelConfig& teacher) {
  DistillationOptions options;
  options.logits = o.distill_logits;
  options.attention = o.distill_attention;
  options.temperature = o.temperature;
  options.layer = o.distill_layer;
  options.relation_heads = o.relation_heads;
  if (options.attention == 0) return options;
  const int64_t n_layers = std::min(student.n_layers, teacher.n_layers);
  if (options.layer < 1 || options.layer > n_layers) {
    return invalid_argument("distill_layer is {}, expected 1 (the last layer) to {}, as many as both models have",
                            options.layer, n_layers);
  }
  if (options.relation_heads == 0) {
    options.relation_heads =
        std::gcd(std::gcd(student.n_heads, student.n_kv_heads), std::gcd(teacher.n_heads, teacher.n_kv_heads));
  }
  for (const ModelConfig* const c : {&student, &teacher}) {
    for (const int64_t n_cols : {c->n_heads * c->head_dim, c->n_kv_heads * c->head_dim}) {
      if (n_cols % options.relation_heads == 0) continue;
      return invalid_argument("relation_heads is {}, which does not divide the {} columns of the {}",
                              options.relation_heads, n_cols, c == &student ? "student" : "teacher");
    }
  }
  return options;
}

namespace {

// An adapter is trained on the codes of a model that stay.
Status check_lora_options(const TrainOptions& o) {
  if (o.lora_rank == 0) return ok();
  BN_RETURN_IF_ERROR(refuse_unless(std::isfinite(o.lora_alpha) && o.lora_alpha >= 0, "lora_alpha",
                                   fmt::format("{}", o.lora_alpha), "0 or a positive number"));
  if (o.init.empty()) return invalid_argument("lora_rank wants a model to continue from (init), whose weights stay");
  if (!o.teacher.empty()) return invalid_argument("lora_rank and teacher: an adapter learns from its data alone");
  const char* const other = !o.quantize                   ? "quantize = false"
                            : o.weight_scale != "absmean" ? "another weight_scale"
                            : o.group_cols > 0            ? "group_cols"
                            : o.lambda_warmup > 0         ? "lambda_warmup"
                            : o.layer_steps > 0           ? "layer_steps"
                            : !o.bits.empty()             ? "bits"
                            : o.insert_sub_norms          ? "insert_sub_norms"
                                                          : nullptr;
  if (other == nullptr) return ok();
  return invalid_argument("lora_rank keeps the model's ternary codes and scales, which {} would change", other);
}

}  // namespace

Status check_train_options(const TrainOptions& o) {
  const auto at_least = [](const char* key, int64_t value, int64_t least) {
    return refuse_unless(value >= least, key, fmt::format("{}", value), least == 1 ? "1 or more" : "0 or more");
  };
  for (const auto& [key, value] : {std::pair{"n_ctx", o.n_ctx},
                                   {"batch", o.batch},
                                   {"accumulation", o.accumulation},
                                   {"steps", o.steps},
                                   {"eval_batches", o.eval_batches},
                                   {"log_every", o.log_every}}) {
    BN_RETURN_IF_ERROR(at_least(key, value, 1));
  }
  for (const auto& [key, value] : {std::pair{"warmup", o.warmup},
                                   {"group_cols", o.group_cols},
                                   {"lambda_warmup", o.lambda_warmup},
                                   {"lora_rank", o.lora_rank},
                                   {"layer_steps", o.layer_steps},
                                   {"relation_heads", o.relation_heads},
                                   {"threads", o.threads},
                                   {"eval_every", o.eval_every},
                                   {"checkpoint_every", o.checkpoint_every},
                                   {"sample_every", o.sample_every},
                                   {"seed", o.seed}}) {
    BN_RETURN_IF_ERROR(at_least(key, value, 0));
  }
  const auto positive = [](const char* key, double value) {
    return refuse_unless(std::isfinite(value) && value > 0, key, fmt::format("{}", value), "a positive number");
  };
  const auto share = [](const char* key, double value) {
    return refuse_unless(value >= 0 && value < 1, key, fmt::format("{}", value), "0 or more and below 1");
  };
  BN_RETURN_IF_ERROR(positive("lr", o.lr));
  BN_RETURN_IF_ERROR(positive("eps", o.eps));
  BN_RETURN_IF_ERROR(positive("init_deviation", o.init_deviation));
  for (const auto& [key, value] : {std::pair{"beta1", o.beta1},
                                   {"beta2", o.beta2},
                                   {"momentum", o.momentum},
                                   {"ema", o.ema},
                                   {"final_share", o.final_share}}) {
    BN_RETURN_IF_ERROR(share(key, value));
  }
  BN_RETURN_IF_ERROR(refuse_unless(o.valid_share > 0 && o.valid_share < 1, "valid_share",
                                   fmt::format("{}", o.valid_share), "more than 0 and less than 1"));
  BN_RETURN_IF_ERROR(parse_precision(o.precision));
  BN_RETURN_IF_ERROR(check_lora_options(o));
  if (o.keep < 2) return invalid_argument("keep is {}, expected 2 or more", o.keep);
  BN_RETURN_IF_ERROR(refuse_unless(std::isfinite(o.epochs) && o.epochs >= 0, "epochs", fmt::format("{}", o.epochs),
                                   "0 or a positive number"));
  const int n_given = int(!o.dataset.empty()) + int(!o.text.empty()) + int(!o.conversations.empty());
  if (n_given != 1) {
    return invalid_argument("the data are one of dataset, text and conversations, {} given",
                            n_given == 0 ? "none is" : "several are");
  }
  for (const auto& [key, value] :
       {std::pair{"distill_logits", o.distill_logits}, {"distill_attention", o.distill_attention}}) {
    BN_RETURN_IF_ERROR(
        refuse_unless(std::isfinite(value) && value >= 0, key, fmt::format("{}", value), "0 or a positive number"));
  }
  BN_RETURN_IF_ERROR(positive("temperature", o.temperature));
  if (!o.teacher.empty() && o.distill_logits == 0 && o.distill_attention == 0) {
    return invalid_argument("distill_logits and distill_attention are 0: nothing is learned from the teacher");
  }
  if (o.insert_sub_norms && o.init.empty()) {
    return invalid_argument("insert_sub_norms is for a model to continue from; sub_norms is that of a new one");
  }
  if (!o.conversations.empty() && o.init.empty() && o.teacher.empty()) {
    return invalid_argument(
        "conversations want a model to continue from, whose vocabulary and chat template they take");
  }
  return ok();
}

}  // namespace bitnet
