#!/usr/bin/env python3
"""What every GPU kernel takes: registers, stack, spills and static shared memory, as the assembler reported them when
BUILD was built with SWITCHBACK_CUDA=ON.

    tools/cuda_resources.py BUILD [--only PART] [--json FILE] [--loops | --update-loops]

Prints a table. Ends with exit code 1 when a .cu file of kernels/ was not compiled there, or when a kernel of a matrix
product (*gemm*, *linear*, conv_first) keeps registers in memory (a spill or a stack frame), and names it.

--json FILE is what tools/bench/gpu_report.py computes occupancy from; --only PART takes files with PART in the name.

--loops also counts the instructions of the hot loops (tools/hot_loops.py), which takes a cuobjdump, and holds them to
kernels/hot_loops.txt: more than 3 % above it is wrong. --update-loops writes that table."""

import argparse
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import hot_loops

ROOT = Path(__file__).resolve().parent.parent
PRODUCTS = re.compile(r"gemm|linear|conv_first")  # files whose kernels must stay in registers

ENTRY = re.compile(r"Compiling entry function '(\w+)' for '(\w+)'")
STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
STATIC = re.compile(r"(\d+) bytes smem")


def parse(report, file):
    """Rows of one compilation's `-Xptxas -v`, which tools/cmake/nvcc_report.sh kept."""
    rows = []
    for line in report.splitlines():
        if found := ENTRY.search(line):
            rows.append(dict(file=file, symbol=found[1], arch=found[2], stack=0, spill_stores=0, spill_loads=0,
                             registers=0, static_shared=0))
        elif rows and (found := STACK.search(line)):
            rows[-1] |= dict(zip(("stack", "spill_stores", "spill_loads"), map(int, found.groups())))
        elif rows and (found := USED.search(line)):
            rows[-1]["registers"] = int(found[1])
            if shared := STATIC.search(line):
                rows[-1]["static_shared"] = int(shared[1])
    return rows


def demangled(symbols):
    """Short readable names: without namespaces and parameters."""
    tool = shutil.which("c++filt") or shutil.which("cu++filt")
    names = symbols
    if tool and symbols:
        names = subprocess.run([tool], input="\n".join(symbols), stdout=subprocess.PIPE, text=True).stdout.splitlines()
    return dict(zip(symbols, map(short, names)))


def short(name):
    name = name.replace("(anonymous namespace)::", "").replace("switchback::cuda::", "").replace("switchback::", "")
    name = re.sub(r"^void ", "", name)
    name = re.sub(r"\((?:int|bool|unsigned int|long)\)", "", name)  # template arguments are written (int)4
    depth = 0
    for i, c in enumerate(name):
        depth += (c == "<") - (c == ">")
        if c == "(" and depth == 0:
            return name[:i]
    return name


def table(rows):
    width = min(max((len(r["kernel"]) for r in rows), default=6), 88)
    lines = [f"{'kernel':<{width}} {'file':<18} {'arch':<7} {'registers':>9} {'stack':>6} {'spills':>7} {'shared':>7}"]
    for r in rows:
        spills = r["spill_stores"] + r["spill_loads"]
        lines.append(f"{r['kernel'][:width]:<{width}} {r['file']:<18} {r['arch']:<7} {r['registers']:>9} "
                     f"{r['stack']:>6} {spills:>7} {r['static_shared']:>7}")
    return "\n".join(lines)


def nvcc_release(build):
    """Of the compiler that BUILD was configured with."""
    cache = (build / "CMakeCache.txt").read_text()
    nvcc = re.search(r"^SWITCHBACK_NVCC:\w+=(.*)$", cache, re.MULTILINE)
    said = subprocess.run([nvcc[1], "--version"], stdout=subprocess.PIPE, text=True).stdout if nvcc else ""
    found = re.search(r"release [\d.]+", said)
    return found[0] if found else "unknown"


def count_loops(args, rows):
    """Prints them; says what is wrong."""
    if not hot_loops.cuobjdump(args.build):
        print("hot loops: not counted, no cuobjdump here (pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm)")
        return []
    release, found = nvcc_release(args.build), hot_loops.counts(args.build, rows)
    lines, wrong = hot_loops.compare(release, found)
    if args.update_loops and all(found.values()):
        hot_loops.write_table(release, found)
        lines, wrong = [*lines[:1 + len(found)], f"{hot_loops.TABLE} written"], []
    print("\n".join(lines))
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=Path, help="a build folder")
    parser.add_argument("--only", default="", help="only files whose name has this in it")
    parser.add_argument("--json", type=Path, help="write the table there")
    parser.add_argument("--loops", action="store_true", help="count and compare the instructions of hot loops")
    parser.add_argument("--update-loops", action="store_true", help="count them and write kernels/hot_loops.txt")
    args = parser.parse_args()
    if args.only and (args.loops or args.update_loops):
        parser.error("hot loops are those of all files: leave out --only")
    if not (args.build / "CMakeCache.txt").exists():
        parser.error(f"{args.build} is no build folder")
    kernels = ROOT / "kernels"
    sources = sorted(p for p in kernels.rglob("*.cu") if args.only in p.name)

    rows, wrong = [], []
    for source in sources:
        report = args.build / "kernels/CMakeFiles/switchback_kernels.dir" / f"{source.relative_to(kernels)}.o.ptxas"
        if report.exists():
            rows += parse(report.read_text(), source.name)
        else:
            wrong.append(f"{source.name} was not compiled in {args.build} (configure it with -DSWITCHBACK_CUDA=ON, build)")
    names = demangled(sorted({r["symbol"] for r in rows}))
    for r in rows:
        r["kernel"] = names[r["symbol"]]
    rows.sort(key=lambda r: (r["file"], r["kernel"], r["arch"]))
    print(table(rows))
    wrong += [f"{r['file']}: {r['kernel']} on {r['arch']} keeps registers in memory: stack frame {r['stack']}, spill "
              f"stores {r['spill_stores']}, spill loads {r['spill_loads']} bytes"
              for r in rows if PRODUCTS.search(r["file"]) and (r["stack"] or r["spill_stores"] or r["spill_loads"])]
    if args.loops or args.update_loops:
        wrong += count_loops(args, rows)
    if args.json:
        args.json.write_text(json.dumps(dict(nvcc=nvcc_release(args.build), kernels=rows), indent=1) + "\n")
    print(f"{len(rows)} kernels of {len(sources)} files, {len(wrong)} wrong")
    for line in wrong:
        print(f"cuda_resources: error: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
