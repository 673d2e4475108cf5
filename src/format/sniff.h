#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace bitnet {

// What the first bytes of a file that is not what we hoped for look like: "an HTML page, ...", or empty.
std::string describe_contents(std::span<const std::byte> first_bytes);

}  // namespace bitnet
