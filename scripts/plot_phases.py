#!/usr/bin/env python3
"""Draws what a token's time goes to, each phase beside its bound: plot_phases.py BENCH.json OUT.svg

BENCH.json comes from `bitnet bench --phases --json`. A phase's bound is the bytes of weights that it reads, at the rate
at which the machine read memory beside that run. Needs gnuplot.
"""
import json
import subprocess
import sys


def main(source, target):
    with open(source) as file:
        report = json.load(file)
    result = next(r for r in report["results"] if r["test"].startswith("tg"))
    limit = next(m for m in report["machine"]["limits"] if m["threads"] == result["threads"])["read_gb_per_s"]
    rows = []
    for phase in result["phases"]:
        bound_us = phase["weight_bytes_per_token"] / limit / 1e3
        rows.append('"{}" {:.1f} {:.1f}'.format(phase["name"], phase["us_per_token"], bound_us))
    title = "{}, {} threads: {:.1f} tokens/s, memory read at {:.1f} GB/s".format(
        result["test"], result["threads"], result["tokens_per_s"], limit)
    commands = """
set terminal svg size 900,420 font "sans,12" background "white"
set output "{target}"
set title "{title}"
set style data histogram
set style histogram clustered gap 1
set style fill solid 0.9 border -1
set ylabel "microseconds a token"
set yrange [0:*]
set grid y
set key top left
set xtics rotate by -30
$phases << EOD
{rows}
EOD
plot $phases using 2:xtic(1) title "measured" linecolor "#3b6ea5", "" using 3 title "bytes / read rate" linecolor "#e0a030"
""".format(target=target, title=title, rows="\n".join(rows))
    subprocess.run(["gnuplot"], input=commands, text=True, check=True)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2])
