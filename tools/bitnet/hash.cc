#include "hash.h"

#include <fmt/format.h>
#include <xxhash.h>

namespace bitnet::cli {

struct LogitsHash::State {
  XXH3_state_t xxh3;
};

LogitsHash::LogitsHash() : state_(std::make_unique<State>()) { XXH3_64bits_reset(&state_->xxh3); }
LogitsHash::~LogitsHash() = default;
void LogitsHash::add(std::span<const float> values) {
  XXH3_64bits_update(&state_->xxh3, values.data(), values.size_bytes());
}
std::string LogitsHash::hex() const { return fmt::format("{:016x}", XXH3_64bits_digest(&state_->xxh3)); }

}  // namespace bitnet::cli
