#include "base/crc32c.h"
#include "tensor_oracle.h"
#include "train/data/shard.h"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

using namespace bitnet;

// The checksum of its header keeps a fuzzer out, so each input is also tried with that put right.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  const auto check = [](std::span<const std::byte> file) {
    const auto shard = Shard::parse(file, "fuzz.tokens");
    if (!shard) {
      fuzz::require(shard.error().message.find("fuzz.tokens: ") == 0);
      return;
    }
    const ShardHeader& header = shard->header();
    fuzz::require(fuzz::Int128(header.n_tokens) * header.element_bytes <= fuzz::Int128(file.size()));
    fuzz::require(header.file_bytes() == file.size());
    const auto again = ShardHeader::parse(header.encode(), file.size(), "again");
    fuzz::require(again.has_value() && *again == header);
    std::vector<int32_t> ids(size_t(header.n_tokens));
    if (shard->read(0, ids)) {
      for (const int32_t id : ids) fuzz::require(id >= 0 && uint64_t(id) < header.vocab_size);
    }
    int32_t id = 0;
    fuzz::require(!shard->read(header.n_tokens, {&id, 1}).has_value());
    fuzz::require(!shard->read(UINT64_MAX, {&id, 1}).has_value());
  };
  check(bytes);
  if (size < ShardHeader::kSize_bytes) return 0;
  std::vector<std::byte> mended(bytes.begin(), bytes.end());
  const uint32_t crc = crc32c(std::span(mended).first(ShardHeader::kSize_bytes - 4));
  std::memcpy(mended.data() + ShardHeader::kSize_bytes - 4, &crc, 4);
  check(mended);
  return 0;
}
