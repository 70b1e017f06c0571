"""What all comparisons with PyTorch share: both programs as processes, alternating runs, ratios taken pair by pair."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
BATCHES, LAYOUTS = (1, 4, 8, 16), ("contiguous", "channels_last")
MALLOCS = ("default", "tuned")
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
            sys.exit(f"compare_torch: error: PyTorch's process ended during '{do}' with exit code {code} (has its "
                     "Python torch? is there memory?)")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"PyTorch, {do}: {answer['error']}")
        return answer

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Ours:
    """The command: one process a run; of `bench`, only the measured part inside counts, not loading."""

    def __init__(self, binary, threads):
        self.binary, self.threads = str(Path(binary).resolve()), threads

    def command(self, *options, command="bench"):
        """(JSON document, peak resident bytes of the process)."""
        line = [self.binary, command, "--json", "--threads", str(self.threads), *map(str, options)]
        process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        out, err = process.stdout.read(), process.stderr.read()
        _, code, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(code)
        if process.returncode != 0:
            raise RuntimeError(f"{' '.join(line)}: exit code {process.returncode}: {err.strip()[-200:]}")
        return json.loads(out), usage.ru_maxrss * 1024

    def rate(self, *options):
        """items per second, the median of the repeats."""
        return self.command(*options)[0]["items_per_second"]

    def idle(self):
        process = subprocess.Popen([self.binary, "--version"], stdout=subprocess.DEVNULL)
        return os.wait4(process.pid, 0)[2].ru_maxrss * 1024

    def beyond_weights(self, *options):
        """Peak of the process, and what of it is neither the weights as they are loaded nor held without a network."""
        document, peak = self.command(*options)
        return dict(peak=peak, beyond_weights=peak - document["weights_bytes"] - self.idle())


class Bench:
    """tables: workload -> side -> values and probes, one of each for every round. documents: the last JSON document of
    a side of ours. goals: rows of the last table. notes: what went wrong; remarks: what is to be known."""

    def __init__(self, args):
        self.args, self.ours = args, Ours(args.switchback, args.threads) if args.switchback else None
        self.peers, self.tables, self.units, self.documents, self.goals = {}, {}, {}, {}, []
        self.probes, self.notes, self.remarks, self.start = [], [], [], time.time()
        self.temporary = tempfile.TemporaryDirectory(prefix="switchback-bench-")
        self.folder = Path(self.temporary.name)

    def peer(self, malloc="default"):
        if malloc not in self.peers:
            self.peers[malloc] = Peer(self.args.python, self.args.threads, malloc)
        return self.peers[malloc]

    def fresh_peer(self):
        """One that has run nothing, for memory."""
        return Peer(self.args.python, self.args.threads)

    def close(self):
        for peer in self.peers.values():
            peer.close()
        self.temporary.cleanup()

    def say(self, text):
        print(f"{time.time() - self.start:4.0f} s  {text}", file=sys.stderr, flush=True)

    def probe(self):
        time.sleep(0.1)  # threads of the last run stop spinning
        gflops = self.peer().ask("probe")["gflops"]
        time.sleep(0.3)
        self.probes.append(gflops)
        return gflops

    def rounds(self, workload, sides, unit="images"):
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
        self.units[workload] = unit

    def scan(self, name, cases, run):
        """PyTorch's two best of the cases for each malloc, by one quick run each: run(malloc, case) in items per
        second. A case that this version cannot run is left out."""
        best = {}
        for malloc in MALLOCS:
            rates, failed = {}, []
            for case in cases:
                try:
                    rates[case] = run(malloc, case)
                except RuntimeError as why:
                    failed.append(f"{case}: {why}")
            if not rates:
                raise RuntimeError(f"PyTorch runs in no way: {failed[0]}")
            best[malloc] = sorted(rates, key=rates.get)[-2:]
            self.say(f"  scan {name} {malloc}: " + ", ".join(f"{text(k)} {v:.2f}/s" for k, v in rates.items()))
            for why in failed:
                self.say(f"  left out: {why}")
        return best

    def ratio(self, workload, ours, theirs):
        """Pair by pair: median, least and largest of ours over theirs; None where a side is missing."""
        table = self.tables.get(workload, {})
        if ours not in table or theirs not in table:
            return None
        pairs = [a / b for a, b in zip(table[ours]["values"], table[theirs]["values"])]
        return statistics.median(pairs), min(pairs), max(pairs)

    def best(self, workload, prefix):
        """The side of that name's beginning with the highest median, or None."""
        table = self.tables.get(workload, {})
        found = {name: statistics.median(row["values"]) for name, row in table.items() if name.startswith(prefix)}
        return max(found, key=found.get) if found else None

    def goal(self, what, wanted, measured):
        """measured: (median, least, largest), a text or None."""
        self.goals.append(dict(what=what, wanted=wanted, measured=measured))


def text(case):
    return "/".join(map(str, case)) if isinstance(case, tuple) else str(case)


def shown(measured):
    if measured is None:
        return "not measured"
    if isinstance(measured, str):
        return measured
    return "{:.3g} ({:.3g}–{:.3g})".format(*measured)
