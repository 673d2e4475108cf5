#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace bitnet {

// XXH3-64 (seed 0) of bytes that come in pieces.
class Checksum {
 public:
  Checksum();
  ~Checksum();
  Checksum(Checksum&&) noexcept;
  Checksum& operator=(Checksum&&) noexcept;
  void update(std::span<const std::byte> data);
  uint64_t value() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

uint64_t checksum_of(std::span<const std::byte> data);

}  // namespace bitnet
