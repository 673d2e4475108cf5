#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace bitnet::cli {

// XXH3-64 over the bytes of float32 values in order: two runs with the same hash computed the same bits.
class LogitsHash {
 public:
  LogitsHash();
  ~LogitsHash();
  void add(std::span<const float> values);
  std::string hex() const;  // 16 digits

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace bitnet::cli
