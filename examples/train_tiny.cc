// train_tiny [FOLDER]: trains a ternary model of 100,000 weights on a rhyme, byte by byte, in seconds, and lets it
// write.
#include "train/trainer.h"

#include "base/file.h"

#include <bitnet/bitnet.h>

#include <cstdio>
#include <filesystem>
#include <string>

namespace {

int fail(const bitnet::Error& error) {
  std::fprintf(stderr, "train_tiny: %s\n", error.message.c_str());
  return int(error.code);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string folder = argc > 1 ? argv[1] : "tiny-run";
  std::filesystem::create_directories(folder);
  std::string text;
  for (int i = 0; i < 200; ++i) text += "Humpty Dumpty sat on a wall, Humpty Dumpty had a great fall.\n";
  if (const auto written = bitnet::write_file_atomically(folder + "/rhyme.txt", text); !written) {
    return fail(written.error());
  }

  bitnet::TrainOptions options;  // every key of a run's TOML file is a field
  options.n_layers = 2;
  options.d_model = 64;
  options.d_ff = 128;
  options.n_heads = 2;
  options.text = folder + "/rhyme.txt";
  options.run = folder;
  options.n_ctx = 64;
  options.batch = 4;
  options.steps = 160;
  options.threads = 1;
  options.warmup = 10;
  options.lr = 5e-3;
  options.eval_every = options.checkpoint_every = 0;
  if (const auto valid = bitnet::check_train_options(options); !valid) return fail(valid.error());
  const auto trainer = bitnet::Trainer::create(options);
  if (!trainer) return fail(trainer.error());

  bitnet::TrainCallbacks callbacks;
  callbacks.on_step = [](const bitnet::StepReport& report) {
    if (report.step == 1 || report.step % 80 == 0) std::printf("step %3d  loss %.1f\n", int(report.step), report.loss);
  };
  if (const auto done = (*trainer)->run(callbacks); !done) return fail(done.error());

  // The run's folder now holds model.gguf, which computes what the trainer computed.
  const auto model = bitnet::Model::load(folder + "/model.gguf");
  if (!model) return fail(model.error());
  auto session = model->new_session();
  if (!session) return fail(session.error());
  bitnet::GenerateOptions greedy;
  greedy.sampling.temperature = 0;
  greedy.max_new_tokens = 36;
  const auto output = bitnet::generate(*session, "Humpty Dumpty sat", greedy);
  if (!output) return fail(output.error());
  std::printf("Humpty Dumpty sat%s\n", output->text.c_str());
}
