#pragma once

#include "base/file.h"
#include "base/rng.h"
#include "train/test_folder.h"
#include "train/trainer.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>

// For tests that train in a folder.
namespace bitnet::testing {

// Goes on where the run's folder stands until step `end`, where the run is stopped unless it ends there. Null where
// there is no trainer.
inline std::unique_ptr<Trainer> train_until(const TrainOptions& options, int64_t end, TrainCallbacks callbacks) {
  auto made = Trainer::create(options);
  EXPECT_TRUE(made.has_value()) << made.error().message;
  if (!made) return nullptr;
  std::unique_ptr<Trainer> trainer = *std::move(made);
  callbacks.keep_going = [&] { return trainer->step() < end || end == options.steps; };
  const Status status = trainer->run(callbacks);
  EXPECT_EQ(status.has_value(), end == options.steps) << (status ? "" : status.error().message);
  return trainer;
}

// A run of 40 steps on sentences in `folder`, of a model whose heads fill a GPU's tiles.
inline TrainOptions tiled_run(const TemporaryFolder& folder) {
  std::string text;
  const CounterRng rng(4);
  for (uint64_t i = 0; i < 1500; ++i) {
    const char* const words[] = {"the fox", "a bear", "the old king", "my sister", "the moon", "a song", "the river"};
    text += std::string(words[rng.bits(i) % 7]) + " sees " + words[rng.bits(i + 5000) % 7] + ".\n";
  }
  TrainOptions options;
  options.n_layers = 2;
  options.d_model = 128;
  options.d_ff = 192;
  options.n_heads = 2;
  options.n_kv_heads = 1;
  options.n_ctx = 80;
  options.batch = 4;
  options.accumulation = 2;
  options.steps = 40;
  options.warmup = 4;
  options.lr = 3e-3;
  options.threads = 2;
  options.eval_every = 20;
  options.eval_batches = 3;
  options.checkpoint_every = 10;
  options.log_every = 5;
  options.text = folder.write("text.txt", text);
  options.export_gguf = false;
  return options;
}

// The bytes of the weights that the run in `folder` exported; none where it did not.
inline std::string exported_weights(const TemporaryFolder& folder, const std::string& run) {
  auto bytes = read_file(folder.path() + "/" + run + "/model/model.safetensors");
  return bytes ? *bytes : std::string();
}

}  // namespace bitnet::testing
