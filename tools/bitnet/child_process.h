#pragma once

#include "base/result.h"

#include <string>
#include <vector>

namespace bitnet::cli {

// Runs a program with our environment and no input and gives what it wrote to its standard output, which must not
// exceed 64 MB. An error names the program when it cannot be started, ends with another code than 0, or when Ctrl-C
// stopped us: the child is then ended, too.
Result<std::string> output_of(const std::vector<std::string>& command);

}  // namespace bitnet::cli
