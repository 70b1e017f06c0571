#!/usr/bin/env python3
"""Speed and memory of `switchback` beside PyTorch, in one run.

    tools/bench/compare_torch.py [--switchback build/switchback] [--python /usr/bin/python3] [--out FOLDER] [--rounds 4]

Runs alternate (ours, theirs, theirs, ours, …), so that a machine that changes its pace does so for both, and beside
each run a probe measures that pace: a fixed f32 matrix product of PyTorch's. Both have the same number of threads.
PyTorch (the interpreter --python, see torch_peer.py) runs at its best two of contiguous and channels_last times batches
1, 4, 8, 16, found by a quick scan; as it is, and with a malloc told to keep its pages. Ratios are taken pair by pair:
run i of ours to run i of theirs.

Workloads: SmoothGrad on VGG19 at 224x224 in f32 and bf16; forward and backward of one image at batch 1; all ten rows of
LeNet's Jacobian for one image; peak memory of SmoothGrad on VGG19 at batch 16.

Memory: peak resident memory less the weights and less what the process holds without a network. Ours: the kernel's peak
of the whole command, less that of `switchback --version`, less the weights as they are loaded (f32, 574,668,960 bytes);
packed copies of them, the bf16 ones too, count against us. Theirs: VmHWM, set back after the model was loaded (in the
run's precision), less the resident memory at that moment."""

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

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BATCHES, LAYOUTS = (1, 4, 8, 16), ("contiguous", "channels_last")
WEIGHTS = 143_667_240 * 4  # VGG19's parameters, bytes
WORKLOADS = ("smoothgrad-fp32", "smoothgrad-bf16", "batch1-fp32", "batch1-bf16", "jacobian", "memory")
# glibc: nothing by mmap, nothing given back, the heap grown by 64 MiB at a time, one arena.
TUNED = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_TOP_PAD_": str(64 << 20),
         "MALLOC_ARENA_MAX": "1"}


class Peer:
    """torch_peer.py in a process of its own."""

    def __init__(self, python, threads, malloc="default"):
        env = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
        env |= TUNED if malloc == "tuned" else {}
        env |= {k: str(threads) for k in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
        self.process = subprocess.Popen([python, str(HERE / "torch_peer.py")], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, env=env)
        self.facts = self.ask("hello", threads=threads)

    def ask(self, do, **request):
        try:
            self.process.stdin.write(json.dumps(dict(do=do, **request)) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            code = self.process.wait()
            sys.exit(f"compare_torch: error: PyTorch's process ended during '{do}' with exit code {code} (has its Python "
                     "torch? is there memory?)")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"PyTorch, {do}: {answer['error']}")
        return answer

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Ours:
    """`switchback bench`: one process a run; only the measured part inside counts, not loading."""

    def __init__(self, binary, threads):
        self.binary, self.threads = str(Path(binary).resolve()), threads

    def command(self, *options):
        """(JSON document, peak resident bytes of the process)."""
        line = [self.binary, "bench", "--json", "--threads", str(self.threads), *map(str, options)]
        process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        out, err = process.stdout.read(), process.stderr.read()
        _, code, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(code)
        if process.returncode != 0:
            raise RuntimeError(f"{' '.join(line)}: exit code {process.returncode}: {err.strip()[-200:]}")
        return json.loads(out), usage.ru_maxrss * 1024

    def rate(self, *options):
        """items per second, the median of the repeats."""
        return find(self.command(*options)[0], "items_per_second")

    def idle(self):
        process = subprocess.Popen([self.binary, "--version"], stdout=subprocess.DEVNULL)
        return os.wait4(process.pid, 0)[2].ru_maxrss * 1024


def find(document, key):
    """The one number of that name anywhere in a JSON document, or the median of a list or of {median: …}."""
    found = []

    def walk(node):
        if isinstance(node, dict):
            for k, v in node.items():
                if k == key:
                    v = v.get("median") if isinstance(v, dict) else v
                    found.append(statistics.median(v) if isinstance(v, list) else v)
                else:
                    walk(v)
        elif isinstance(node, list):
            for v in node:
                walk(v)

    walk(document)
    if len(found) != 1 or not isinstance(found[0], (int, float)):
        raise RuntimeError(f"bench --json: {len(found)} times '{key}' in {json.dumps(document)[:300]}")
    return float(found[0])


class Bench:
    def __init__(self, args):
        self.args, self.ours = args, Ours(args.switchback, args.threads) if args.switchback else None
        self.peers, self.tables, self.probes, self.notes, self.start = {}, {}, [], [], time.time()

    def peer(self, malloc="default"):
        if malloc not in self.peers:
            self.peers[malloc] = Peer(self.args.python, self.args.threads, malloc)
        return self.peers[malloc]

    def say(self, text):
        print(f"{time.time() - self.start:4.0f} s  {text}", file=sys.stderr, flush=True)

    def probe(self):
        time.sleep(0.1)  # threads of the last run stop spinning
        gflops = self.peer().ask("probe")["gflops"]
        time.sleep(0.3)
        self.probes.append(gflops)
        return gflops

    def rounds(self, workload, sides):
        """sides: name -> function that makes one run and returns items per second. Alternating; keeps every number."""
        table = {name: dict(values=[], probes=[]) for name in sides}
        for round_index in range(self.args.rounds):
            order = list(sides) if round_index % 2 == 0 else list(reversed(sides))  # ABBA: a drift meets both alike
            for name in order:
                try:
                    table[name]["probes"].append(self.probe())
                    table[name]["values"].append(sides[name]())
                except RuntimeError as why:
                    self.notes.append(f"{workload}: {why}")
                    table[name]["values"].append(None)
                    self.say(f"  {name}: {why}")
                else:
                    self.say(f"  {workload} round {round_index + 1} {name}: {table[name]['values'][-1]:.3f} /s")
        self.tables[workload] = {k: v for k, v in table.items() if all(x is not None for x in v["values"])}

    def scan(self, precision):
        """Each malloc's two best (layout, batch), by one quick run each."""
        best = {}
        for malloc in ("default", "tuned"):
            rates = {}
            for layout in LAYOUTS:
                for batch in BATCHES:
                    answer = self.peer(malloc).ask("smoothgrad", precision=precision, layout=layout, batch=batch,
                                                   samples=max(batch, 2), warm=1)
                    rates[layout, batch] = answer["per_second"]
            best[malloc] = sorted(rates, key=rates.get)[-2:]
            self.say(f"  scan {precision} {malloc}: " + ", ".join(f"{k[0]}/{k[1]} {v:.2f}/s" for k, v in rates.items()))
        return best

    def smoothgrad(self, precision):
        samples = self.args.samples * (3 if precision == "bf16" else 1)
        sides = {}
        if self.ours:
            for conv in ("auto", "direct") if precision == "fp32" else ("auto",):
                sides[f"switchback {conv}"] = lambda conv=conv: self.ours.rate(
                    "--method", "smoothgrad", "--model", "vgg19", "--weights", "random:0", "--precision", precision,
                    "--conv", conv, "--batch", self.args.batch, "--samples", samples, "--repeat", 1)
        for malloc, best in self.scan(precision).items():
            for layout, batch in best:
                request = dict(precision=precision, layout=layout, batch=batch, samples=samples)
                sides[f"PyTorch {malloc} ({layout}, batch {batch})"] = lambda malloc=malloc, request=request: self.peer(
                    malloc).ask("smoothgrad", **request)["per_second"]
        self.rounds(f"smoothgrad-{precision}", sides)

    def batch1(self, precision):
        sides, repeat = {}, self.args.repeat
        if self.ours:
            for conv in ("auto", "direct") if precision == "fp32" else ("auto",):
                sides[f"switchback {conv}"] = lambda conv=conv: self.ours.rate(
                    "--method", "gradient", "--model", "vgg19", "--weights", "random:0", "--precision", precision,
                    "--conv", conv, "--batch", 1, "--repeat", repeat)
        for malloc in ("default", "tuned"):
            for layout in LAYOUTS:
                sides[f"PyTorch {malloc} ({layout})"] = lambda malloc=malloc, layout=layout: self.peer(malloc).ask(
                    "gradient", precision=precision, layout=layout, repeat=repeat)["per_second"]
        self.rounds(f"batch1-{precision}", sides)

    def jacobian(self):
        # Every way of PyTorch's in every round; the best way is chosen by its median over the rounds.
        sides, ways = {}, {}
        if self.ours:
            sides["switchback"] = lambda: self.ours.rate("--method", "jacobian", "--model", "lenet", "--weights",
                                                         "random:0", "--batch", 1, "--repeat", 200)

        def theirs():
            answer = self.peer().ask("jacobian", repeat=100, seconds=0.4)["ways"]
            for name, way in answer.items():
                if "ms" in way:
                    ways.setdefault(name, []).append(1e3 / way["ms"])
                elif (note := f"jacobian: PyTorch's {name}: {way['error']}") not in self.notes:
                    self.notes.append(note)
            return max(1e3 / way["ms"] for way in answer.values() if "ms" in way)

        sides["PyTorch, best way"] = theirs
        self.rounds("jacobian", sides)
        probes = self.tables["jacobian"].get("PyTorch, best way", {}).get("probes", [])
        self.tables["jacobian"] |= {f"PyTorch, {name}": dict(values=v, probes=probes) for name, v in ways.items()}

    def memory(self):
        table = {}
        for precision in ("fp32", "bf16"):
            if self.ours:
                try:
                    _, peak = self.ours.command("--method", "smoothgrad", "--model", "vgg19", "--weights", "random:0",
                                                "--precision", precision, "--batch", 16, "--samples", 16, "--repeat", 1)
                    beyond = peak - WEIGHTS - self.ours.idle()
                    table[f"switchback, {precision}"] = dict(peak=peak, beyond_weights=beyond)
                except RuntimeError as why:
                    self.notes.append(f"memory: {why}")
            for layout in LAYOUTS:
                peer = Peer(self.args.python, self.args.threads)
                try:
                    answer = peer.ask("memory", precision=precision, layout=layout, batch=16, samples=16)
                    table[f"PyTorch, {precision}, {layout}"] = dict(peak=answer["bytes"] + answer["held_before"],
                                                                    beyond_weights=answer["bytes"])
                except RuntimeError as why:
                    self.notes.append(f"memory: {why}")
                peer.close()
        self.tables["memory"] = table

    def run(self, workloads):
        for name in workloads:
            self.say(f"{name} …")
            what, _, precision = name.partition("-")
            try:
                getattr(self, what)(*([precision] if precision else []))
            except RuntimeError as why:
                self.notes.append(f"{name}: {why}")
                self.say(f"  {why}")


def ratios(table, ours, theirs):
    pairs = [a / b for a, b in zip(table[ours]["values"], table[theirs]["values"])]
    return f"{statistics.median(pairs):.2f} ({min(pairs):.2f}–{max(pairs):.2f})"


def markdown(bench, facts):
    lines = ["# Switchback beside PyTorch", ""]
    lines += [f"- {k}: {v}" for k, v in facts.items()]
    low, middle, high = min(bench.probes), statistics.median(bench.probes), max(bench.probes)
    lines += [f"- calibration probe (1024³ f32 matrix product in PyTorch, beside each run): median {middle:.0f} "
              f"GFLOP/s, {low:.0f} to {high:.0f}"]
    if high > 1.25 * low:
        lines += ["- **the machine's pace changed by more than a quarter during the run: mind ratios, not rates**"]
    for workload, table in bench.tables.items():
        lines += ["", f"## {workload}", ""]
        if workload == "memory":
            lines += ["| | beyond the weights | peak of the process |", "|---|---|---|"]
            for name, v in table.items():
                lines += [f"| {name} | {v['beyond_weights'] / 2**20:.0f} MiB | {v['peak'] / 2**20:.0f} MiB |"]
            continue
        mine = [k for k in table if k.startswith("switchback")]
        unit = "Jacobians" if workload == "jacobian" else "images"
        versus = "".join(f"{k} is … times (pairs) | " for k in mine)
        lines += [f"| {unit} per second | median | min | max | {versus}probe |",
                  "|---" * (5 + len(mine)) + "|"]
        for name, row in table.items():
            v = row["values"]
            cells = ["" if name.startswith("switchback") else ratios(table, k, name) for k in mine]
            lines += [f"| {name} | {statistics.median(v):.3g} | {min(v):.3g} | {max(v):.3g} | "
                      + "".join(f"{c} | " for c in cells) + f"{statistics.median(row['probes']):.0f} |"]
    if bench.notes:
        lines += ["", "Notes:", ""] + [f"- {n}" for n in dict.fromkeys(bench.notes)]
    return "\n".join(lines) + "\n"


def machine():
    with open("/proc/cpuinfo") as file:
        found = re.search(r"model name\s*:\s*(.*)", file.read())
    return f"{found.group(1) if found else platform.machine()}, {os.cpu_count()} logical processors"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--switchback", type=Path, default=ROOT / "build" / "switchback", help="the command")
    parser.add_argument("--peer-only", action="store_true", help="measure PyTorch alone")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that has PyTorch (default: this one)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=4, help="runs of each side")
    parser.add_argument("--samples", type=int, default=16, help="SmoothGrad samples a run in f32; thrice that in bf16")
    parser.add_argument("--batch", type=int, default=16, help="of ours in SmoothGrad")
    parser.add_argument("--repeat", type=int, default=6, help="images a run at batch 1")
    parser.add_argument("--only", default=",".join(WORKLOADS), help="comma-separated workloads")
    parser.add_argument("--out", type=Path, help="folder for compare_torch.md and compare_torch.json")
    args = parser.parse_args()
    if unknown := [w for w in args.only.split(",") if w not in WORKLOADS]:
        parser.error(f"unknown workload {unknown[0]} (of {', '.join(WORKLOADS)})")
    if args.peer_only:
        args.switchback = None
    elif not os.access(args.switchback, os.X_OK):
        parser.error(f"{args.switchback} is not there (build first, name it with --switchback, or use --peer-only)")

    start, bench = time.time(), Bench(args)
    theirs = bench.peer().facts
    facts = {"machine": machine(), "threads": args.threads}
    if bench.ours:
        version = subprocess.run([bench.ours.binary, "--version"], capture_output=True, text=True).stdout
        facts["switchback"] = version.strip()
    blas = f"{theirs['blas']}{' (' + ', '.join(theirs['blas_libraries']) + ')' if theirs['blas_libraries'] else ''}"
    facts["PyTorch"] = f"{theirs['torch']}, Python {theirs['python']}, oneDNN {theirs['onednn']}, BLAS {blas}"
    facts["PyTorch's tuned malloc"] = " ".join(f"{k}={v}" for k, v in TUNED.items())
    bench.run(args.only.split(","))
    for peer in bench.peers.values():
        peer.close()
    if not bench.probes:
        bench.probes.append(float("nan"))
    facts["run"] = f"{args.rounds} rounds, {time.strftime('%Y-%m-%d')}, {time.time() - start:.0f} s"
    text = markdown(bench, facts)
    print(text)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        document = dict(facts=facts, peer=theirs, tables=bench.tables, probes=bench.probes, notes=bench.notes)
        (args.out / "compare_torch.md").write_text(text)
        (args.out / "compare_torch.json").write_text(json.dumps(document, indent=1) + "\n")
    return 1 if bench.notes else 0


if __name__ == "__main__":
    sys.exit(main())
