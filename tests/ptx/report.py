#!/usr/bin/env python3
"""What became of every kernel when the op tests ran on nvcc's PTX: adds up what the shards left
(SWITCHBACK_PTX_REPORT) and prints a table kernel -> launches and cases. Ends with exit code 1 when a kernel was never
executed, or left other bits than the emulated device, and is not in the list of those that may: unreached.txt and
differs.txt. A line that nothing needs any more fails, too, so that both lists can only become shorter.

    tests/ptx/report.py FILE..."""

import argparse
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


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


def short(name):
    """Without the result, the parameters and the types of template arguments that are numbers: `(int)4`."""
    return re.sub(r"\(\w+\)(?=\d)", "", name).removeprefix("void ").split("(")[0]


class Rules:
    """Lines `PATTERN  reason` of a file: which kernels are excused, and which lines were needed."""

    def __init__(self, name):
        self.name, self.rules, self.used = name, [], set()
        for line in (HERE / name).read_text().splitlines():
            if line.strip() and not line.startswith("#"):
                pattern, reason = re.split(r"\s{2,}", line, maxsplit=1)
                self.rules.append((re.compile(pattern), reason))

    def excuse(self, label):
        found = [i for i, (pattern, _) in enumerate(self.rules) if pattern.search(label)]
        self.used.update(found)
        return bool(found)

    def unneeded(self):
        return [f"{self.name}: `{pattern.pattern}` excuses no kernel any more: take the line out"
                for i, (pattern, _) in enumerate(self.rules) if i not in self.used]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    kernels = read(parser.parse_args().files)
    differs, unreached, wrong = Rules("differs.txt"), Rules("unreached.txt"), []

    print(f"{'kernel':<100} {'launches':>8} {'other bits':>10} {'10^6 instr.':>11}  first case")
    for (source, name), (launches, compared, different, instructions, case, difference) in sorted(kernels.items()):
        label = f"{source.removesuffix('.ptx')}: {short(name)}"
        print(f"{label[:100]:<100} {launches:>8} {different:>10} {instructions / 1e6:>11.1f}  {case}")
        if launches == 0 and not unreached.excuse(label):
            wrong.append(f"{label} was never executed")
        if different and not differs.excuse(label):
            wrong.append(f"{label} left other bits than the emulated device in {different} of {compared} launches, "
                         f"first {difference}")
    wrong += unreached.unneeded() + differs.unneeded()
    executed = sum(row[0] > 0 for row in kernels.values())
    same = sum(row[0] > 0 and row[2] == 0 for row in kernels.values())
    launches, instructions = (sum(row[i] for row in kernels.values()) for i in (0, 3))
    print(f"{executed} of {len(kernels)} kernels were executed from their PTX, {launches} launches, "
          f"{instructions / 1e9:.1f}·10^9 instructions; {same} always left the emulated device's bits")
    for line in wrong:
        print(line, file=sys.stderr)
    if not kernels:
        sys.exit("no kernels: was SWITCHBACK_PTX set?")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
