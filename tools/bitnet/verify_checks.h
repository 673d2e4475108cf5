#pragma once

#include "base/result.h"
#include "cli.h"
#include "options.h"

#include <string>
#include <vector>

namespace bitnet {
class Checkpoint;
}

namespace bitnet::cli {

struct Check {
  std::string name;
  bool ok = true;
  std::string detail;
};

// The checks so far, and the kind of the first failure.
class VerifyReport {
 public:
  // `result`: what the check says when it holds, or why it does not.
  bool add(const std::string& name, const Result<std::string>& result);
  bool ok() const { return failure_ == ErrorCode{}; }
  ErrorCode failure() const { return failure_; }
  const std::vector<Check>& checks() const { return checks_; }

 private:
  std::vector<Check> checks_;
  ErrorCode failure_{};  // 0: none
};

struct VerifyOptions {
  ModelFlags model;
  std::string other;      // compare with this model, if not empty
  bool deep = false;      // run the reference back end whatever the model's size
  int64_t n_tokens = 32;  // of the fixed sequence that models are run on
};

// On the file: every value of every tensor, the checksum table, the vocabulary.
void verify_file(const Checkpoint& checkpoint, VerifyReport& report);
// On the running model: finite logits, chunks and caching change no bit, the reference back end agrees. An error only
// when it was interrupted.
Status verify_running(const Model& model, const VerifyOptions& options, VerifyReport& report);
// How far apart two models' logits are.
Status verify_against(const Model& model, const Model& other, const VerifyOptions& options, VerifyReport& report);

// Ids that look random and are the same everywhere.
std::vector<int32_t> fixed_ids(int64_t n, int64_t vocab_size);

}  // namespace bitnet::cli
