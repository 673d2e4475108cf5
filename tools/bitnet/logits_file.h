#pragma once

#include "base/result.h"

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace bitnet {
class SafetensorsFile;
class SafetensorsWriter;
struct StoredTensor;
}  // namespace bitnet

namespace bitnet::cli {

// Logits on disk as safetensors: `logits` float32 [n_rows, vocab_size], `ids` int32 [n_tokens] of the text and
// `positions` int32 [n_rows], the index of the token that a row predicts. Without `positions`, as `bitnet logits`
// writes it, row i predicts token i + 1.
class LogitsWriter {
 public:
  static Result<std::unique_ptr<LogitsWriter>> create(const std::string& path, const std::vector<int32_t>& ids,
                                                      const std::vector<int32_t>& positions, int64_t vocab_size);
  ~LogitsWriter();
  Status add(std::span<const float> row);
  Status finish();

 private:
  explicit LogitsWriter(SafetensorsWriter writer);
  std::unique_ptr<SafetensorsWriter> writer_;
  std::vector<int32_t> ids_, positions_;
};

class LogitsReader {
 public:
  // Refuses a file of other ids or of another vocabulary's size.
  static Result<std::unique_ptr<LogitsReader>> open(const std::string& path, const std::vector<int32_t>& ids,
                                                    int64_t vocab_size);
  ~LogitsReader();
  // The row that predicts token `index`; valid until the next call.
  Result<std::span<const float>> predicting(int64_t index);

 private:
  explicit LogitsReader(SafetensorsFile file);
  std::unique_ptr<SafetensorsFile> file_;
  const StoredTensor* logits_ = nullptr;
  std::vector<int64_t> row_of_;  // by token index; -1: none
  std::vector<float> row_;
};

}  // namespace bitnet::cli
