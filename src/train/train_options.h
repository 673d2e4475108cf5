#pragma once

#include "base/result.h"
#include "model/config.h"
#include "model/weights.h"
#include "train/core/distillation.h"
#include "train/core/optimizer.h"
#include "train/core/quantization.h"
#include "train/schedule.h"

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

namespace bitnet {

// Everything that a training run depends on, as its configuration file and the flags of `bitnet train` name it. Whole
// numbers of 0 mean "what follows from the rest".
struct TrainOptions {
  // [model]
  std::string init;    // a model to continue from, whose shape counts
  std::string preset;  // shape of a published model; what else is given here overrides it
  std::string architecture = "bitnet-b1.58";
  int64_t n_layers = 6, d_model = 384, d_ff = 1024, n_heads = 6, n_kv_heads = 0, head_dim = 0, vocab_size = 0;
  std::string activation;  // "relu2" or "silu"; empty: the architecture's
  double rope_theta = 10000, rms_eps = 1e-5, init_deviation = 0.02;
  bool sub_norms = true, tied_head = true;
  bool insert_sub_norms = false;  // into `init`, which has none
  // [quantization]
  bool quantize = true;
  std::string weight_scale = "absmean";  // or "learned"
  int64_t group_cols = 0, lambda_warmup = 0;
  int64_t layer_steps = 0;            // between the quantisation of one layer and the next one's; 0: all at once
  std::string layer_order = "first";  // or "last": where that begins
  std::string bits;                   // "8:500,4:500": widths before the ternary one, and their steps
  // [lora]: an adapter of a frozen `init` is trained instead of its weights, unless the rank is 0
  int64_t lora_rank = 0;
  double lora_alpha = 0;  // 0: twice the rank
  std::string lora_targets = "q,k,v,o,gate,up,down";
  // [distillation]
  std::string teacher;  // what `init` may be; its vocabulary is the student's
  double distill_logits = 1, distill_attention = 0, temperature = 1;
  int64_t distill_layer = 1, relation_heads = 0;
  // [data]
  std::string dataset;  // a folder that `bitnet train prepare` made
  std::string text;  // or a text file, which becomes tokens in the run's folder: of the vocabulary of `init`, or bytes
  std::string conversations;  // or JSONL files of conversations (conversation.h), of which the replies are learned
  double valid_share = 0.1;
  int64_t n_ctx = 256, batch = 8, accumulation = 1, seed = 0;
  // [optimizer]
  std::string optimizer = "adamw";
  double lr = 1.5e-3, beta1 = 0.9, beta2 = 0.95, eps = 1e-8, momentum = 0.95, weight_decay = 0.1, clip = 1.0, ema = 0;
  double spike_factor = 0;
  // [schedule]
  std::string schedule = "cosine";
  int64_t steps = 1000, warmup = 100;
  double epochs = 0;  // more than 0: instead of steps
  double second_lr = 0, final_share = 0, decay_share = 0.2;
  // [run]
  std::string run;                                 // the folder that everything is written to
  std::string device = "cpu", precision = "bf16";  // precision: of a GPU
  int64_t threads = 0, log_every = 10, eval_every = 100, eval_batches = 8, checkpoint_every = 200, keep = 3;
  int64_t sample_every = 0, sample_tokens = 200;
  std::string sample_prompt;
  bool recompute = false, export_model = true, export_gguf = true;
};

struct OptionKey {
  std::string section, name, help;
  std::variant<int64_t*, double*, bool*, std::string*> value;
  bool changes_result = true;  // a run cannot be resumed with another value
};
// All keys of `options`, which must outlive them.
std::vector<OptionKey> option_keys(TrainOptions& options);

// Reads a TOML file over what `options` hold; a key that there is not and a value of another type are refused.
Status read_train_config(const std::string& path, TrainOptions& options);

// What the options mean for the rooms below; refuses what does not fit together. `vocab_size` is the data's.
Result<ModelConfig> model_config(const TrainOptions& options, int64_t vocab_size);
struct LoraShape {
  int64_t rank = 0;
  double alpha = 0;
  std::vector<WeightRole> targets;
};
Result<LoraShape> lora_shape(const TrainOptions& options, const ModelConfig& config);
Result<OptimizerOptions> optimizer_options(const TrainOptions& options);
Result<ScheduleOptions> schedule_options(const TrainOptions& options);
Result<QuantizationSchedule> quantization_schedule(const TrainOptions& options);
// For a student and its teacher; `relation_heads` of 0 becomes the largest that both have.
Result<DistillationOptions> distillation_options(const TrainOptions& options, const ModelConfig& student,
                                                 const ModelConfig& teacher);
Status check_train_options(const TrainOptions& options);

}  // namespace bitnet
