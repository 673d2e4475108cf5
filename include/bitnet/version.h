#pragma once

// The one place where the version stands; CMake and `bitnet --version` read it here.
#define BITNET_VERSION "0.1.0"
