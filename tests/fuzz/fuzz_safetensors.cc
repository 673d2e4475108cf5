#include "format/safetensors.h"
#include "tensor_oracle.h"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

using namespace bitnet;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto file = SafetensorsFile::parse(std::as_bytes(std::span(data, size)), "fuzz.safetensors");
  if (!file) {
    fuzz::require(file.error().message.find("fuzz.safetensors: ") == 0);
    return 0;
  }
  fuzz::check_tensors(file->tensors(), size, 1);
  uint64_t end = 0;  // no hole, and nothing behind the last tensor
  std::memcpy(&end, data, sizeof end);
  end += sizeof end;
  for (const StoredTensor& tensor : file->tensors()) {
    fuzz::require(tensor.offset_bytes == end);
    end = tensor.offset_bytes + tensor.size_bytes;
    fuzz::require(file->find(tensor.name) == &tensor);
    const auto bytes = file->read(tensor);
    fuzz::require(bytes.has_value() && bytes->size() == tensor.size_bytes);
    std::byte byte{};
    fuzz::require(!file->read(tensor, tensor.size_bytes, std::span(&byte, 1)).has_value());
  }
  fuzz::require(end == size);
  return 0;
}
