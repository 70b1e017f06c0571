#!/usr/bin/env python3
"""What every GPU kernel takes: registers, stack, spills and static shared memory, as the assembler reports them.

    tools/cuda_resources.py [--arch sm_80,sm_90a] [--only PART] [--json FILE] [--jobs N] [--nvcc PATH]

Compiles every .cu file of kernels/ with the build's flags (machine code only) and prints a table. Ends with exit code 1 when a
file does not compile, or when a kernel of a matrix product (*gemm*, *linear*, conv_first) keeps registers in memory (a
spill or a stack frame), and names it; with 77 (skipped) where there is no nvcc.

--json FILE is what tools/bench/gpu_report.py computes occupancy from; --only PART takes files with PART in the name."""

import argparse
import concurrent.futures
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FLAGS = ["-std=c++20", "-O3", "--expt-relaxed-constexpr", "-lineinfo", "-I.", "-DSWITCHBACK_WITH_CUDA=1"]
PRODUCTS = re.compile(r"gemm|linear|conv_first")  # files whose kernels must stay in registers
SKIPPED = 77

ENTRY = re.compile(r"Compiling entry function '(\w+)' for '(\w+)'")
STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
STATIC = re.compile(r"(\d+) bytes smem")


def find_nvcc(named):
    if named:
        return named
    homes = [os.environ.get(k) for k in ("CUDA_HOME", "CUDA_PATH")] + ["/usr/local/cuda"]
    places = [os.environ.get("CUDACXX"), shutil.which("nvcc")] + [f"{home}/bin/nvcc" for home in homes if home]
    return next((p for p in places if p and os.access(p, os.X_OK)), None)


def parse(report, file):
    """Rows of one compilation's `-Xptxas -v`."""
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


def compile_file(nvcc, source, archs, folder):
    targets = [f"-gencode=arch={arch.replace('sm_', 'compute_')},code={arch}" for arch in archs]
    line = [nvcc, *FLAGS, *targets, "-Xptxas", "-v", "-fatbin", source.relative_to(ROOT), "-o",
            folder / (source.stem + ".fatbin")]
    done = subprocess.run(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return source.name, done.returncode, done.stdout


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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="sm_80,sm_90a", help="comma-separated (default sm_80,sm_90a)")
    parser.add_argument("--only", default="", help="only files whose name has this in it")
    parser.add_argument("--json", type=Path, help="write the table there")
    parser.add_argument("--jobs", type=int, default=2, help="compilers at a time (default 2)")
    parser.add_argument("--nvcc", help="default: on PATH, or of $CUDA_HOME")
    args = parser.parse_args()
    nvcc = find_nvcc(args.nvcc)
    sources = sorted(p for p in (ROOT / "kernels").rglob("*.cu") if args.only in p.name)
    if not nvcc or not sources:
        print("cuda_resources: skipped: " + ("no .cu files" if nvcc else "no nvcc here"))
        return SKIPPED

    rows, wrong = [], []
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        work = [pool.submit(compile_file, nvcc, s, args.arch.split(","), Path(folder)) for s in sources]
        for done in concurrent.futures.as_completed(work):
            file, code, report = done.result()
            print(f"cuda_resources: {file}" + (" FAILED" if code else ""), file=sys.stderr, flush=True)
            if code:
                wrong.append(f"{file} does not compile:\n{report.strip()[-2000:]}")
            rows += parse(report, file)
    names = demangled(sorted({r["symbol"] for r in rows}))
    for r in rows:
        r["kernel"] = names[r["symbol"]]
    rows.sort(key=lambda r: (r["file"], r["kernel"], r["arch"]))
    print(table(rows))
    wrong += [f"{r['file']}: {r['kernel']} on {r['arch']} keeps registers in memory: stack frame {r['stack']}, spill "
              f"stores {r['spill_stores']}, spill loads {r['spill_loads']} bytes"
              for r in rows if PRODUCTS.search(r["file"]) and (r["stack"] or r["spill_stores"] or r["spill_loads"])]
    if args.json:
        release = subprocess.run([nvcc, "--version"], stdout=subprocess.PIPE, text=True).stdout
        found = re.search(r"release [\d.]+", release)
        document = dict(nvcc=found[0] if found else "unknown", flags=FLAGS, kernels=rows)
        args.json.write_text(json.dumps(document, indent=1) + "\n")
    print(f"{len(rows)} kernels of {len(sources)} files, {len(wrong)} wrong")
    for line in wrong:
        print(f"cuda_resources: error: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
