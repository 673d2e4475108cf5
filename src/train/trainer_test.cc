#include "train/trainer.h"

#include "base/file.h"
#include "base/rng.h"
#include "bitnet/session.h"
#include "kernels/cpu/dispatch.h"
#include "memory/pool.h"
#include "memory/testing.h"
#include "train/test_trainer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <span>
#include <string>

namespace bitnet {
namespace {

// Sentences of a small grammar: about 1.3 nats a byte once its words are known.
std::string small_text(int n_sentences) {
  const char* const who[] = {"the fox", "a bear", "the old king", "my sister"};
  const char* const does[] = {" sees ", " follows ", " asks ", " forgets "};
  const char* const what[] = {"the moon", "a song", "the river", "every door"};
  const CounterRng rng(4);
  std::string text;
  for (int i = 0; i < n_sentences; ++i) {
    const uint64_t bits = rng.bits(uint64_t(i));
    text += std::string(who[bits % 4]) + does[bits / 4 % 4] + what[bits / 16 % 4] + ".\n";
  }
  return text;
}

class Training : public ::testing::Test {
 protected:
  Training() {
    EXPECT_TRUE(write_file_atomically(folder_.path() + "/text.txt", small_text(1500)).has_value());
    options_.n_layers = 2;
    options_.d_model = 64;
    options_.d_ff = 96;
    options_.n_heads = 4;
    options_.n_kv_heads = 2;
    options_.n_ctx = 48;
    options_.batch = 4;
    options_.steps = 12;
    options_.warmup = 4;
    options_.lr = 5e-3;
    options_.threads = 1;
    options_.eval_every = 5;
    options_.eval_batches = 3;
    options_.checkpoint_every = 3;
    options_.log_every = 1;
    options_.text = folder_.path() + "/text.txt";
    options_.export_gguf = false;
  }

  // Trains in a folder of its own, stopping after each of `stops` and going on with one thread more.
  std::unique_ptr<Trainer> train(const std::string& name, std::vector<int64_t> stops = {}) {
    TrainOptions options = options_;
    options.run = folder_.path() + "/" + name;
    stops.push_back(options.steps);
    std::unique_ptr<Trainer> last;
    for (const int64_t stop : stops) {
      last.reset();
      TrainCallbacks callbacks;
      callbacks.on_step = [&](const StepReport& report) { losses_.push_back(report.loss); };
      callbacks.on_valid = [&](int64_t, double loss) { valid_loss_ = loss; };
      last = testing::train_until(options, stop, callbacks);
      if (last == nullptr) return nullptr;
      ++options.threads;
    }
    return last;
  }
  // A float model, wider than the student, in the folder "teacher".
  std::string teach() {
    TrainOptions student = options_;
    options_.architecture = "llama";
    options_.quantize = false;
    options_.n_layers = 3;
    options_.d_model = 96;
    options_.d_ff = 128;
    options_.n_heads = 6;
    options_.steps = 40;
    EXPECT_NE(train("teacher"), nullptr);
    options_ = student;
    losses_.clear();
    return folder_.path() + "/teacher";
  }
  void expect_refused(const std::string& message) {
    options_.run = folder_.path() + "/refused";
    const auto trainer = Trainer::create(options_);
    ASSERT_FALSE(trainer.has_value()) << message;
    EXPECT_NE(trainer.error().message.find(message), std::string::npos) << trainer.error().message;
  }
  std::string exported(const std::string& name) const { return testing::exported_weights(folder_, name); }

  testing::TemporaryFolder folder_;
  TrainOptions options_;
  std::vector<double> losses_;
  double valid_loss_ = 0;
};

TEST_F(Training, LossFalls) {
  options_.steps = 300;
  options_.checkpoint_every = options_.eval_every = 0;
  ASSERT_NE(train("falls"), nullptr);
  EXPECT_GT(losses_.front(), 5.0);
  EXPECT_LT(losses_.back(), 1.2);
  EXPECT_LT(valid_loss_, 1.2);
}

// Stopped at several places and resumed with other numbers of threads: the same bytes.
TEST_F(Training, ResumesToTheSameBytes) {
  for (const char* const optimizer : {"adamw", "adamw8", "muon", "sgd"}) {
    options_.optimizer = optimizer;
    // In the middle of a layer's warm-up, and of a width.
    options_.layer_steps = std::string(optimizer) == "adamw8" ? 2 : 0;
    options_.bits = std::string(optimizer) == "muon" ? "8:4,3:4" : "";
    options_.ema = std::string(optimizer) == "adamw" ? 0.9 : 0;
    options_.lambda_warmup = std::string(optimizer) == "adamw8" ? 8 : 0;
    options_.spike_factor = 3;
    losses_.clear();
    const auto whole = train(std::string("whole-") + optimizer);
    const std::vector<double> losses = losses_;
    losses_.clear();
    const auto parts = train(std::string("parts-") + optimizer, {1, 5, 6, 9});
    ASSERT_NE(whole, nullptr);
    ASSERT_NE(parts, nullptr);
    EXPECT_EQ(losses, losses_);
    EXPECT_EQ(whole->parameters(), parts->parameters());
    const std::string bytes = exported(std::string("whole-") + optimizer);
    EXPECT_GT(bytes.size(), 10000u);
    EXPECT_TRUE(bytes == exported(std::string("parts-") + optimizer)) << optimizer;
  }
}

// The teacher is read again, so that a run that is stopped goes on as if nothing had been.
TEST_F(Training, AStudentResumesToTheSameBytes) {
  options_.teacher = teach();
  options_.distill_attention = 0.5;
  options_.temperature = 2;
  options_.distill_layer = 2;
  options_.accumulation = 2;
  options_.recompute = true;
  options_.layer_steps = 5;
  options_.layer_order = "last";
  const auto whole = train("whole");
  const std::vector<double> losses = losses_;
  losses_.clear();
  const auto parts = train("parts", {1, 4, 7});
  ASSERT_NE(whole, nullptr);
  ASSERT_NE(parts, nullptr);
  EXPECT_EQ(losses, losses_);
  EXPECT_EQ(whole->parameters(), parts->parameters());
  EXPECT_TRUE(exported("whole") == exported("parts"));
  const auto cost = whole->teacher_cost();
  ASSERT_TRUE(cost.has_value());
  EXPECT_GT(cost->n_parameters, 3 * (4 * 96 * 96 + 3 * 96 * 128) / 2);
  EXPECT_EQ(cost->memory_bytes / sizeof(float), uint64_t(cost->n_parameters));
  EXPECT_GT(whole->flops_per_token(), 2 * double(cost->n_parameters));

  // What it learned is not what it learns by itself.
  options_.teacher.clear();
  losses_.clear();
  ASSERT_NE(train("alone"), nullptr);
  EXPECT_EQ(losses_.front(), losses.front());
  EXPECT_NE(losses_.back(), losses.back());
}

TEST_F(Training, RefusesATeacherThatDoesNotFit) {
  const std::string teacher = teach();
  options_.teacher = teacher;
  options_.vocab_size = 300;
  expect_refused("the teacher has 256 tokens and the student 300: they must share the vocabulary");
  options_.vocab_size = 0;
  options_.distill_attention = 1;
  options_.distill_layer = 3;
  expect_refused("distill_layer is 3, expected 1 (the last layer) to 2");
  options_.distill_layer = 1;
  options_.relation_heads = 5;
  expect_refused("relation_heads is 5, which does not divide the 64 columns of the student");
  options_.relation_heads = 0;
  options_.device = "cuda";
  expect_refused("a student learns from a teacher on the processor only");
  options_.device = "cpu";
  options_.teacher = folder_.path() + "/nothing";
  expect_refused("/nothing");
  // Half of a vocabulary changed behind the same number of tokens.
  options_.teacher = folder_.path() + "/other";
  std::filesystem::copy(teacher + "/model", options_.teacher);
  auto vocabulary = read_file(options_.teacher + "/tokenizer.json");
  ASSERT_TRUE(vocabulary.has_value());
  const size_t a = vocabulary->find("\"a\":"), b = vocabulary->find("\"b\":");
  ASSERT_TRUE(a != std::string::npos && b != std::string::npos);
  std::swap((*vocabulary)[a + 1], (*vocabulary)[b + 1]);
  ASSERT_TRUE(write_file_atomically(options_.teacher + "/tokenizer.json", *vocabulary).has_value());
  expect_refused("in the data: they must share the vocabulary");
}

// A teacher without sub-norms that becomes the student: norms of 1 in front of o and down, everything else as it is.
TEST_F(Training, SubNormsAreInsertedIntoAModelWithoutThem) {
  options_.init = options_.teacher = teach();
  options_.insert_sub_norms = true;
  options_.run = folder_.path() + "/student";
  auto student = Trainer::create(options_);
  ASSERT_TRUE(student.has_value()) << student.error().message;
  EXPECT_TRUE((*student)->config().sub_norms && (*student)->config().ternary);
  EXPECT_EQ((*student)->config().architecture, "bitnet");
  const auto newest = newest_checkpoint(folder_.path() + "/teacher/checkpoints");
  ASSERT_TRUE(newest.has_value() && newest->file.has_value());
  int n_new = 0;
  for (const ParameterSlice& slice : (*student)->layout().slices()) {
    const float* const values = (*student)->parameters().data() + slice.offset;
    std::vector<float> expected(size_t(slice.n_values), 1.0f);
    const bool is_new = slice.name.find("sub_norm") != std::string::npos;
    n_new += int(is_new);
    if (!is_new) {
      ASSERT_TRUE(
          newest->file->read(slice.name, DType::kF32, slice.spec.shape, std::as_writable_bytes(std::span(expected)))
              .has_value());
    }
    EXPECT_TRUE(std::equal(expected.begin(), expected.end(), values)) << slice.name;
  }
  EXPECT_EQ(n_new, 6);
  ASSERT_TRUE((*student)->run({}).has_value());
  EXPECT_TRUE(Model::load(folder_.path() + "/student/model").has_value());
  options_.init = folder_.path() + "/student";
  expect_refused("has sub-norms already");
}

TEST_F(Training, RefusesAScheduleThatDoesNotEndInTime) {
  options_.layer_steps = 12;
  expect_refused("quantised as they will be served from step 13 on, but the run ends at 12");
  options_.layer_steps = 0;
  options_.bits = "8:6,4:6";
  expect_refused("from step 13 on");
  options_.bits = "8:6,4:5";
  options_.weight_scale = "learned";
  expect_refused("a learned step is that of one width");
  options_.weight_scale = "absmean";
  options_.quantize = false;
  expect_refused("quantize is false: there is nothing for bits to bring in");
  options_.quantize = true;
  options_.layer_order = "middle";
  expect_refused("layer_order is \"middle\", expected first or last");
}

TEST_F(Training, RefusesToResumeWithOtherMathematics) {
  ASSERT_NE(train("run"), nullptr);
  options_.lr = 1e-3;
  options_.run = folder_.path() + "/run";
  auto trainer = Trainer::create(options_);
  ASSERT_TRUE(trainer.has_value());
  const Status status = (*trainer)->run({});
  ASSERT_FALSE(status.has_value());
  EXPECT_NE(status.error().message.find("the run began with lr = 0.005, not 0.001"), std::string::npos)
      << status.error().message;
}

// What the trainer validates is what the runtime serves: the same logits give the same loss, bit for bit.
TEST_F(Training, TheExportedModelComputesWhatTheTrainerDoes) {
  for (const bool llama : {false, true}) {
    options_.architecture = llama ? "llama" : "bitnet-b1.58";
    options_.tied_head = !llama;
    options_.layer_steps = 3;
    options_.bits = llama ? "4:4" : "";
    options_.lambda_warmup = llama ? 0 : 5;
    const std::string name = llama ? "llama" : "bitnet";
    const auto trainer = train(name);
    ASSERT_NE(trainer, nullptr);
    const auto valid = trainer->validate();
    ASSERT_TRUE(valid.has_value());

    const auto dataset = Dataset::open(folder_.path() + "/" + name + "/data");
    ASSERT_TRUE(dataset.has_value());
    const auto model = Model::load(folder_.path() + "/" + name + "/model");
    ASSERT_TRUE(model.has_value()) << model.error().message;
    SessionOptions session_options;
    session_options.kv_type = KvType::kF32;
    const CpuKernels& kernels = *usable_cpu_kernels().front();
    const int64_t n = options_.n_ctx;
    double total = 0;
    for (int64_t batch = 0; batch < options_.eval_batches; ++batch) {
      double loss = 0;  // added up as the trainer does, a batch at a time
      for (int64_t i = 0; i < options_.batch; ++i) {
        std::vector<int32_t> ids(size_t(n + 1));
        ASSERT_TRUE(dataset->sequence(Split::kValid, 0, uint64_t(batch * options_.batch + i), ids).has_value());
        auto session = model->new_session(session_options);
        ASSERT_TRUE(session.has_value());
        const auto sink = [&](int64_t position, std::span<const float> logits) {
          std::vector<float> row(logits.begin(), logits.end());
          const float label = row[size_t(ids[size_t(position + 1)])], top = *std::max_element(row.begin(), row.end());
          const float inverse = kernels.softmax(row.data(), int64_t(row.size()), 1.0f);
          loss += -std::log(double(inverse)) - double(label - top);
          return true;
        };
        ASSERT_TRUE(session->append(std::span(ids).first(size_t(n)), sink).has_value());
      }
      total += loss;
    }
    EXPECT_EQ(total / double(options_.eval_batches * options_.batch * n), *valid) << name;
  }
}

// From an exported ternary model and from its GGUF file training begins with the function of that model.
TEST_F(Training, ContinuesFromATernaryModel) {
  options_.export_gguf = true;
  const auto trainer = train("first");
  ASSERT_NE(trainer, nullptr);
  const auto before = trainer->validate();
  ASSERT_TRUE(before.has_value());
  for (const char* const file : {"/first/model", "/first/model.gguf"}) {
    TrainOptions options = options_;
    options.init = folder_.path() + file;
    options.run = folder_.path() + "/second";
    auto second = Trainer::create(options);
    ASSERT_TRUE(second.has_value()) << second.error().message;
    const auto loss = (*second)->validate();
    ASSERT_TRUE(loss.has_value());
    EXPECT_NEAR(*loss, *before, 1e-3) << file;
  }
}

TEST_F(Training, RefusesADeviceThatIsNotThere) {
  options_.run = folder_.path() + "/refused";
  options_.device = "tpu";
  const auto unknown = Trainer::create(options_);
  ASSERT_FALSE(unknown.has_value());
  EXPECT_EQ(unknown.error().message, "device is \"tpu\": training runs on cpu, cuda, cuda:N or cuda:N,M");
  options_.device = "cuda:77";
  const auto missing = Trainer::create(options_);
  ASSERT_FALSE(missing.has_value());
  const std::string& message = missing.error().message;
  EXPECT_TRUE(message.find("this build has no CUDA") != std::string::npos ||
              message.find("no CUDA device") != std::string::npos ||
              message.find("CUDA devices, numbered from 0") != std::string::npos)
      << message;
}

// Tokens that make a loss infinite must not reach a checkpoint.
TEST_F(Training, StopsWhenNothingIsFinite) {
  options_.lr = 1e30;
  options_.clip = 0;
  options_.steps = 100;
  options_.run = folder_.path() + "/diverges";
  auto trainer = Trainer::create(options_);
  ASSERT_TRUE(trainer.has_value());
  const Status status = (*trainer)->run({});
  ASSERT_FALSE(status.has_value());
  trainer->reset();
  const auto newest = newest_checkpoint(options_.run + "/checkpoints");
  ASSERT_TRUE(newest.has_value());
  if (!newest->file) return;
  std::vector<float> embedding(256 * 64);
  ASSERT_TRUE(
      newest->file
          ->read("model.embed_tokens.weight", DType::kF32, {256, 64}, std::as_writable_bytes(std::span(embedding)))
          .has_value());
  for (const float value : embedding) ASSERT_TRUE(std::isfinite(value));
}

// Every request for memory of the first two steps is refused in turn, with all after it.
TEST_F(Training, RefusedMemoryIsAnErrorOnAnyThread) {
  Pool& before = host_pool();
  options_.threads = 2;
  options_.run = folder_.path() + "/refused";
  const auto train = [&](Pool& pool) -> Status {
    host_pool_detail::pool = &pool;
    const auto result = [&]() -> Status {
      BN_ASSIGN_OR_RETURN(const std::unique_ptr<Trainer> trainer, Trainer::create(options_));
      BN_RETURN_IF_ERROR(trainer->train_step());
      BN_RETURN_IF_ERROR(trainer->train_step());
      return ok();
    }();
    host_pool_detail::pool = &before;
    return result;
  };
  TestSource counting;
  {
    Pool pool({.kept_bytes = 0}, counting);
    ASSERT_TRUE(train(pool));
  }
  ASSERT_GT(counting.n_takes, 0);
  for (int64_t n = 0; n < counting.n_takes; ++n) {
    TestSource source;
    source.fails_at = n;
    source.keeps_failing = true;
    Pool pool({.kept_bytes = 0}, source);
    const Status status = train(pool);
    ASSERT_FALSE(status) << "request " << n;
    EXPECT_EQ(status.error().code, ErrorCode::kResource);
    EXPECT_EQ(pool.report().live_bytes(), 0u) << "request " << n;
  }
}

}  // namespace
}  // namespace bitnet
