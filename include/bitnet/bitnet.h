#pragma once

// BitNet-C++: 1.58-bit language models. Include this one header.
#include "bitnet/generate.h"
#include "bitnet/model.h"
#include "bitnet/result.h"
#include "bitnet/session.h"
#include "bitnet/tokenizer.h"
#include "bitnet/version.h"
