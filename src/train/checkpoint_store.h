#pragma once

#include "train/checkpoint_file.h"

#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace bitnet {

struct CheckpointStoreOptions {
  int n_keep = 3;  // valid checkpoints that stay, at least 2
  const DiskCalls* disk = &system_disk_calls();
};

// The checkpoints of one run, a file each in one folder. Whatever happens at whatever time (the process is killed, the
// power fails, the disk is full or returns errors), the newest checkpoint that save() reported to be written stays
// valid until newer ones are. One thread at a time; movable.
class CheckpointStore {
 public:
  // Makes the folder, removes what a killed process left half-written, and locks the folder until the store goes: a
  // second process gets an error.
  static Result<CheckpointStore> open(const std::string& folder, const CheckpointStoreOptions& options = {});
  ~CheckpointStore();  // waits for the write in progress
  CheckpointStore(CheckpointStore&&) noexcept;
  CheckpointStore& operator=(CheckpointStore&&) noexcept;

  // See newest_checkpoint(); also remembers that this one is valid, for the rotation.
  Result<NewestCheckpoint> load_newest();

  // Copies everything and returns; a thread writes it. When the write before has failed, its error is returned instead
  // and nothing is begun: the checkpoints before it are as they were, and the caller may try again.
  Status save(int64_t step, std::span<const TensorView> tensors, const Json& state);
  // Until what was saved last is on the disk; its error if that failed.
  Status wait();

 private:
  struct Impl;
  explicit CheckpointStore(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace bitnet
