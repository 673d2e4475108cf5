#include "format/torch_archive.h"

#include "format/pickle_reader.h"
#include "format/sniff.h"
#include "format/text.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <new>
#include <utility>

namespace bitnet {
namespace {

constexpr std::string_view kZipMagic = "PK\x03\x04";
constexpr std::string_view kPickle = "/data.pkl";
constexpr uint64_t kSniffed_bytes = 64;

// The archive's entries without the folder in front of their names, which is the name it was saved under.
using Entries = std::map<std::string_view, const ZipEntry*>;

Result<Entries> inner_entries(const std::vector<ZipEntry>& entries, const std::string& name) {
  const ZipEntry* pickle = nullptr;
  for (const ZipEntry& entry : entries) {
    if (!entry.name.ends_with(kPickle) || entry.name.find('/') != entry.name.size() - kPickle.size()) continue;
    if (pickle != nullptr) {
      return invalid_input("{}: both {} and {} could be the archive's pickle", name, quote_name(pickle->name),
                           quote_name(entry.name));
    }
    pickle = &entry;
  }
  if (pickle == nullptr) {
    return invalid_input("{}: the zip archive has no entry FOLDER/data.pkl, so that PyTorch did not write it", name);
  }
  const std::string_view folder = std::string_view(pickle->name).substr(0, pickle->name.size() - kPickle.size() + 1);
  Entries inner;
  for (const ZipEntry& entry : entries) {
    if (entry.name.starts_with(folder)) inner.emplace(std::string_view(entry.name).substr(folder.size()), &entry);
  }
  return inner;
}

Result<std::string> read_entry(const ZipEntry& entry, uint64_t limit_bytes, const std::string& name,
                               const ReadBytes& read) {
  if (entry.size_bytes > limit_bytes) {
    return invalid_input("{}: entry {} has {} bytes, more than the limit of {}", name, quote_name(entry.name),
                         entry.size_bytes, limit_bytes);
  }
  std::string bytes(size_t(entry.size_bytes), '\0');
  BN_RETURN_IF_ERROR(read(entry.offset_bytes, std::as_writable_bytes(std::span(bytes))));
  return bytes;
}

Status check_byte_order(const Entries& entries, const std::string& name, const ReadBytes& read) {
  const auto found = entries.find("byteorder");
  if (found == entries.end()) return ok();
  BN_ASSIGN_OR_RETURN(const std::string order, read_entry(*found->second, 64, name, read));
  if (order == "little") return ok();
  return unsupported("{}: its byte order is {}, expected \"little\"", name, quote_name(order));
}

// Rows follow each other without gaps. The stride of a dimension of one value is never used.
bool is_contiguous(const PickledTensor& tensor, uint64_t count) {
  if (count == 0) return true;
  int64_t step = 1;
  for (size_t i = tensor.shape.size(); i-- > 0;) {
    if (tensor.shape[i] != 1 && tensor.strides[i] != step) return false;
    step *= tensor.shape[i];
  }
  return true;
}

Result<StoredTensor> place(const PickledTensor& pickled, const Entries& entries, const std::string& name) {
  const auto refused = [&](const std::string& problem) {
    return invalid_input("{}: tensor {} {}", name, quote_name(pickled.name), problem);
  };
  StoredTensor tensor;
  tensor.name = pickled.name;
  tensor.dtype = pickled.dtype;
  tensor.shape = pickled.shape;
  const auto size_bytes = tensor_bytes(tensor.dtype, tensor.shape);
  if (!size_bytes) return refused(size_bytes.error().message);
  tensor.size_bytes = *size_bytes;
  const auto value_bytes = uint64_t(dtype_info(tensor.dtype).block_bytes);
  const uint64_t count = *size_bytes / value_bytes;

  const auto entry = entries.find("data/" + pickled.storage);
  if (entry == entries.end()) {
    return refused(fmt::format("has the storage {}, which the archive does not hold", quote_name(pickled.storage)));
  }
  const ZipEntry& storage = *entry->second;
  const auto storage_count = uint64_t(pickled.storage_count);
  if (storage.size_bytes % value_bytes != 0 || storage.size_bytes / value_bytes != storage_count) {
    return refused(fmt::format("has a storage of {} values of {}, but its entry {} has {} bytes", storage_count,
                               dtype_info(tensor.dtype).name, quote_name(storage.name), storage.size_bytes));
  }
  const auto offset = uint64_t(pickled.offset_count);
  if (offset > storage_count || count > storage_count - offset) {
    return refused(fmt::format("{} from value {} on does not lie in its storage of {} values",
                               shape_string(tensor.shape), offset, storage_count));
  }
  if (!is_contiguous(pickled, count)) {
    Error error = unsupported("{}: tensor {} {} has the strides {}: only contiguous tensors can be read", name,
                              quote_name(pickled.name), shape_string(tensor.shape), shape_string(pickled.strides));
    error.suggestion = "save it after .contiguous()";
    return error;
  }
  tensor.offset_bytes = storage.offset_bytes + offset * value_bytes;
  return tensor;
}

}  // namespace

Result<TorchArchive> TorchArchive::parse_archive(const std::string& name, uint64_t size_bytes,
                                                 const ReadBytes& read) try {
  std::vector<std::byte> first(static_cast<size_t>(std::min(size_bytes, kSniffed_bytes)));
  BN_RETURN_IF_ERROR(read(0, first));
  if (first.size() < kZipMagic.size() || std::memcmp(first.data(), kZipMagic.data(), kZipMagic.size()) != 0) {
    const std::string contents = describe_contents(first);
    return invalid_input("{}: is no zip archive as torch.save writes them{}{}", name,
                         contents.empty() ? "" : "; it looks like ", contents);
  }
  BN_ASSIGN_OR_RETURN(const std::vector<ZipEntry> zip, read_zip_directory(name, size_bytes, read));
  BN_ASSIGN_OR_RETURN(const Entries entries, inner_entries(zip, name));
  BN_RETURN_IF_ERROR(check_byte_order(entries, name, read));
  BN_ASSIGN_OR_RETURN(const std::string pickle, read_entry(*entries.at("data.pkl"), kMaxPickle_bytes, name, read));
  BN_ASSIGN_OR_RETURN(const std::vector<PickledTensor> pickled,
                      read_pickled_tensors(std::as_bytes(std::span(pickle)), name));
  TorchArchive archive;
  archive.name_ = name;
  archive.size_bytes_ = size_bytes;
  for (const PickledTensor& tensor : pickled) {
    BN_ASSIGN_OR_RETURN(StoredTensor placed, place(tensor, entries, name));
    archive.tensors_.push_back(std::move(placed));
  }
  if (const auto duplicate = archive.index_.build(archive.tensors_)) {
    return invalid_input("{}: the tensor {} appears twice", name, quote_name(archive.tensors_[*duplicate].name));
  }
  return archive;
} catch (const std::bad_alloc&) {
  return make_error(ErrorCode::kResource, "{}: not enough memory for its directory", name);
}

Result<TorchArchive> TorchArchive::open(const std::string& path) {
  BN_ASSIGN_OR_RETURN(File opened, File::open(path));
  auto shared = std::make_shared<const File>(std::move(opened));
  const ReadBytes read = [&](uint64_t offset, std::span<std::byte> out) { return shared->read_at(offset, out); };
  BN_ASSIGN_OR_RETURN(TorchArchive archive, parse_archive(path, shared->size_bytes(), read));
  archive.file_ = std::move(shared);
  return archive;
}

Result<TorchArchive> TorchArchive::parse(std::span<const std::byte> bytes, const std::string& name) {
  const ReadBytes read = [&](uint64_t offset, std::span<std::byte> out) -> Status {
    if (!out.empty()) std::memcpy(out.data(), bytes.data() + offset, out.size());
    return ok();
  };
  BN_ASSIGN_OR_RETURN(TorchArchive archive, parse_archive(name, bytes.size(), read));
  archive.in_memory_ = bytes;
  return archive;
}

Status TorchArchive::read(const StoredTensor& tensor, uint64_t offset_bytes, std::span<std::byte> out) const {
  BN_RETURN_IF_ERROR(check_tensor_range(tensor, offset_bytes, out.size(), size_bytes_, name_));
  const uint64_t begin = tensor.offset_bytes + offset_bytes;
  if (file_ != nullptr) return file_->read_at(begin, out);
  if (!out.empty()) std::memcpy(out.data(), in_memory_.data() + begin, out.size());
  return ok();
}

bool is_zip_archive(const std::string& path) {
  const auto file = File::open(path);
  std::byte first[kZipMagic.size()];
  if (!file || file->size_bytes() < sizeof first || !file->read_at(0, first)) return false;
  return std::memcmp(first, kZipMagic.data(), sizeof first) == 0;
}

}  // namespace bitnet
