#pragma once

#include "base/file.h"
#include "base/result.h"
#include "bitnet/model.h"
#include "format/gguf.h"
#include "format/gguf_checksums.h"
#include "kernels/backend.h"
#include "model/checkpoint.h"

#include <cstddef>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace bitnet {

// A model's weights as a back end lays them out, kept in a file beside the model ("model.gguf.base3.cache"), so that
// the next load maps that file instead of reading the model and laying it out again. A GGUF file, whose tensors are
// the parts that a back end takes (TakeMemory), with our checksums; its metadata says of which model it is, by sizes
// and times of that model's files. Thread-safe but for open() and save(). The
// matrices that take memory from here must not outlive it.
class WeightCache {
 public:
  // Finds the file of this checkpoint, back end and mode; one of another model, or of the same before it changed, is
  // left alone, which notice() tells. A damaged file is an error.
  static Result<std::unique_ptr<WeightCache>> open(const Checkpoint& checkpoint, const Backend& backend,
                                                   const LoadOptions& options);

  const std::string& notice() const { return notice_; }  // what a user should know, or empty

  // A ternary layer as the file has it, laid out for `use`: it reads no codes. Nothing where it is not there.
  Result<std::optional<LinearSource>> find_linear(const WeightSpec& spec, TernaryUse use);
  bool has_table(const WeightSpec& spec) const;
  // Has what is laid out from a layer that is not in the file kept for save().
  Status attach(const WeightSpec& spec, LinearSource& source);
  // Has what is laid out from a table come from the file, or kept for save().
  void attach(const WeightSpec& spec, FloatSource& source);

  // CacheMode::kWrite: writes what was taken, atomically; otherwise nothing. When all weights are laid out.
  Status save();

 private:
  struct Part {
    std::string name;
    std::span<const std::byte> bytes;
  };
  using Found = std::optional<std::span<const std::byte>>;
  Result<Found> find(const std::string& name) const;
  Result<LayoutMemory> take(const std::string& name, size_t size_bytes);
  TakeMemory memory_of(const WeightSpec& spec, TernaryUse use);

  bool write_ = false;
  std::string path_, identity_, notice_;
  bool verify_ = true;
  std::optional<GgufFile> file_;
  GgufChecksums checksums_;  // refers to file_
  std::optional<MappedFile> mapped_;
  std::mutex taking_;
  std::vector<Part> taken_;
  std::vector<Buffer> scales_;  // among what was taken
};

}  // namespace bitnet
