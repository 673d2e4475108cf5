#include "format/gguf.h"
#include "format/gguf_checksums.h"
#include "tensor_oracle.h"

#include <cstddef>
#include <cstdint>
#include <span>

using namespace bitnet;

namespace {

void check_metadata(const GgufMetadata& metadata) {
  for (const auto& [key, value] : metadata.entries()) {
    fuzz::require(!key.empty() && metadata.find(key) == &value);
    // Each getter answers or says why not.
    fuzz::require(metadata.get_uint(key, 0, UINT64_MAX).has_value() || metadata.get_float(key).has_value() ||
                  metadata.get_bool(key).has_value() || metadata.get_string(key).has_value() ||
                  !gguf_type_name(value).empty());
    (void)metadata.get_array<float>(key);
    (void)metadata.get_array<std::string>(key);
  }
}

void check_reads(const GgufFile& file) {
  const auto checksums = GgufChecksums::read(file);
  for (const StoredTensor& tensor : file.tensors()) {
    fuzz::require(file.find(tensor.name) == &tensor);
    const auto data = file.read(tensor);
    fuzz::require(data.has_value() && data->size() == tensor.size_bytes);
    if (checksums) (void)checksums->verify(tensor, *data);
    std::byte byte{};
    fuzz::require(!file.read(tensor, tensor.size_bytes, std::span(&byte, 1)).has_value());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto file = GgufFile::parse(std::as_bytes(std::span(data, size)), "fuzz.gguf");
  if (!file) {
    fuzz::require(file.error().message.find("fuzz.gguf: ") == 0);
    return 0;
  }
  fuzz::require(file->size_bytes() == size && (file->version() == 2 || file->version() == 3));
  fuzz::check_tensors(file->tensors(), size, file->alignment());
  check_metadata(file->metadata());
  check_reads(*file);
  return 0;
}
