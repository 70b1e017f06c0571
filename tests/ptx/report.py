#!/usr/bin/env python3
"""What became of every kernel when the op tests ran on nvcc's PTX: adds up what the shards left
(SWITCHBACK_PTX_REPORT), prints a table kernel -> launches and cases, and ends with exit code 1 when a kernel was never
executed or left other bits than the emulated device without a reason in differs.txt.

    tests/ptx/report.py FILE..."""

import argparse
import re
import sys
from pathlib import Path

REASONS = Path(__file__).resolve().parent / "differs.txt"


def read(files):
    """(file, kernel) -> [launches, compared, different, instructions, first case, first difference]"""
    kernels = {}
    for file in files:
        for line in file.read_text().splitlines():
            source, name, *counts, case, difference = line.split("\t")
            row = kernels.setdefault((source, name), [0, 0, 0, 0, "", ""])
            for i, count in enumerate(counts):
                row[i] += int(count)
            row[4] = row[4] or case
            row[5] = row[5] or difference
    return kernels


def read_reasons():
    """Patterns of kernels that may leave other bits, and why: `PATTERN  reason`."""
    rules = []
    for line in REASONS.read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            pattern, reason = line.split(None, 1)
            rules.append((re.compile(pattern), reason))
    return rules


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    kernels = read(parser.parse_args().files)
    rules, used, wrong = read_reasons(), set(), []

    print(f"{'kernel':<100} {'launches':>8} {'other bits':>10} {'10^6 instr.':>11}  first case")
    for (source, name), (launches, compared, different, instructions, case, difference) in sorted(kernels.items()):
        label = f"{source.removesuffix('.ptx')}: {name.removeprefix('void ').split('(')[0]}"
        print(f"{label[:100]:<100} {launches:>8} {different:>10} {instructions / 1e6:>11.1f}  {case}")
        if launches == 0:
            wrong.append(f"{label} was never executed")
        if different:
            reasons = [reason for pattern, reason in rules if pattern.search(label)]
            used.update(reasons)
            if not reasons:
                wrong.append(f"{label} left other bits than the emulated device in {different} of {compared} launches, first {difference}")
    for pattern, reason in rules:
        if reason not in used:
            wrong.append(f"differs.txt: no kernel of `{pattern.pattern}` differs any more: take the line out")
    executed = sum(row[0] > 0 for row in kernels.values())
    same = sum(row[0] > 0 and row[2] == 0 for row in kernels.values())
    print(f"{executed} of {len(kernels)} kernels were executed from their PTX, {sum(row[0] for row in kernels.values())} launches, "
          f"{sum(row[3] for row in kernels.values()) / 1e9:.1f}·10^9 instructions; {same} always left the emulated device's bits")
    for line in wrong:
        print(line, file=sys.stderr)
    if not kernels:
        sys.exit("no kernels: was SWITCHBACK_PTX set?")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
