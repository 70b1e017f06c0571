#!/usr/bin/env python3
"""Speed and memory of `switchback` beside PyTorch, in one run.

    tools/bench/compare_torch.py [--method smoothgrad|occlusion|etalon|networks|train,…] [--switchback build/switchback]
                                 [--python /usr/bin/python3] [--out FOLDER] [--rounds 4]

Runs alternate (ours, theirs, theirs, ours, …), so that a machine that changes its pace does so for both, and beside
each run a probe measures that pace: a fixed f32 matrix product of PyTorch's. Both have the same number of threads.
PyTorch (the interpreter --python, see torch_peer.py) runs at its best two of layouts times batches, found by a quick
scan; as it is, and with a malloc told to keep its pages. Ratios are taken pair by pair: run i of ours to run i of
theirs.

Memory: peak resident memory less the weights and less what the process holds without a network. Ours: the kernel's peak
of the whole command, less that of `switchback --version`, less the weights as they are loaded (f32); packed copies of
them, the bf16 ones too, count against us. Theirs: VmHWM, set back after the model was loaded (in the run's precision),
less the resident memory at that moment.

The methods' workloads:
"""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import compare_etalon
import compare_networks
import compare_train
import compare_occlusion
import compare_smoothgrad
from compare_core import TUNED, Bench, shown

ROOT = Path(__file__).resolve().parent.parent.parent
METHODS = dict(smoothgrad=compare_smoothgrad, occlusion=compare_occlusion, etalon=compare_etalon,
               networks=compare_networks, train=compare_train)
WORKLOADS = {name: work for module in METHODS.values() for name, work in module.WORKLOADS.items()}
__doc__ += "\n\n".join(f"{name} ({', '.join(module.WORKLOADS)}): {module.__doc__}" for name, module in METHODS.items())


def run(bench, workloads):
    for name in workloads:
        bench.say(f"{name} …")
        try:
            WORKLOADS[name](bench)
        except RuntimeError as why:
            bench.notes.append(f"{name}: {why}")
            bench.say(f"  {why}")


def memory_table(table):
    lines = ["| | beyond the weights | peak of the process |", "|---|---|---|"]
    for name, v in table.items():
        lines += [f"| {name} | {v['beyond_weights'] / 2**20:.0f} MiB | {v['peak'] / 2**20:.0f} MiB |"]
    return lines


def rate_table(bench, workload):
    table = bench.tables[workload]
    mine = [k for k in table if k.startswith("switchback")]
    versus = "".join(f"{k} is … times (pairs) | " for k in mine)
    lines = [f"| {bench.units[workload]} per second | median | min | max | {versus}probe |",
             "|---" * (5 + len(mine)) + "|"]
    for name, row in table.items():
        v = row["values"]
        cells = ["" if name == k else shown(bench.ratio(workload, k, name)) for k in mine]
        lines += [f"| {name} | {statistics.median(v):.3g} | {min(v):.3g} | {max(v):.3g} | "
                  + "".join(f"{c} | " for c in cells) + f"{statistics.median(row['probes']):.0f} |"]
    return lines


def markdown(bench, facts):
    lines = ["# Switchback beside PyTorch", ""]
    lines += [f"- {k}: {v}" for k, v in facts.items()]
    low, middle, high = min(bench.probes), statistics.median(bench.probes), max(bench.probes)
    lines += [f"- calibration probe (1024³ f32 matrix product in PyTorch, beside each run): median {middle:.0f} "
              f"GFLOP/s, {low:.0f} to {high:.0f}"]
    if high > 1.25 * low:
        lines += ["- **the machine's pace changed by more than a quarter during the run: mind ratios, not rates**"]
    if bench.goals:
        lines += ["", "## Goals", "", "Ratios pair by pair: median (least–largest).", "", "| | wanted | measured |",
                  "|---|---|---|"]
        lines += [f"| {goal['what']} | {goal['wanted']} | {shown(goal['measured'])} |" for goal in bench.goals]
    for workload, table in bench.tables.items():
        memory = all("peak" in row for row in table.values())
        lines += ["", f"## {workload}", "", *(memory_table(table) if memory else rate_table(bench, workload))]
    for title, found in (("Notes", bench.notes), ("Remarks", bench.remarks)):
        if found:
            lines += ["", f"{title}:", ""] + [f"- {n}" for n in dict.fromkeys(found)]
    return "\n".join(lines) + "\n"


def machine():
    with open("/proc/cpuinfo") as file:
        text = file.read()
    found = re.search(r"model name\s*:\s*(.*)", text)
    units = [name for flag, name in (("avx512f", "AVX-512"), ("avx512_bf16", "AVX-512 BF16"), ("amx_bf16", "AMX BF16"))
             if re.search(rf"\b{flag}\b", text)]
    return f"{found.group(1) if found else platform.machine()}, {os.cpu_count()} logical processors, " + (
        ", ".join(units) or "no AVX-512")


def facts_of(bench):
    theirs, facts = bench.peer().facts, {"machine": machine(), "threads": bench.args.threads}
    if bench.ours:
        version = subprocess.run([bench.ours.binary, "--version"], capture_output=True, text=True).stdout
        facts["switchback"] = version.strip()
    blas = f"{theirs['blas']}{' (' + ', '.join(theirs['blas_libraries']) + ')' if theirs['blas_libraries'] else ''}"
    facts["PyTorch"] = f"{theirs['torch']}, Python {theirs['python']}, oneDNN {theirs['onednn']}, BLAS {blas}"
    facts["PyTorch's tuned malloc"] = " ".join(f"{k}={v}" for k, v in TUNED.items())
    return facts


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="smoothgrad", help=f"comma-separated, of {', '.join(METHODS)}")
    parser.add_argument("--only", help="comma-separated workloads instead")
    parser.add_argument("--switchback", type=Path, default=ROOT / "build" / "switchback", help="the command")
    parser.add_argument("--peer-only", action="store_true", help="measure PyTorch alone (SmoothGrad's workloads)")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that has PyTorch (default: this one)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=4, help="runs of each side")
    parser.add_argument("--out", type=Path, help="folder for NAME.md and NAME.json")
    parser.add_argument("--name", default="compare_torch", help="of these files (default compare_torch)")
    parser.add_argument("--samples", type=int, default=16, help="SmoothGrad samples a run in f32; thrice that in bf16")
    parser.add_argument("--batch", type=int, default=16, help="of ours in SmoothGrad")
    parser.add_argument("--repeat", type=int, default=6, help="images a run at batch 1")
    parser.add_argument("--models", default="vgg16,vgg19,resnet18,resnet34", help="of occlusion, comma-separated")
    parser.add_argument("--size", type=int, default=224, help="of the image in occlusion and etalon")
    parser.add_argument("--mask", type=int, default=32)
    parser.add_argument("--stride", type=int, default=2)
    parser.add_argument("--positions", default="256", help="that our incremental occlusion times in a run, or all")
    parser.add_argument("--full-positions", type=int, default=32, help="that full recomputation and PyTorch time")
    parser.add_argument("--digits", type=int, default=10000, help="of etalon-digits")
    parser.add_argument("--outputs", type=int, default=32, help="of VGG16 in etalon-vgg16")
    parser.add_argument("--networks", default=",".join(compare_networks.MODELS), help="of networks, comma-separated")
    parser.add_argument("--pass-batches", default="1,8,16,32", help="of the backward passes beside them")
    args = parser.parse_args()
    args.models = args.models.split(",")
    args.networks = args.networks.split(",")
    args.pass_batches = [int(n) for n in args.pass_batches.split(",")]
    for method in args.method.split(","):
        if method not in METHODS:
            parser.error(f"unknown method {method} (of {', '.join(METHODS)})")
    args.workloads = args.only.split(",") if args.only else [
        name for method in args.method.split(",") for name in METHODS[method].WORKLOADS]
    for name in args.workloads:
        if name not in WORKLOADS:
            parser.error(f"unknown workload {name} (of {', '.join(WORKLOADS)})")
        if args.peer_only and name not in compare_smoothgrad.WORKLOADS:
            parser.error(f"{name} needs the command: it writes the weights that both sides run")
    if args.peer_only:
        args.switchback = None
    elif not os.access(args.switchback, os.X_OK):
        parser.error(f"{args.switchback} is not there (build first, name it with --switchback, or use --peer-only)")
    return args


def main():
    args = arguments()
    start, bench = time.time(), Bench(args)
    facts = facts_of(bench)
    run(bench, args.workloads)
    bench.close()
    if not bench.probes:
        bench.probes.append(float("nan"))
    facts["run"] = f"{args.rounds} rounds, {time.strftime('%Y-%m-%d')}, {time.time() - start:.0f} s"
    text = markdown(bench, facts)
    print(text)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        documents = {side: d | {"weights": Path(d["weights"]).name} for side, d in bench.documents.items()}
        document = dict(facts=facts, peer=bench.peers["default"].facts, goals=bench.goals, tables=bench.tables,
                        documents=documents, probes=bench.probes, notes=bench.notes, remarks=bench.remarks)
        (args.out / f"{args.name}.md").write_text(text)
        (args.out / f"{args.name}.json").write_text(json.dumps(document, indent=1) + "\n")
    return 1 if bench.notes else 0


if __name__ == "__main__":
    sys.exit(main())
