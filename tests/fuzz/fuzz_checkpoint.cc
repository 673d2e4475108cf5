#include "format/checksum.h"
#include "tensor_oracle.h"
#include "train/checkpoint_file.h"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

using namespace bitnet;

// The checksum at its end keeps a fuzzer out, so each input is also tried with that put right.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto check = [](std::span<const std::byte> file) {
    const auto checkpoint = CheckpointFile::parse(file, "fuzz.safetensors");
    if (!checkpoint) {
      fuzz::require(checkpoint.error().message.find("fuzz.safetensors: ") == 0);
      return;
    }
    fuzz::require(checkpoint->step() >= 0);
    const std::vector<StoredTensor> tensors = checkpoint->tensors();
    fuzz::check_tensors(tensors, file.size() - 8, 1);
    for (const StoredTensor& tensor : tensors) {
      const StoredTensor* found = checkpoint->find(tensor.name);
      fuzz::require(found != nullptr && found->offset_bytes == tensor.offset_bytes);
      std::vector<std::byte> bytes(tensor.size_bytes);
      fuzz::require(checkpoint->read(tensor.name, tensor.dtype, tensor.shape, bytes).has_value());
      bytes.push_back({});
      fuzz::require(!checkpoint->read(tensor.name, tensor.dtype, tensor.shape, bytes).has_value());
    }
    fuzz::require(checkpoint->find("checkpoint.checksum") == nullptr);
  };
  const auto bytes = std::as_bytes(std::span(data, size));
  check(bytes);
  if (size < 8) return 0;
  std::vector<std::byte> mended(bytes.begin(), bytes.end());
  const uint64_t checksum = checksum_of(bytes.first(size - 8));
  std::memcpy(mended.data() + size - 8, &checksum, 8);
  check(mended);
  return 0;
}
