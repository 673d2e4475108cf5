#!/usr/bin/env python3
"""Fails if a source file includes a header of a room above its own (docs/architecture.md), or of a room beside it."""
import pathlib
import re
import sys

ROOMS = ["base", "memory", "tensor", "quant", "kernels", "format", "tokenizer", "model", "runtime", "report",
         "train"]  # lowest first
# Rooms that know nothing of each other although one is listed above the other.
FORBIDDEN = {("format", "kernels"), ("tokenizer", "kernels")}


def main(root):
    rank = {room: i for i, room in enumerate(ROOMS)}
    bad = 0
    for path in sorted(root.rglob("*")):
        if path.suffix not in {".h", ".cc", ".cu", ".cuh", ".mm"}:
            continue
        room = path.relative_to(root).parts[0]
        if room not in rank:
            print(f"{path}: the room {room} is not in scripts/check_layers.py")
            bad += 1
            continue
        for number, line in enumerate(path.read_text(errors="ignore").splitlines(), 1):
            match = re.match(r'\s*#\s*include\s+"([^"/]+)/', line)
            if not match or match[1] not in rank or match[1] == room:
                continue
            if rank[match[1]] > rank[room] or (room, match[1]) in FORBIDDEN:
                print(f"{path}:{number}: {room} must not include {match[1]}")
                bad += 1
    return bad != 0


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1])))
