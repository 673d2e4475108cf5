#include "train/data/shard.h"

#include "base/checked.h"
#include "base/crc32c.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

namespace bitnet {
namespace {

constexpr std::string_view kMagic = "BNTOKENS";
constexpr uint32_t kVersion = 1;

// Where each field of the header lies.
enum Offset : size_t {
  kMagicAt = 0,
  kVersionAt = 8,
  kElementBytesAt = 12,
  kSplitAt = 16,
  kIndexAt = 20,
  kVocabSizeAt = 24,
  kTokensAt = 32,
  kDocumentsAt = 40,
  kTableCrcAt = 48,
  kZerosAt = 52,  // 8 bytes
  kHeaderCrcAt = 60,
};

template <class T>
void put(std::span<std::byte> bytes, size_t at, T value) {
  for (size_t i = 0; i < sizeof value; ++i) bytes[at + i] = std::byte(uint64_t(value) >> (8 * i));
}
template <class T>
T get(std::span<const std::byte> bytes, size_t at) {
  uint64_t value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) value |= uint64_t(bytes[at + i]) << (8 * i);
  return T(value);
}

void put_element(std::vector<std::byte>& out, int32_t id, uint32_t element_bytes) {
  for (uint32_t i = 0; i < element_bytes; ++i) out.push_back(std::byte(uint32_t(id) >> (8 * i)));
}

}  // namespace

const char* split_name(Split split) { return split == Split::kTrain ? "train" : "valid"; }

uint32_t element_bytes_for(uint64_t vocab_size) { return vocab_size <= 256 ? 1 : vocab_size <= 65536 ? 2 : 4; }

std::vector<std::byte> ShardHeader::encode() const {
  std::vector<std::byte> bytes(kSize_bytes);
  std::memcpy(bytes.data(), kMagic.data(), kMagic.size());
  put(bytes, kVersionAt, kVersion);
  put(bytes, kElementBytesAt, element_bytes);
  put(bytes, kSplitAt, uint32_t(split));
  put(bytes, kIndexAt, index);
  put(bytes, kVocabSizeAt, vocab_size);
  put(bytes, kTokensAt, n_tokens);
  put(bytes, kDocumentsAt, n_documents);
  put(bytes, kTableCrcAt, table_crc);
  put(bytes, kHeaderCrcAt, crc32c(std::span(bytes).first(kHeaderCrcAt)));
  return bytes;
}

Result<ShardHeader> ShardHeader::parse(std::span<const std::byte> bytes, uint64_t file_bytes, const std::string& name) {
  if (bytes.size() < kSize_bytes) {
    return invalid_input("{}: has {} bytes, a shard of tokens has at least {}", name, bytes.size(), kSize_bytes);
  }
  if (std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) != 0) {
    return invalid_input("{}: is no shard of tokens: it does not begin with {}", name, kMagic);
  }
  if (const auto version = get<uint32_t>(bytes, kVersionAt); version != kVersion) {
    return unsupported("{}: is a shard of version {}, this program reads version {}", name, version, kVersion);
  }
  const auto stored_crc = get<uint32_t>(bytes, kHeaderCrcAt), crc = crc32c(bytes.first(kHeaderCrcAt));
  if (stored_crc != crc) {
    return invalid_input("{}: the header is damaged: its checksum is {:08x}, expected {:08x}", name, crc, stored_crc);
  }
  ShardHeader header;
  header.element_bytes = get<uint32_t>(bytes, kElementBytesAt);
  const auto split = get<uint32_t>(bytes, kSplitAt);
  header.index = get<uint32_t>(bytes, kIndexAt);
  header.vocab_size = get<uint64_t>(bytes, kVocabSizeAt);
  header.n_tokens = get<uint64_t>(bytes, kTokensAt);
  header.n_documents = get<uint64_t>(bytes, kDocumentsAt);
  header.table_crc = get<uint32_t>(bytes, kTableCrcAt);
  if (header.element_bytes != 1 && header.element_bytes != 2 && header.element_bytes != 4) {
    return invalid_input("{}: its elements have {} bytes, expected 1, 2 or 4", name, header.element_bytes);
  }
  if (split > 1) return invalid_input("{}: names the split {}, expected 0 (train) or 1 (valid)", name, split);
  header.split = Split(split);
  if (get<uint64_t>(bytes, kZerosAt) != 0) return invalid_input("{}: reserved bytes of the header are not 0", name);
  if (header.vocab_size == 0 || header.vocab_size > kMaxVocabSize) {
    return invalid_input("{}: the vocabulary has {} tokens, expected 1 to {}", name, header.vocab_size, kMaxVocabSize);
  }
  // No file has more bytes than this, and with it none of the sizes below can wrap.
  if (header.n_tokens > uint64_t{1} << 60) {
    return invalid_input("{}: says that it holds {} tokens", name, header.n_tokens);
  }
  if (header.file_bytes() != file_bytes) {
    return invalid_input("{}: has {} bytes, but {} tokens of {} byte(s) make {}", name, file_bytes, header.n_tokens,
                         header.element_bytes, header.file_bytes());
  }
  return header;
}

Shard::Shard(std::optional<File> file, std::span<const std::byte> in_memory, std::string name)
    : file_(std::move(file)), in_memory_(in_memory), name_(std::move(name)) {}

Result<Shard> Shard::open(const std::string& path) {
  BN_ASSIGN_OR_RETURN(File file, File::open(path));
  Shard shard(std::move(file), {}, path);
  BN_RETURN_IF_ERROR(shard.read_header());
  return shard;
}

Result<Shard> Shard::parse(std::span<const std::byte> bytes, const std::string& name) {
  Shard shard(std::nullopt, bytes, name);
  BN_RETURN_IF_ERROR(shard.read_header());
  return shard;
}

Status Shard::read_bytes(uint64_t offset, std::span<std::byte> out) const {
  if (file_) return file_->read_at(offset, out);
  if (!out.empty()) std::memcpy(out.data(), in_memory_.data() + offset, out.size());
  return ok();
}

Status Shard::read_header() {
  std::array<std::byte, ShardHeader::kSize_bytes> bytes{};
  const auto start = std::span(bytes).first(size_t(std::min<uint64_t>(bytes.size(), file_bytes())));
  BN_RETURN_IF_ERROR(read_bytes(0, start));
  BN_ASSIGN_OR_RETURN(header_, ShardHeader::parse(start, file_bytes(), name_));
  std::vector<std::byte> table(size_t(4 * header_.n_blocks()));
  BN_RETURN_IF_ERROR(read_bytes(header_.table_offset(), table));
  if (const uint32_t crc = crc32c(table); crc != header_.table_crc) {
    return invalid_input("{}: the table of checksums is damaged: its checksum is {:08x}, expected {:08x}", name_, crc,
                         header_.table_crc);
  }
  block_crcs_.resize(size_t(header_.n_blocks()));
  for (size_t i = 0; i < block_crcs_.size(); ++i) block_crcs_[i] = get<uint32_t>(table, 4 * i);
  block_checked_ = std::make_unique<std::atomic<bool>[]>(block_crcs_.size());
  return ok();
}

// Of the data bytes [begin, end). Two threads may check one block at once: no harm but time.
Status Shard::check_blocks(uint64_t begin_byte, uint64_t end_byte) const {
  constexpr uint64_t kBlock = ShardHeader::kBlock_bytes;
  std::vector<std::byte> bytes;
  for (uint64_t block = begin_byte / kBlock; block * kBlock < end_byte; ++block) {
    if (block_checked_[size_t(block)].load(std::memory_order_relaxed)) continue;
    bytes.resize(size_t(std::min(kBlock, header_.data_bytes() - block * kBlock)));
    BN_RETURN_IF_ERROR(read_bytes(ShardHeader::kSize_bytes + block * kBlock, bytes));
    if (const uint32_t crc = crc32c(bytes); crc != block_crcs_[size_t(block)]) {
      return invalid_input("{}: tokens {} to {} are damaged: their checksum is {:08x}, expected {:08x}", name_,
                           block * kBlock / header_.element_bytes,
                           (block * kBlock + bytes.size()) / header_.element_bytes - 1, crc,
                           block_crcs_[size_t(block)]);
    }
    block_checked_[size_t(block)].store(true, std::memory_order_relaxed);
  }
  return ok();
}

Status Shard::read(uint64_t first, std::span<int32_t> out) const {
  if (out.empty()) return ok();
  const uint64_t n = out.size(), width = header_.element_bytes;
  if (first > header_.n_tokens || n > header_.n_tokens - first) {
    return invalid_argument("{}: tokens {} to {} were asked for, it holds {}", name_, first, first + n - 1,
                            header_.n_tokens);
  }
  BN_RETURN_IF_ERROR(check_blocks(first * width, (first + n) * width));
  // The bytes come into the upper end of `out`, so that widening from the front never overtakes them.
  const auto raw = std::as_writable_bytes(out).subspan(out.size_bytes() - size_t(n * width));
  BN_RETURN_IF_ERROR(read_bytes(ShardHeader::kSize_bytes + first * width, raw));
  for (size_t i = 0; i < out.size(); ++i) {
    uint32_t id = 0;
    for (size_t k = 0; k < width; ++k) id |= uint32_t(raw[i * width + k]) << (8 * k);
    if (id >= header_.vocab_size) {
      return invalid_input("{}: token {} is {}, but the vocabulary has {} tokens", name_, first + i, id,
                           header_.vocab_size);
    }
    out[i] = int32_t(id);
  }
  return ok();
}

Result<ShardWriter> ShardWriter::create(const std::string& path, uint64_t vocab_size, Split split, uint32_t index) {
  if (vocab_size == 0 || vocab_size > ShardHeader::kMaxVocabSize) {
    return invalid_argument("{}: a vocabulary of {} tokens, expected 1 to {}", path, vocab_size,
                            ShardHeader::kMaxVocabSize);
  }
  BN_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::create(path));
  ShardWriter writer(std::move(file), path);
  writer.header_.element_bytes = element_bytes_for(vocab_size);
  writer.header_.vocab_size = vocab_size;
  writer.header_.split = split;
  writer.header_.index = index;
  writer.block_.reserve(ShardHeader::kBlock_bytes);
  BN_RETURN_IF_ERROR(writer.file_.write(writer.header_.encode()));
  return writer;
}

Status ShardWriter::write(std::span<const int32_t> ids) {
  for (const int32_t id : ids) {
    if (id < 0 || uint64_t(id) >= header_.vocab_size) {
      return invalid_argument("{}: the id {} is not in the vocabulary of {} tokens", path_, id, header_.vocab_size);
    }
    put_element(block_, id, header_.element_bytes);
    ++header_.n_tokens;
    if (block_.size() == ShardHeader::kBlock_bytes) BN_RETURN_IF_ERROR(write_block());
  }
  return ok();
}

Status ShardWriter::write_block() {
  block_crcs_.push_back(crc32c(block_));
  BN_RETURN_IF_ERROR(file_.write(block_));
  block_.clear();
  return ok();
}

Result<ShardHeader> ShardWriter::finish() {
  if (!block_.empty()) BN_RETURN_IF_ERROR(write_block());
  std::vector<std::byte> table(4 * block_crcs_.size());
  for (size_t i = 0; i < block_crcs_.size(); ++i) put(table, 4 * i, block_crcs_[i]);
  BN_RETURN_IF_ERROR(file_.write(table));
  header_.table_crc = crc32c(table);
  BN_RETURN_IF_ERROR(file_.write_at(0, header_.encode()));
  BN_RETURN_IF_ERROR(file_.commit());
  return header_;
}

}  // namespace bitnet
