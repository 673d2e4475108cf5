#pragma once

#include <string>
#include <vector>

namespace bitnet {

// "metadata key "x" is unknown and was ignored" for the first few names, and one notice for all others: a file can hold
// any number of them.
void note_unknown(const std::string& kind, const std::vector<std::string>& names, std::vector<std::string>& notices);

}  // namespace bitnet
