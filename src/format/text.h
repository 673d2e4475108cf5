#pragma once

#include <string>
#include <string_view>

namespace bitnet {

// Well-formed UTF-8: no overlong form, no surrogate, nothing above U+10FFFF.
bool is_utf8(std::string_view text);

// A name from a file as an error message shows it: in double quotes, control characters and bytes that are not UTF-8
// escaped as \xNN, cut to about 80 bytes. A file cannot drive the terminal that prints our errors.
std::string quote_name(std::string_view text);

}  // namespace bitnet
