#include "format/pickle_reader.h"
#include "format/torch_archive.h"
#include "tensor_oracle.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

using namespace bitnet;

namespace {

// Tensors may share a storage, so they may overlap, but each lies inside of the file.
void check_archive(std::span<const std::byte> bytes) {
  const auto archive = TorchArchive::parse(bytes, "fuzz.pt");
  if (!archive) {
    fuzz::require(archive.error().message.find("fuzz.pt: ") == 0);
    return;
  }
  for (const StoredTensor& tensor : archive->tensors()) {
    fuzz::require(!tensor.name.empty());
    fuzz::require(fuzz::true_bytes(tensor) == fuzz::Int128(tensor.size_bytes));
    fuzz::require(fuzz::Int128(tensor.offset_bytes) + fuzz::Int128(tensor.size_bytes) <= fuzz::Int128(bytes.size()));
    fuzz::require(archive->find(tensor.name) == &tensor);
    std::byte byte{};
    fuzz::require(!archive->read(tensor, tensor.size_bytes, std::span(&byte, 1)).has_value());
  }
}

// Inside of an archive a pickle is hard to reach for a fuzzer; the input is also tried as a pickle alone.
void check_pickle(std::span<const std::byte> bytes) {
  const auto tensors = read_pickled_tensors(bytes, "fuzz.pt");
  if (!tensors) {
    fuzz::require(tensors.error().message.find("fuzz.pt: ") == 0);
    return;
  }
  for (const PickledTensor& tensor : *tensors) {
    fuzz::require(!tensor.name.empty() && tensor.offset_count >= 0 && tensor.storage_count >= 0);
    fuzz::require(tensor.shape.size() == tensor.strides.size());
    for (size_t i = 0; i < tensor.shape.size(); ++i) fuzz::require(tensor.shape[i] >= 0 && tensor.strides[i] >= 0);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  check_archive(bytes);
  check_pickle(bytes);
  return 0;
}
