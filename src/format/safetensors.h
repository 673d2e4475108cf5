#pragma once

#include "base/file.h"
#include "base/result.h"
#include "format/name_index.h"
#include "format/stored_tensor.h"

#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace bitnet {

// One .safetensors file (specification: huggingface/safetensors README; where text and reference reader differ we say
// so in docs/formats/safetensors.md). Checked in full when opened. Immutable; thread-safe.
class SafetensorsFile {
 public:
  static Result<SafetensorsFile> open(const std::string& path);
  static Result<SafetensorsFile> parse(std::span<const std::byte> bytes, const std::string& name);

  const std::string& name() const { return name_; }
  uint64_t size_bytes() const { return size_bytes_; }
  const std::vector<StoredTensor>& tensors() const { return tensors_; }  // in order of their data
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const StoredTensor* find(std::string_view tensor) const;
  const std::shared_ptr<const File>& file() const { return file_; }  // null for a file held in memory
  Status read(const StoredTensor& tensor, uint64_t offset_bytes, std::span<std::byte> out) const;
  Result<std::vector<std::byte>> read(const StoredTensor& tensor) const;

 private:
  SafetensorsFile() = default;
  template <class ReadAt>
  static Result<SafetensorsFile> parse_header(const std::string& name, uint64_t size_bytes, ReadAt&& read_at);

  std::string name_;
  uint64_t size_bytes_ = 0;
  std::vector<StoredTensor> tensors_;
  NameIndex index_;
  std::map<std::string, std::string> metadata_;
  std::shared_ptr<const File> file_;
  std::span<const std::byte> in_memory_;
};

// All tensors of a folder: model.safetensors, or without it model.safetensors.index.json with its shards, which must
// lie in the folder itself (or where a Hugging Face cache keeps its blobs), hold what the index says and nothing twice.
// Immutable; thread-safe.
class SafetensorsFolder {
 public:
  static Result<SafetensorsFolder> open(const std::string& folder);

  struct Entry {
    const SafetensorsFile* file;
    const StoredTensor* tensor;
  };
  const Entry* find(std::string_view tensor) const;
  const std::vector<Entry>& tensors() const { return entries_; }  // sorted by name
  const std::vector<std::unique_ptr<SafetensorsFile>>& files() const { return files_; }
  uint64_t size_bytes() const;  // of all files

 private:
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::vector<Entry> entries_;  // sorted by name
};

// Writes one .safetensors file atomically. Data is handed over in the declared order. Readers that map the file want
// each tensor aligned to its element size, so tensors of wide elements come first; a misaligned one is refused.
class SafetensorsWriter {
 public:
  // `disk` must outlive the writer.
  static Result<SafetensorsWriter> create(const std::string& path, const DiskCalls& disk = system_disk_calls());
  Status add_metadata(std::string key, std::string value);
  Status add_tensor(std::string name, DType type, const Shape& shape);
  Status begin_data();
  Status write_data(std::span<const std::byte> data);
  // XXH3-64 of every byte of the file so far.
  uint64_t checksum() const;
  Status finish();

 private:
  struct State;
  explicit SafetensorsWriter(std::shared_ptr<State> state) : state_(std::move(state)) {}
  std::shared_ptr<State> state_;
};

}  // namespace bitnet
