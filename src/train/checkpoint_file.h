#pragma once

#include "base/file.h"
#include "base/result.h"
#include "format/json.h"
#include "format/safetensors.h"

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace bitnet {

// A tensor that is to be saved. `bytes` are little-endian elements, row-major, as many as type and shape say.
struct TensorView {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;
  std::span<const std::byte> bytes;
};

// One checkpoint of a run (docs/formats/checkpoint.md): a .safetensors file whose last tensor is a checksum of every
// byte before it. Immutable; thread-safe.
class CheckpointFile {
 public:
  // Reads the whole file once and refuses it unless every byte is as it was written.
  static Result<CheckpointFile> open(const std::string& path);
  // The same from memory, which must outlive the result.
  static Result<CheckpointFile> parse(std::span<const std::byte> bytes, const std::string& name);
  // Written atomically: the file appears under its name when it is complete and on the disk.
  static Status write(const std::string& path, int64_t step, std::span<const TensorView> tensors, const Json& state,
                      const DiskCalls& disk = system_disk_calls());

  const std::string& path() const { return file_.name(); }
  int64_t step() const { return step_; }
  const Json& state() const { return state_; }
  std::vector<StoredTensor> tensors() const;  // the saved ones, in the file's order
  // Null when there is none of this name.
  const StoredTensor* find(std::string_view name) const;
  // Refuses a tensor that is not there or has another type or shape.
  Status read(std::string_view name, DType dtype, const Shape& shape, std::span<std::byte> out) const;

 private:
  explicit CheckpointFile(SafetensorsFile file) : file_(std::move(file)) {}
  Status check();

  SafetensorsFile file_;
  int64_t step_ = 0;
  Json state_;
};

// "step-000000001000.safetensors", and back; nothing for any other name.
std::string checkpoint_name(int64_t step);
std::optional<int64_t> checkpoint_step(std::string_view name);

// The checkpoints of a folder by step, whatever state they are in. No folder means none.
Result<std::map<int64_t, std::string>> list_checkpoints(const std::string& folder);

struct NewestCheckpoint {
  std::optional<CheckpointFile> file;  // nothing: the folder holds no checkpoint yet
  std::vector<std::string> rejected;   // newer ones that are damaged, a sentence each: to be shown to the user
};
// The valid checkpoint of the highest step. An error when there are checkpoints and none is valid.
Result<NewestCheckpoint> newest_checkpoint(const std::string& folder);

}  // namespace bitnet
