#!/usr/bin/env python3
"""Compiles and runs the code blocks of a page of documentation.

    check_docs.py extract PAGE.md OUT.cc          the page's ```cpp blocks as one program
    check_docs.py run PAGE.md --source DIR --bitnet PROGRAM [--program PROGRAM]
                                                  runs its ```bash blocks, then that program

Every block runs, in the order of the page, in one temporary folder: with `bitnet` on the path, the shipped models in
models/ and a text in book.txt. A comment in the line before a block changes that:

    <!-- check: skip REASON -->     is neither compiled nor run; the reason is printed
    <!-- check: compile -->         is compiled only (cpp)
    <!-- check: continues -->       goes on in the function of the block before (cpp)

A cpp block with a main() is a whole program, one that defines other functions is compiled only. Others are the body of a function that returns a bitnet::Status, with the
block's #include lines in front, so `return model.error();` is allowed; an error fails the page.
"""
import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

BLOCK_LIMIT_S = 240
# The first line of a function at the left margin: a type, a name, parameters.
FUNCTION = re.compile(r"^(?!else\b)[\w:<>&*, ]+[ &*](?!(?:if|for|while|switch)\b)\w+\([^;]*\) \{$", re.MULTILINE)
BOOK = ("Once upon a time there was a little girl who lived in a small house at the edge of the forest. Every morning "
        "she went to the well, and every evening she sat by the fire and listened to the stories of her grandmother.\n")


class Block:
    def __init__(self, language, line, text, check):
        self.language, self.line, self.text = language, line, text
        self.skip = check[5:].strip() if check.startswith("skip ") else None
        self.compile_only = check == "compile"
        self.continues = check == "continues"
        if check and self.skip is None and not self.compile_only and not self.continues:
            raise SystemExit(f"line {line}: unknown check: {check!r}")


def blocks_of(page):
    blocks, check, open_block = [], "", None
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if open_block is not None:
            if line.strip() == "```":
                language, begin, lines, note = open_block
                blocks.append(Block(language, begin, "\n".join(lines) + "\n", note))
                open_block = None
            else:
                open_block[2].append(line)
        elif line.startswith("```"):
            open_block = (line[3:].strip(), number + 1, [], check)
            check = ""
        else:
            match = re.fullmatch(r"<!-- check: (.*) -->", line.strip())
            check = match[1] if match else check if not line.strip() else ""
    if open_block is not None:
        raise SystemExit(f"{page}:{open_block[1]}: the block does not end")
    return blocks


def extract(page, out):
    includes, definitions, functions, calls, last = [], [], [], [], -1
    for block in (b for b in blocks_of(page) if b.language == "cpp" and b.skip is None):
        lines = block.text.splitlines()
        for i, line in enumerate(lines):
            if line.startswith("#include"):
                includes.append(line)
                lines[i] = ""
        where = f'#line {block.line} "{page}"\n'
        body = "\n".join(lines) + "\n"
        whole = re.search(r"\bint main\s*\(", block.text) is not None
        if whole:
            has_arguments = re.search(r"\bint main\s*\(\s*\)", block.text) is None
            name = f"program_{block.line}"
            end = max(i for i, line in enumerate(lines) if line == "}")  # of main, the last function
            body = "\n".join(lines[:end] + ["return 0; }"] + lines[end + 1:]) + "\n"
            functions.append([f"namespace {name} {{\n#define main page_main\n{where}{body}#undef main\n}}\n"])
            call = f"{name}::page_main({'1, arguments' if has_arguments else ''})"
            statement = f"if (const int code = {call}; code != 0) return code;"
        elif FUNCTION.search(block.text):
            definitions.append(f"namespace block_{block.line} {{\n{where}{body}}}\n")
            continue
        elif block.continues:
            functions[last][1] += where + body
            continue
        else:
            name = f"block_{block.line}"
            functions.append([f"bitnet::Status {name}() {{\n", where + body, "return bitnet::ok();\n}\n"])
            last = len(functions) - 1
            statement = f"if (const auto status = {name}(); !status) return failed({block.line}, status.error());"
        if not block.compile_only:
            calls.append(f"  std::printf(\"line {block.line}\\n\");\n  {statement}\n")
    source = "#include <bitnet/bitnet.h>\n#include <cstdio>\n" + "\n".join(dict.fromkeys(includes)) + "\n"
    source += "".join(definitions) + "namespace {\n" + "".join("".join(parts) for parts in functions)
    source += ("[[maybe_unused]] int failed(int line, const bitnet::Error& error) {\n"
               "  return std::printf(\"line %d: %s\\n\", line, error.message.c_str()), 1;\n}\n}\n")
    source += "int main(int, char** arguments) {\n  (void)arguments;\n" + "".join(calls) + "}\n"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(source, encoding="utf-8")


def run_one(what, command, folder, environment):
    start = time.monotonic()
    try:
        done = subprocess.run(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=BLOCK_LIMIT_S)
        code, output = done.returncode, done.stdout
    except subprocess.TimeoutExpired as expired:
        code, output = f"none after {BLOCK_LIMIT_S} s", expired.stdout or b""
    print(f"{'ok  ' if code == 0 else 'FAIL'}  {what}  {time.monotonic() - start:.1f} s")
    if code != 0:
        print(f"exit code {code}\n{output.decode(errors='replace')[-4000:]}")
    return code == 0


def run(page, source, bitnet, program):
    ok = True
    with tempfile.TemporaryDirectory() as folder:
        os.symlink(source / "models", pathlib.Path(folder) / "models")
        os.symlink(source / "tests", pathlib.Path(folder) / "tests")
        (pathlib.Path(folder) / "book.txt").write_text(BOOK * 40, encoding="utf-8")
        environment = dict(os.environ, HOME=folder, TMPDIR=folder, XDG_STATE_HOME=folder,
                           PATH=f"{bitnet.parent}:{os.environ.get('PATH', '')}")
        for name in ("BITNET_MODELS", "BITNET_CPU_ISA"):
            environment.pop(name, None)
        for block in blocks_of(page):
            if block.skip is not None:
                print(f"skip  {page.name}:{block.line}: {block.skip}")
            elif block.language in ("bash", "sh"):
                script = "set -euo pipefail\n" + block.text
                ok = run_one(f"{page.name}:{block.line}", ["bash", "-c", script], folder, environment) and ok
        if program is not None:
            ok = run_one(f"{page.name}: its C++ blocks", [str(program)], folder, environment) and ok
    return 0 if ok else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("extract")
    command.add_argument("page", type=pathlib.Path)
    command.add_argument("out", type=pathlib.Path)
    command = commands.add_parser("run")
    command.add_argument("page", type=pathlib.Path)
    command.add_argument("--source", type=pathlib.Path, required=True)
    command.add_argument("--bitnet", type=pathlib.Path, required=True)
    command.add_argument("--program", type=pathlib.Path)
    args = parser.parse_args()
    if args.command == "extract":
        return extract(args.page, args.out)
    return run(args.page, args.source.resolve(), args.bitnet.resolve(), args.program and args.program.resolve())


if __name__ == "__main__":
    sys.exit(main())
