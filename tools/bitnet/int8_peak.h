#pragma once

namespace bitnet::cli {

// Runs 8-bit dot products from registers for about 10 ms with the best instruction of this processor; gives the
// multiplications and additions done. 0 where we know no such instruction.
double int8_peak_ops();

}  // namespace bitnet::cli
