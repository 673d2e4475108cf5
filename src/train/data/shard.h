#pragma once

#include "base/file.h"
#include "base/result.h"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace bitnet {

enum class Split : uint8_t { kTrain = 0, kValid = 1 };
const char* split_name(Split split);  // "train", "valid"

// What a shard of tokens says of itself (docs/formats/dataset.md).
struct ShardHeader {
  static constexpr uint64_t kSize_bytes = 64;
  static constexpr uint64_t kBlock_bytes = 65536;  // of data, each with a checksum of its own
  static constexpr uint64_t kMaxVocabSize = uint64_t{1} << 31;

  uint32_t element_bytes = 2;  // 1, 2 or 4
  Split split = Split::kTrain;
  uint32_t index = 0;  // of the shard in its split
  uint64_t vocab_size = 0;
  uint64_t n_tokens = 0;
  uint64_t n_documents = 0;
  uint32_t table_crc = 0;  // CRC-32C of the table of block checksums

  // What the file must have: header, data, a checksum a block.
  uint64_t data_bytes() const { return n_tokens * element_bytes; }
  uint64_t n_blocks() const { return (data_bytes() + kBlock_bytes - 1) / kBlock_bytes; }
  uint64_t table_offset() const { return kSize_bytes + data_bytes(); }
  uint64_t file_bytes() const { return table_offset() + 4 * n_blocks(); }

  std::vector<std::byte> encode() const;
  static Result<ShardHeader> parse(std::span<const std::byte> bytes, uint64_t file_bytes, const std::string& name);
  bool operator==(const ShardHeader&) const = default;
};

// The narrowest element that holds every id.
uint32_t element_bytes_for(uint64_t vocab_size);

// A shard open for reading. A block is checked against its checksum when it is first read, and every id against the
// vocabulary each time, so that damage is an error and never a wrong token. Reads go through pread: a file that shrinks
// gives an error, not a signal. Thread-safe.
class Shard {
 public:
  static Result<Shard> open(const std::string& path);
  // The same from memory, which must outlive the result.
  static Result<Shard> parse(std::span<const std::byte> bytes, const std::string& name);

  const ShardHeader& header() const { return header_; }
  const std::string& name() const { return name_; }
  // Tokens [first, first + out.size()), all of them in the shard.
  Status read(uint64_t first, std::span<int32_t> out) const;

 private:
  Shard(std::optional<File> file, std::span<const std::byte> in_memory, std::string name);
  Status read_header();
  uint64_t file_bytes() const { return file_ ? file_->size_bytes() : in_memory_.size(); }
  Status read_bytes(uint64_t offset, std::span<std::byte> out) const;
  Status check_blocks(uint64_t begin_byte, uint64_t end_byte) const;

  std::optional<File> file_;
  std::span<const std::byte> in_memory_;
  std::string name_;
  ShardHeader header_;
  std::vector<uint32_t> block_crcs_;
  std::unique_ptr<std::atomic<bool>[]> block_checked_;
};

// Writes one shard atomically. Not thread-safe.
class ShardWriter {
 public:
  static Result<ShardWriter> create(const std::string& path, uint64_t vocab_size, Split split, uint32_t index);
  // Refuses an id outside the vocabulary.
  Status write(std::span<const int32_t> ids);
  void count_document() { ++header_.n_documents; }
  uint64_t n_tokens() const { return header_.n_tokens; }
  // Ends the file; gives its header.
  Result<ShardHeader> finish();

 private:
  ShardWriter(AtomicFile file, std::string path) : file_(std::move(file)), path_(std::move(path)) {}
  Status write_block();

  AtomicFile file_;
  std::string path_;
  ShardHeader header_;
  std::vector<std::byte> block_;  // not yet written
  std::vector<uint32_t> block_crcs_;
};

}  // namespace bitnet
