#pragma once

#include "base/result.h"
#include "train/watch/append_file.h"

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace bitnet {

// A number with a name, of one step of training.
struct Metric {
  std::string_view name;
  double value = 0;
};

// A file that TensorBoard reads: TFRecord frames (u64 length, masked CRC-32C of it, data, masked CRC-32C of them), each
// a protocol buffer tensorflow.Event (tensorflow/core/util/event.proto, framework/summary.proto,
// framework/tensor.proto). One thread at a time.
class EventFile {
 public:
  // A new file in the folder, "events.out.tfevents.SECONDS.bitnet[.N]". `start_step` > 0: TensorBoard forgets what
  // older files of the folder say of this step and later ones.
  static Result<EventFile> create(const std::string& folder, double wall_time_s, int64_t start_step);
  Status write_scalars(int64_t step, double wall_time_s, std::span<const Metric> metrics);
  // As one string of the text plugin.
  Status write_text(int64_t step, double wall_time_s, std::string_view name, std::string_view text);
  const std::string& path() const { return file_.path(); }

 private:
  explicit EventFile(AppendFile file) : file_(std::move(file)) {}
  Status write_record(std::string_view data);
  AppendFile file_;
};

}  // namespace bitnet
