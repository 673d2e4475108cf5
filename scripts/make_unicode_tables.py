#!/usr/bin/env python3
"""Writes src/tokenizer/unicode_tables.cc: the character classes of every code point as runs.

Usage: scripts/make_unicode_tables.py > src/tokenizer/unicode_tables.cc
"""
import sys
import unicodedata

# Values of CharClass in src/tokenizer/unicode.h.
CLASSES = {"L": 1, "M": 2, "N": 3, "P": 4, "S": 5}
SPACE = 6
# Unicode property White_Space (PropList.txt), which is not a general category.
WHITE_SPACE = {*range(0x9, 0xE), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F,
               0x3000}


def char_class(code_point):
    if code_point in WHITE_SPACE:
        return SPACE
    return CLASSES.get(unicodedata.category(chr(code_point))[0], 0)


def main():
    runs, previous = [], None
    for code_point in range(0x110000):
        value = char_class(code_point)
        if value != previous:
            runs.append(code_point << 3 | value)
            previous = value
    print(f"""// Made by scripts/make_unicode_tables.py from Unicode {unicodedata.unidata_version}; not edited by hand.
#include "tokenizer/unicode.h"

namespace bitnet {{

// Start of a run of code points of one class: start << 3 | class. A run ends where the next starts.
// clang-format off
const uint32_t kClassRuns[] = {{""")
    line = "  "
    for run in runs:
        item = f"0x{run:x}, "
        if len(line) + len(item) > 119:
            print(line.rstrip())
            line = "  "
        line += item
    print(line.rstrip())
    print(f"""}};
// clang-format on
const size_t kClassRunCount = {len(runs)};

}}  // namespace bitnet""")


if __name__ == "__main__":
    sys.exit(main())
