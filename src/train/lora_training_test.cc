#include "base/file.h"
#include "base/rng.h"
#include "bitnet/session.h"
#include "format/json.h"
#include "kernels/cpu/dispatch.h"
#include "train/test_trainer.h"
#include "train/trainer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string>

namespace bitnet {
namespace {

std::string words(uint64_t seed, int n, std::initializer_list<const char*> choices) {
  const CounterRng rng(seed);
  std::string text;
  for (int i = 0; i < n; ++i) text += *(choices.begin() + rng.bits(uint64_t(i)) % choices.size());
  return text;
}

// A base that has learned one text, and a run that adapts it to another.
class LoraTraining : public ::testing::Test {
 protected:
  LoraTraining() {
    TrainOptions o;
    o.n_layers = 2;
    o.d_model = 64;
    o.d_ff = 96;
    o.n_heads = 4;
    o.n_kv_heads = 2;
    o.n_ctx = 48;
    o.batch = 4;
    o.steps = 40;
    o.warmup = 4;
    o.lr = 5e-3;
    o.threads = 2;
    o.eval_every = 0;
    o.checkpoint_every = 0;
    o.text = folder_.write("base.txt", words(1, 3000, {"the fox ", "sees ", "a song.\n"}));
    o.run = folder_.path() + "/base";
    o.export_gguf = true;
    auto trainer = Trainer::create(o);
    EXPECT_TRUE(trainer) << trainer.error().message;
    const Status status = (*trainer)->run({});
    EXPECT_TRUE(status) << status.error().message;
    options_ = o;
    options_.init = o.run + "/model.gguf";
    options_.text = folder_.write("other.txt", words(2, 3000, {"my sister ", "asks ", "every door.\n"}));
    options_.lora_rank = 4;
    options_.steps = 12;
    options_.eval_batches = 3;
    options_.checkpoint_every = 3;
    options_.export_gguf = false;
  }

  // Stops after each of `stops` and goes on with one thread more.
  std::unique_ptr<Trainer> train(const std::string& name, std::vector<int64_t> stops = {}) {
    TrainOptions options = options_;
    options.run = folder_.path() + "/" + name;
    stops.push_back(options.steps);
    std::unique_ptr<Trainer> last;
    for (const int64_t stop : stops) {
      last.reset();
      TrainCallbacks callbacks;
      callbacks.on_step = [&](const StepReport& report) { losses_.push_back(report.loss); };
      last = testing::train_until(options, stop, callbacks);
      if (last == nullptr) return nullptr;
      ++options.threads;
    }
    return last;
  }
  std::string adapter(const std::string& name) const { return folder_.path() + "/" + name + "/adapter"; }
  void expect_refused(ErrorCode code, std::string_view part) {
    options_.run = folder_.path() + "/refused";
    const Status checked = check_train_options(options_);
    if (!checked) return testing::expect_error(checked, code, part);
    testing::expect_error(Trainer::create(options_), code, part);
  }

  // The validation loss as a session computes it, added up as the trainer does.
  double session_loss(const Model& model, const std::string& name) const {
    const auto dataset = Dataset::open(folder_.path() + "/" + name + "/data");
    EXPECT_TRUE(dataset);
    SessionOptions session_options;
    session_options.kv_type = KvType::kF32;
    session_options.chunk = 20;
    const CpuKernels& kernels = *usable_cpu_kernels().front();
    const int64_t n = options_.n_ctx;
    double total = 0;
    for (int64_t batch = 0; batch < options_.eval_batches; ++batch) {
      double loss = 0;
      for (int64_t i = 0; i < options_.batch; ++i) {
        std::vector<int32_t> ids(size_t(n + 1));
        EXPECT_TRUE(dataset->sequence(Split::kValid, 0, uint64_t(batch * options_.batch + i), ids));
        auto session = model.new_session(session_options);
        EXPECT_TRUE(session);
        const auto sink = [&](int64_t position, std::span<const float> logits) {
          std::vector<float> row(logits.begin(), logits.end());
          const float label = row[size_t(ids[size_t(position + 1)])], top = *std::max_element(row.begin(), row.end());
          const float inverse = kernels.softmax(row.data(), int64_t(row.size()), 1.0f);
          loss += -std::log(double(inverse)) - double(label - top);
          return true;
        };
        EXPECT_TRUE(session->append(std::span(ids).first(size_t(n)), sink));
      }
      total += loss;
    }
    return total / double(options_.eval_batches * options_.batch * n);
  }

  testing::TemporaryFolder folder_;
  TrainOptions options_;
  std::vector<double> losses_;
};

// Bit for bit, and the base file is what it was.
TEST_F(LoraTraining, TheAdapterComputesWhatTheTrainerDoes) {
  const std::string before = testing::contents_of(options_.init);
  for (const char* const targets : {"q,k,v,o,gate,up,down", "q,down"}) {
    options_.lora_targets = targets;
    options_.lora_alpha = 5;  // a scale that is no power of two
    const std::string name = std::string("run-") + targets[2];
    const auto trainer = train(name);
    ASSERT_NE(trainer, nullptr);
    const auto valid = trainer->validate();
    ASSERT_TRUE(valid);
    LoadOptions load;
    load.lora = adapter(name);
    const auto model = Model::load(options_.init, load);
    ASSERT_TRUE(model) << model.error().message;
    EXPECT_EQ(session_loss(*model, name), *valid) << targets;
    const auto base = Model::load(options_.init);
    ASSERT_TRUE(base);
    EXPECT_GT(session_loss(*base, name), *valid + 0.05) << targets;
  }
  EXPECT_EQ(testing::contents_of(options_.init), before);
}

// Before the first step the loss is the base's, bit for bit; the steps then lower it.
TEST_F(LoraTraining, BeginsAtTheBaseAndLearns) {
  options_.run = folder_.path() + "/begins";
  options_.steps = 60;
  auto trainer = Trainer::create(options_);
  ASSERT_TRUE(trainer) << trainer.error().message;
  const auto first = (*trainer)->validate();
  ASSERT_TRUE(first);
  const auto base = Model::load(options_.init);
  ASSERT_TRUE(base);
  EXPECT_EQ(*first, session_loss(*base, "begins"));
  for (int step = 0; step < 60; ++step) ASSERT_TRUE((*trainer)->train_step());
  const auto last = (*trainer)->validate();
  ASSERT_TRUE(last);
  EXPECT_LT(*last, 0.7 * *first);
}

TEST_F(LoraTraining, ResumesToTheSameBytes) {
  for (const char* const optimizer : {"adamw", "muon"}) {
    options_.optimizer = optimizer;
    options_.ema = std::string(optimizer) == "adamw" ? 0.9 : 0;
    losses_.clear();
    const std::string whole_name = std::string("whole-") + optimizer, parts_name = std::string("parts-") + optimizer;
    const auto whole = train(whole_name);
    const std::vector<double> losses = losses_;
    losses_.clear();
    const auto parts = train(parts_name, {1, 5, 9});
    ASSERT_NE(whole, nullptr);
    ASSERT_NE(parts, nullptr);
    EXPECT_EQ(losses, losses_);
    EXPECT_EQ(whole->parameters(), parts->parameters());
    const std::string bytes = testing::contents_of(adapter(whole_name) + "/adapter_model.safetensors");
    EXPECT_GT(bytes.size(), 10000u);
    EXPECT_EQ(bytes, testing::contents_of(adapter(parts_name) + "/adapter_model.safetensors"));
  }
}

// Checkpoints hold the adapter alone, memory has no gradients and moments of the base.
TEST_F(LoraTraining, KeepsTheAdapterOnly) {
  const auto trainer = train("small");
  ASSERT_NE(trainer, nullptr);
  const int64_t n = trainer->layout().n_parameters();
  // Of each layer: rank times the sum of both sides of q, k, v, o, gate, up and down.
  EXPECT_EQ(n, 2 * 4 * ((64 + 64) + 2 * (64 + 32) + (64 + 64) + 2 * (64 + 96) + (96 + 64)));
  uint64_t largest = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder_.path() + "/small/checkpoints")) {
    largest = std::max<uint64_t>(largest, entry.path().extension() == ".safetensors" ? entry.file_size() : 0);
  }
  EXPECT_GT(largest, uint64_t(n) * 12);
  EXPECT_LT(largest, uint64_t(n) * 12 + 16384);
  TrainOptions whole = options_;
  whole.lora_rank = 0;
  whole.run = folder_.path() + "/whole";
  const auto full = Trainer::create(whole);
  ASSERT_TRUE(full);
  EXPECT_LT(trainer->memory_bytes(), (*full)->memory_bytes() / 2);
}

TEST_F(LoraTraining, GoesOnWithItsOwnBaseOnly) {
  ASSERT_NE(train("run"), nullptr);
  // Another model of this shape in the base's place.
  TrainOptions other = options_;
  other.lora_rank = 0;
  other.init.clear();
  other.seed = 9;
  other.steps = 2;
  other.checkpoint_every = 0;
  other.export_gguf = true;
  other.run = folder_.path() + "/stranger";
  auto stranger = Trainer::create(other);
  ASSERT_TRUE(stranger);
  ASSERT_TRUE((*stranger)->run({}));
  std::filesystem::copy_file(other.run + "/model.gguf", options_.init,
                             std::filesystem::copy_options::overwrite_existing);
  options_.run = folder_.path() + "/run";
  auto trainer = Trainer::create(options_);
  ASSERT_TRUE(trainer) << trainer.error().message;
  testing::expect_error((*trainer)->run({}), ErrorCode::kInvalidInput, "the run began on a base with the checksum");
  LoadOptions load;
  load.lora = adapter("run");
  testing::expect_error(Model::load(options_.init, load), ErrorCode::kInvalidInput,
                        "was made for a base with the checksum");
}

TEST_F(LoraTraining, RefusesWhatAnAdapterCannotBeTrainedWith) {
  const TrainOptions good = options_;
  options_.lora_targets = "q,head";
  expect_refused(ErrorCode::kInvalidArgument, "lora_targets: \"head\" is no linear layer");
  options_ = good;
  options_.lora_rank = 65;
  expect_refused(ErrorCode::kInvalidArgument, "lora_rank is 65, expected at most the model's width of 64");
  options_ = good;
  options_.init.clear();
  expect_refused(ErrorCode::kInvalidArgument, "lora_rank wants a model to continue from");
  options_ = good;
  options_.lambda_warmup = 5;
  expect_refused(ErrorCode::kInvalidArgument, "which lambda_warmup would change");
  options_ = good;
  options_.device = "cuda";
  expect_refused(ErrorCode::kUnsupported, "device is \"cuda\": adapters (lora_rank) are trained on the cpu only");
}

}  // namespace
}  // namespace bitnet
