#include "format/zip_archive.h"

#include "format/text.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <string_view>

namespace bitnet {
namespace {

constexpr uint32_t kLocalMagic = 0x04034b50, kCentralMagic = 0x02014b50, kEndMagic = 0x06054b50;
constexpr uint32_t kEnd64Magic = 0x06064b50, kLocator64Magic = 0x07064b50;
constexpr uint64_t kLocal_bytes = 30, kCentral_bytes = 46, kEnd_bytes = 22, kEnd64_bytes = 56, kLocator64_bytes = 20;
constexpr uint64_t kMaxComment_bytes = 0xffff;
constexpr uint32_t kIn64 = 0xffffffff;  // a field of 32 bits whose value stands in the zip64 record
constexpr uint16_t kExtra64 = 1;
constexpr uint16_t kEncrypted = 1, kStored = 0;

// Limits of ours: a checkpoint has a few hundred entries.
constexpr uint64_t kMaxEntries = 65536;
constexpr uint64_t kMaxDirectory_bytes = uint64_t{16} << 20;
constexpr size_t kMaxName_bytes = 4096;

template <class T>
T number(std::span<const std::byte> bytes, size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

struct Directory {
  uint64_t n_entries = 0, offset_bytes = 0, size_bytes = 0;
  uint64_t end_bytes = 0;  // where the records behind it begin
};

class Reader {
 public:
  Reader(const std::string& name, uint64_t size_bytes, const ReadBytes& read)
      : name_(name), size_bytes_(size_bytes), read_(read) {}

  Result<std::vector<ZipEntry>> run() {
    BN_ASSIGN_OR_RETURN(const Directory directory, find_directory());
    std::vector<std::byte> bytes(static_cast<size_t>(directory.size_bytes));
    BN_RETURN_IF_ERROR(read_(directory.offset_bytes, bytes));
    std::vector<Placed> placed;
    size_t at = 0;
    for (uint64_t i = 0; i < directory.n_entries; ++i) {
      BN_ASSIGN_OR_RETURN(Placed entry, read_central(bytes, at));
      BN_RETURN_IF_ERROR(check_local(entry, directory.offset_bytes));
      placed.push_back(std::move(entry));
    }
    if (at != bytes.size()) {
      return invalid_input("{}: {} bytes of the archive's directory follow its last entry", name_, bytes.size() - at);
    }
    return in_order(std::move(placed));
  }

 private:
  struct Placed {
    ZipEntry entry;
    uint64_t header_bytes = 0;  // where its own header begins
  };

  Error damaged(const std::string& problem) const {
    Error error = invalid_input("{}: {}", name_, problem);
    error.suggestion = "The file is damaged or was not downloaded in full; fetch it again.";
    return error;
  }

  // The record that ends every archive, whose comment must end with the file: what looks like one inside a comment or
  // in data is none.
  Result<Directory> find_directory() const {
    const uint64_t tail_bytes = std::min(size_bytes_, kEnd_bytes + kMaxComment_bytes);
    std::vector<std::byte> tail(static_cast<size_t>(tail_bytes));
    BN_RETURN_IF_ERROR(read_(size_bytes_ - tail_bytes, tail));
    for (uint64_t back = kEnd_bytes; back <= tail_bytes; ++back) {
      const auto record = std::span<const std::byte>(tail).subspan(size_t(tail_bytes - back));
      if (number<uint32_t>(record, 0) != kEndMagic || number<uint16_t>(record, 20) != back - kEnd_bytes) continue;
      return read_end(record, size_bytes_ - back);
    }
    return damaged("the record that ends a zip archive is missing");
  }

  Result<Directory> read_end(std::span<const std::byte> record, uint64_t end_offset) const {
    Directory directory;
    directory.n_entries = number<uint16_t>(record, 10);
    directory.size_bytes = number<uint32_t>(record, 12);
    directory.offset_bytes = number<uint32_t>(record, 16);
    directory.end_bytes = end_offset;
    const bool in_parts = number<uint16_t>(record, 4) != number<uint16_t>(record, 6) ||
                          number<uint16_t>(record, 8) != number<uint16_t>(record, 10);
    if (in_parts) return unsupported("{}: a zip archive in several parts is not supported", name_);
    BN_RETURN_IF_ERROR(read_end64(end_offset, directory));
    if (directory.n_entries > kMaxEntries || directory.size_bytes > kMaxDirectory_bytes) {
      return invalid_input("{}: the archive's directory has {} entries in {} bytes, more than the limits of {} and {}",
                           name_, directory.n_entries, directory.size_bytes, kMaxEntries, kMaxDirectory_bytes);
    }
    if (directory.offset_bytes > directory.end_bytes ||
        directory.size_bytes != directory.end_bytes - directory.offset_bytes) {
      return damaged(fmt::format("the archive's directory of {} bytes at byte {} does not end at byte {}",
                                 directory.size_bytes, directory.offset_bytes, directory.end_bytes));
    }
    return directory;
  }

  // Where a locator stands in front of the end record, another record has the numbers in 64 bits.
  Status read_end64(uint64_t end_offset, Directory& directory) const {
    if (end_offset < kLocator64_bytes) return ok();
    std::vector<std::byte> locator(kLocator64_bytes);
    BN_RETURN_IF_ERROR(read_(end_offset - kLocator64_bytes, locator));
    if (number<uint32_t>(locator, 0) != kLocator64Magic) return ok();
    const uint64_t at = number<uint64_t>(locator, 8), limit = end_offset - kLocator64_bytes;
    if (number<uint32_t>(locator, 4) != 0 || number<uint32_t>(locator, 16) > 1) {
      return unsupported("{}: a zip archive in several parts is not supported", name_);
    }
    if (at > limit || limit - at < kEnd64_bytes) {
      return damaged(fmt::format("the zip64 record should be at byte {}, which leaves no room for it", at));
    }
    std::vector<std::byte> record(kEnd64_bytes);
    BN_RETURN_IF_ERROR(read_(at, record));
    if (number<uint32_t>(record, 0) != kEnd64Magic || number<uint64_t>(record, 4) != limit - at - 12) {
      return damaged(fmt::format("byte {}: there is no zip64 record that reaches to byte {}", at, limit));
    }
    if (number<uint32_t>(record, 16) != 0 || number<uint32_t>(record, 20) != 0 ||
        number<uint64_t>(record, 24) != number<uint64_t>(record, 32)) {
      return unsupported("{}: a zip archive in several parts is not supported", name_);
    }
    directory.n_entries = number<uint64_t>(record, 32);
    directory.size_bytes = number<uint64_t>(record, 40);
    directory.offset_bytes = number<uint64_t>(record, 48);
    directory.end_bytes = at;
    return ok();
  }

  Result<Placed> read_central(std::span<const std::byte> bytes, size_t& at) const {
    if (bytes.size() - at < kCentral_bytes || number<uint32_t>(bytes, at) != kCentralMagic) {
      return damaged(fmt::format("byte {} of the archive's directory: an entry should begin here", at));
    }
    const auto fixed = bytes.subspan(at, kCentral_bytes);
    const size_t n_name = number<uint16_t>(fixed, 28), n_extra = number<uint16_t>(fixed, 30);
    const size_t n_comment = number<uint16_t>(fixed, 32);
    if (bytes.size() - at - kCentral_bytes < n_name + n_extra + n_comment) {
      return damaged(fmt::format("byte {} of the archive's directory: an entry is longer than the directory", at));
    }
    Placed placed;
    ZipEntry& entry = placed.entry;
    entry.name.assign(reinterpret_cast<const char*>(bytes.data()) + at + kCentral_bytes, n_name);
    const auto extra = bytes.subspan(at + kCentral_bytes + n_name, n_extra);
    at += kCentral_bytes + n_name + n_extra + n_comment;
    if (n_name == 0 || n_name > kMaxName_bytes || entry.name.find('\0') != std::string::npos) {
      return invalid_input("{}: an entry's name has {} bytes or a NUL, expected 1 to {} bytes without", name_, n_name,
                           kMaxName_bytes);
    }
    BN_RETURN_IF_ERROR(check_method(entry.name, number<uint16_t>(fixed, 8), number<uint16_t>(fixed, 10)));
    uint64_t packed_bytes = number<uint32_t>(fixed, 20);
    entry.size_bytes = number<uint32_t>(fixed, 24);
    placed.header_bytes = number<uint32_t>(fixed, 42);
    BN_RETURN_IF_ERROR(widen(entry.name, extra, {&entry.size_bytes, &packed_bytes, &placed.header_bytes}));
    if (packed_bytes != entry.size_bytes) {
      return invalid_input("{}: entry {} is stored as it is, but takes {} bytes for {}", name_, quote_name(entry.name),
                           packed_bytes, entry.size_bytes);
    }
    return placed;
  }

  Status check_method(const std::string& entry, uint16_t flags, uint16_t method) const {
    if ((flags & kEncrypted) != 0) {
      return unsupported("{}: entry {} is encrypted, which is not supported", name_, quote_name(entry));
    }
    if (method == kStored) return ok();
    Error error = unsupported("{}: entry {} is compressed (method {}); only stored entries can be read where they lie",
                              name_, quote_name(entry), method);
    error.suggestion = "PyTorch stores without compression: this archive was packed again; use the original file";
    return error;
  }

  // Replaces those numbers that say "see the zip64 field" by what stands there, in the field's order.
  Status widen(const std::string& entry, std::span<const std::byte> extra, std::span<uint64_t* const> numbers) const {
    std::span<const std::byte> wide;
    while (extra.size() >= 4) {
      const size_t size = number<uint16_t>(extra, 2);
      if (size > extra.size() - 4) break;
      if (number<uint16_t>(extra, 0) == kExtra64) wide = extra.subspan(4, size);
      extra = extra.subspan(4 + size);
    }
    for (uint64_t* value : numbers) {
      if (*value != kIn64) continue;
      if (wide.size() < 8) {
        return invalid_input("{}: entry {} lacks the zip64 field that has its size or place", name_, quote_name(entry));
      }
      *value = number<uint64_t>(wide, 0);
      wide = wide.subspan(8);
    }
    return ok();
  }
  Status widen(const std::string& entry, std::span<const std::byte> extra,
               std::initializer_list<uint64_t*> numbers) const {
    return widen(entry, extra, std::span<uint64_t* const>(numbers.begin(), numbers.size()));
  }

  // The header in front of an entry's data says how far off they are, and must be of the same entry.
  Status check_local(Placed& placed, uint64_t directory_offset) const {
    ZipEntry& entry = placed.entry;
    const uint64_t header_bytes = kLocal_bytes + entry.name.size();
    const auto outside = [&] {
      return damaged(fmt::format("entry {} of {} bytes at byte {} does not lie in front of the directory at byte {}",
                                 quote_name(entry.name), entry.size_bytes, placed.header_bytes, directory_offset));
    };
    if (placed.header_bytes > directory_offset || header_bytes > directory_offset - placed.header_bytes) {
      return outside();
    }
    std::vector<std::byte> header(static_cast<size_t>(header_bytes));
    BN_RETURN_IF_ERROR(read_(placed.header_bytes, header));
    const std::string_view name(reinterpret_cast<const char*>(header.data()) + kLocal_bytes, entry.name.size());
    if (number<uint32_t>(header, 0) != kLocalMagic || number<uint16_t>(header, 26) != entry.name.size() ||
        name != entry.name) {
      return damaged(
          fmt::format("byte {}: the header of entry {} is not there", placed.header_bytes, quote_name(entry.name)));
    }
    BN_RETURN_IF_ERROR(check_method(entry.name, number<uint16_t>(header, 6), number<uint16_t>(header, 8)));
    entry.offset_bytes = placed.header_bytes + header_bytes + number<uint16_t>(header, 28);
    if (entry.offset_bytes > directory_offset || entry.size_bytes > directory_offset - entry.offset_bytes) {
      return outside();
    }
    return ok();
  }

  Result<std::vector<ZipEntry>> in_order(std::vector<Placed> placed) const {
    std::sort(placed.begin(), placed.end(),
              [](const Placed& a, const Placed& b) { return a.entry.name < b.entry.name; });
    for (size_t i = 1; i < placed.size(); ++i) {
      if (placed[i - 1].entry.name != placed[i].entry.name) continue;
      return invalid_input("{}: the entry {} is there twice", name_, quote_name(placed[i].entry.name));
    }
    std::sort(placed.begin(), placed.end(),
              [](const Placed& a, const Placed& b) { return a.header_bytes < b.header_bytes; });
    std::vector<ZipEntry> entries;
    uint64_t end = 0;
    for (Placed& next : placed) {
      if (next.header_bytes < end) {
        return invalid_input("{}: the entries {} and {} overlap at byte {}", name_, quote_name(entries.back().name),
                             quote_name(next.entry.name), next.header_bytes);
      }
      end = next.entry.offset_bytes + next.entry.size_bytes;
      entries.push_back(std::move(next.entry));
    }
    return entries;
  }

  const std::string& name_;
  const uint64_t size_bytes_;
  const ReadBytes& read_;
};

}  // namespace

Result<std::vector<ZipEntry>> read_zip_directory(const std::string& name, uint64_t size_bytes, const ReadBytes& read) {
  return Reader(name, size_bytes, read).run();
}

}  // namespace bitnet
