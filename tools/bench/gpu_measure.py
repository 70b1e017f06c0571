#!/usr/bin/env python3
"""The stages of tools/gpu_check.sh, one a process: measures, and leaves OUT/STAGE.json.

    tools/bench/gpu_measure.py STAGE --switchback FILE --out FOLDER [--tests FILE] [--seconds S] [--python FILE]

A stage writes its part anew after every result, so what was measured is kept if it is stopped. It stops by itself
when --seconds are over and says what it left out. Exit codes: 0 done, 1 something failed, 77 cannot be run here.

With --device cpu the measuring stages run on the CPU, slowly (add --quick): for trying this script without a GPU."""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import gpu_model as model

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SKIPPED = 77
SANITIZERS = ("memcheck", "racecheck", "initcheck", "synccheck")
SHARDS, SANITIZER_SHARDS = 4, 40
CLOCKS = "clocks.sm,clocks.mem,temperature.gpu,power.draw,clocks_throttle_reasons.active"


class Skip(Exception):
    """This stage cannot run here."""


class Part:
    """OUT/STAGE.json and what it will say."""

    def __init__(self, args):
        self.path, self.start = args.out / f"{args.stage}.json", time.monotonic()
        self.deadline = self.start + args.seconds
        self.document = dict(stage=args.stage, status="running", notes=[])

    def left(self):
        return self.deadline - time.monotonic()

    def save(self, **facts):
        self.document |= facts
        self.document["seconds"] = round(time.monotonic() - self.start, 1)
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.document, indent=1) + "\n")
        temporary.replace(self.path)

    def note(self, text):
        print(text, file=sys.stderr, flush=True)
        if text not in self.document["notes"]:
            self.document["notes"].append(text)
        self.save()


def run(line, part, **options):
    """subprocess.run within the stage's time; (exit code, stdout, stderr), the code being 124 when time was over."""
    try:
        done = subprocess.run([str(w) for w in line], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              timeout=max(part.left(), 1), **options)
        return done.returncode, done.stdout, done.stderr
    except subprocess.TimeoutExpired as late:
        return 124, *[(s.decode() if isinstance(s, bytes) else s) or "" for s in (late.stdout, late.stderr)]


def last_line(text):
    lines = text.strip().splitlines()
    return lines[-1][:300] if lines else "no message"


def gpu_state(part):
    """Clocks and temperature at this moment, for the record."""
    if not shutil.which("nvidia-smi"):
        return {}
    code, out, _ = run(["nvidia-smi", f"--query-gpu={CLOCKS}", "--format=csv,noheader"], part)
    return dict(zip(CLOCKS.split(","), map(str.strip, out.splitlines()[0].split(",")))) if code == 0 and out else {}


class Peer:
    """gpu_torch.py in a process of its own."""

    def __init__(self, args):
        self.process = subprocess.Popen([args.python, str(HERE / "gpu_torch.py"), args.device], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        try:
            self.facts = self.ask("hello", size=args.size)
        except RuntimeError as why:
            raise Skip(f"{args.python} has no PyTorch for this device: {why}") from why

    def ask(self, do, **request):
        try:
            self.process.stdin.write(json.dumps(dict(do=do, **request)) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise RuntimeError(f"PyTorch's process ended during '{do}' with exit code {self.process.wait()}")
        answer = json.loads(line)
        if "error" in answer and set(answer) == {"error"} and isinstance(answer["error"], str):
            raise RuntimeError(f"PyTorch, {do}: {answer['error']}")
        return answer

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def bench(args, part, *options):
    code, out, err = run([args.switchback, "bench", "--json", "--quiet", "--device", args.device, *options], part)
    if code != 0:
        raise RuntimeError(f"switchback bench {' '.join(map(str, options))}: exit code {code}: {last_line(err)}")
    return json.loads(out)


def summary(values):
    return dict(median=statistics.median(values), min=min(values), max=max(values), runs=len(values))


# ---------------------------------------------------------------------------------------------- correctness

def stage_info(args, part):
    code, out, err = run([args.switchback, "info", "--json"], part)
    part.save(switchback=json.loads(out) if code == 0 else None)
    if code != 0:
        raise RuntimeError(f"switchback info: exit code {code}: {last_line(err)}")
    if shutil.which("nvidia-smi"):
        fields = "name,driver_version,memory.total,clocks.max.sm,clocks.max.mem,power.limit,ecc.mode.current"
        _, out, _ = run(["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"], part)
        values = map(str.strip, out.strip().split(","))
        part.save(nvidia_smi=dict(zip(fields.split(","), values)), state=gpu_state(part))
    why = part.document["switchback"]["cuda"]["why_no_gpu"]
    if not part.document["switchback"]["gpus"]:
        raise RuntimeError(f"switchback uses no GPU: {why}")


def test_line(args, shards, index, report):
    """(command, environment) of one shard of the tests that run on the GPU."""
    if not args.tests or not os.access(args.tests, os.X_OK):
        raise Skip("no switchback_tests")
    env = os.environ | dict(GTEST_TOTAL_SHARDS=str(shards), GTEST_SHARD_INDEX=str(index), SWITCHBACK_REQUIRE_CUDA="1")
    line = [args.tests, f"--gtest_filter={args.filter}", "--gtest_brief=1", f"--gtest_output=json:{report}"]
    return line, env


def counted(report):
    """What one shard's report says: numbers, and the failed tests with the start of their messages."""
    suites = json.loads(report.read_text())["testsuites"]
    tests = [(suite["name"], test) for suite in suites for test in suite["testsuite"]]
    failed = {f"{name}.{t['name']}": t["failures"][0]["failure"][:600] for name, t in tests if "failures" in t}
    return dict(ran=sum(t["result"] == "COMPLETED" for _, t in tests), failed=failed,
                skipped=sum(t["result"] == "SKIPPED" for _, t in tests))


def stage_suite(args, part):
    part.save(filter=args.filter, shards=SHARDS, ran=0, skipped=0, failed={})
    running = []
    for i in range(SHARDS):
        report = args.out / f"suite-{i}.json"
        report.unlink(missing_ok=True)
        line, env = test_line(args, SHARDS, i, report)
        log = open(args.out / f"suite-{i}.log", "w")
        running.append((i, report, log, subprocess.Popen(line, env=env, cwd=args.root, stdout=log, stderr=log)))
    lost = []
    for i, report, log, process in running:
        try:
            process.wait(max(part.left(), 1))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()
        if not report.exists():
            lost.append(i)
            part.note(f"shard {i} of {SHARDS} left no result (exit code {process.returncode}): see suite-{i}.log")
            continue
        found = counted(report)
        report.unlink()
        for key in ("ran", "skipped"):
            part.document[key] += found[key]
        part.document["failed"] |= found["failed"]
        part.save()
    if part.document["ran"] == 0 and not lost:
        raise RuntimeError(f"no test matches {args.filter}")
    if part.document["failed"] or lost:
        raise RuntimeError(f"{len(part.document['failed'])} tests failed, {len(lost)} shards without a result")


def stage_torch(args, part):
    """tests/compare_torch.py on the GPU, small networks first: logits, maps, tapes and precisions against float64."""
    rows = args.out / "torch-rows.jsonl"
    rows.unlink(missing_ok=True)
    line = [args.python, ROOT / "tests" / "compare_torch.py", "--switchback", args.switchback, "--device", args.device,
            "--models", "lenet,resnet34,alexnet,vgg16", "--skip", "preprocessing", "--rows", rows]
    code, out, err = run(line + ["--quick"] * args.quick, part)
    print(out, err, sep="\n", flush=True)
    if "No module named" in err:
        raise Skip(last_line(err))
    found = [json.loads(text) for text in rows.read_text().splitlines() if text.endswith("}")] if rows.exists() else []
    rows.unlink(missing_ok=True)
    failed = {r["what"]: f"{r['value']}, limit {r['limit']} {r['note']}" for r in found if r["result"] == "FAIL"}
    part.save(ran=sum(r["result"] in ("ok", "FAIL") for r in found), failed=failed, rows=found)
    if code == 124:
        last = f"after '{found[-1]['what']}'" if found else "before any result"
        part.note(f"time was over {last}")
    if failed:
        raise RuntimeError(f"{len(failed)} of {part.document['ran']} comparisons failed")
    if code not in (0, 124) or not found:
        raise RuntimeError(f"compare_torch.py: exit code {code}: {last_line(err)}")


def stage_sanitizer(args, part):
    """As many small shards of the tests as time allows: each holds some of every op."""
    tool = args.stage
    sanitizer = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not os.access(sanitizer, os.X_OK):
        raise Skip("compute-sanitizer is not installed")
    part.save(tool=tool, filter=args.filter, shards=SANITIZER_SHARDS, shards_run=0, ran=0, failed={}, errors=[])
    for i in range(SANITIZER_SHARDS):
        if part.left() < 20:
            break
        report = args.out / f"{tool}-shard.json"
        report.unlink(missing_ok=True)
        line, env = test_line(args, SANITIZER_SHARDS, i, report)
        line = [sanitizer, "--tool", tool, "--error-exitcode", "9", "--print-limit", "5", *line]
        code, out, err = run(line, part, env=env, cwd=args.root)
        if code == 124:
            part.note(f"time was over in shard {i}")
            break
        if not report.exists():
            text = out + err
            if re.search(r"not supported|Failed to initialize|unable to", text, re.I) and i == 0:
                raise Skip(f"compute-sanitizer does not work here: {last_line(text)}")
            part.document["errors"].append(f"shard {i}: no result, exit code {code}: {last_line(text)}")
        else:
            found = counted(report)
            part.document["ran"] += found["ran"]
            part.document["failed"] |= found["failed"]
        reports = [line for line in out.splitlines() if line.startswith("=========")]
        if code == 9:
            part.document["errors"].append(f"shard {i}:\n" + "\n".join(reports[:40]))
        part.save(shards_run=i + 1)
    (args.out / f"{tool}-shard.json").unlink(missing_ok=True)
    if part.document["errors"] or part.document["failed"]:
        errors, failed = len(part.document["errors"]), len(part.document["failed"])
        raise RuntimeError(f"{errors} shards with errors, {failed} failed tests")


# ---------------------------------------------------------------------------------------------- speed

def stage_ceilings(args, part):
    """What this card reaches: the rates that measured times are held against."""
    peer = Peer(args)
    part.save(peer=peer.facts, copy=None, gemm={})
    size = 1 << 20 if args.quick else 1 << 32
    part.save(copy=summary(peer.ask("copy", bytes=size, repeat=10)["rates"]))
    for precision in ("fp32", "tf32", "bf16", "fp16"):
        n = 256 if args.quick else 8192
        part.document["gemm"][precision] = summary(peer.ask("gemm", precision=precision, n=n, repeat=5)["rates"])
        part.save(state=gpu_state(part))
    peer.close()


def bench_convs(args, part, convs, batch, engine, precision):
    """The documents of one process that runs all shapes, both ways; whatever it measured before it ended."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.writelines(f"{c.shape(batch)}{way}\n" for c in convs for way in ("", " backward"))
        file.flush()
        line = [args.switchback, "bench", "--op", "conv", "--shapes", file.name, "--device", args.device, "--conv",
                engine, "--precision", precision, "--repeat", 5, "--min-seconds", 0.01, "--quiet"]
        code, out, err = run(line, part)
    if code != 0:
        part.note(f"{engine}, batch {batch}: exit code {code}: {last_line(err)}")
    return [json.loads(text) for text in out.splitlines() if text.endswith("}")]


def stage_conv(args, part):
    """Every distinct convolution of VGG and ResNet-34, both ways, by our kernels and by cuDNN; the two alternate."""
    precision, convs = args.stage.split("-")[1], model.distinct_convs()
    batches, rounds = (16, 64, 1), 2
    engines = ["own", "cudnn"]
    if args.quick:
        convs, batches, rounds = convs[-2:], (1,), 1
    if args.device == "cpu":
        engines = ["direct"]
    rows = {}
    part.save(precision=precision, rows=[])
    for batch in batches:
        for engine in [e for r in range(rounds) for e in (engines if r % 2 == 0 else engines[::-1])]:
            if part.left() < 10:
                part.note(f"time was over before {engine} at batch {batch}")
                break
            for document in bench_convs(args, part, convs, batch, engine, precision):
                key = document["shape"], document["backward"]
                row = rows.setdefault(key, dict(shape=key[0], backward=key[1], batch=batch))
                if "error" in document:
                    row[f"{engine}_error"] = document["error"]
                    continue
                row.setdefault(f"{engine}_ms", []).extend(document["ms_runs"])
                row[f"{engine}_algorithm"] = document.get("algorithm")
            part.save(rows=list(rows.values()), state=gpu_state(part))
    if broken := [row["shape"] for row in rows.values() if f"{engines[0]}_error" in row]:
        raise RuntimeError(f"{engines[0]} failed on {len(broken)} shapes, for example {broken[0]}")


def stage_smoothgrad(args, part):
    """VGG19 at 224x224, N = 100: ours and PyTorch at its best, alternating; then both maps against float64."""
    precision = args.stage.split("-")[1]
    samples, batches = (2, (1, 2)) if args.quick else (100, (10, 25, 50, 100))
    peer = Peer(args)
    part.save(precision=precision, samples=samples, peer=peer.facts, scan={}, sides={}, failed_sides={})
    best = scan(args, part, peer, precision, samples, batches)
    sides = {f"switchback --conv {conv}": lambda conv=conv: ours(args, part, precision, samples, conv)
             for conv in (("own", "auto") if args.device == "cuda" else ("direct",))}
    for way, layout, batch in best:
        request = dict(way=way, precision=precision, layout=layout, batch=batch, samples=samples)
        sides[f"PyTorch {way}, {layout}, batch {batch}"] = lambda request=request: peer.ask("smoothgrad", **request)
    for r in range(1 if args.quick else 5):
        alternate(part, sides, reverse=r % 2 == 1)
    peer.ask("forget")
    map_errors(args, part, peer, precision, samples)
    peer.close()
    if broken := [name for name in part.document["failed_sides"] if name.startswith("switchback")]:
        raise RuntimeError(f"{broken[0]} failed: see the notes")


def alternate(part, sides, reverse):
    """One run of each side. One that fails is left out from then on, so that run i of two sides is a pair."""
    for name in sorted(sides, reverse=reverse):
        if part.left() < 30:
            return part.note("time was over before all rounds were run")
        try:
            answer = sides[name]()
        except RuntimeError as why:
            part.note(f"{name}: {why}")
            part.document["failed_sides"][name] = str(why)
            del sides[name]
            continue
        row = part.document["sides"].setdefault(name, dict(per_second=[], states=[]))
        row["per_second"].append(answer["per_second"])
        row["states"].append(gpu_state(part))
        row |= {k: answer[k] for k in ("batch", "peak_bytes") if k in answer}
        part.save()


def ours(args, part, precision, samples, conv):
    document = bench(args, part, "--method", "smoothgrad", "--model", "vgg19", "--weights", "random:0", "--precision",
                     precision, "--conv", conv, "--samples", samples, "--repeat", 1 if args.quick else 3)
    return dict(per_second=document["items_per_second"], batch=document["batch"],
                peak_bytes=document["arena_bytes"] + document["backward_arena_bytes"] + document["tape_bytes"])


def scan(args, part, peer, precision, samples, batches):
    """PyTorch's best: eager in both layouts and all batches; graphs and torch.compile at the best two of these."""
    rates = part.document["scan"]

    def attempt(way, layout, batch):
        request = dict(way=way, precision=precision, layout=layout, batch=batch, samples=samples)
        try:
            peer.ask("smoothgrad", **request)
            rates[f"{way}/{layout}/{batch}"] = peer.ask("smoothgrad", **request)["per_second"]
        except RuntimeError as why:
            part.note(f"PyTorch {way}, {layout}, batch {batch}: {why}")
        part.save()

    for layout in ("channels_last", "contiguous"):
        for batch in batches:
            attempt("eager", layout, batch)
        peer.ask("drop")
    ranked = sorted(rates, key=rates.get, reverse=True)
    if not ranked:
        raise RuntimeError("PyTorch runs in no way")
    for way in ("graph", "compile", "compile+graph") if args.device == "cuda" else ():
        for _, layout, batch in [key.split("/") for key in ranked[: 2 if way == "graph" else 1]]:
            if part.left() < 0.4 * args.seconds:
                part.note(f"no time for PyTorch {way}, {layout}, batch {batch}")
                continue
            attempt(way, layout, int(batch))
    top = {}  # the best of each way
    for key in sorted(rates, key=rates.get, reverse=True):
        way, layout, batch = key.split("/")
        top.setdefault(way, (way, layout, int(batch)))
    peer.ask("drop")
    return list(top.values())


def map_errors(args, part, peer, precision, samples):
    """Both maps against PyTorch's in float64: same weights, image and noise."""
    try:
        import numpy as np
    except ImportError:
        return part.note("no map errors: no numpy")
    if part.left() < 60:
        return part.note("no time for the map errors")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rng = np.random.default_rng(1)
        coarse = rng.standard_normal((1, 3, 28, 28)).astype(np.float32)
        image = np.kron(coarse, np.ones((1, 1, 8, 8), np.float32)) + 0.3 * rng.standard_normal((1, 3, 224, 224))
        np.save(folder / "image.npy", image.astype(np.float32))
        line = [args.switchback, "smoothgrad", "--model", "vgg19", "--weights", "random:0", "--save-weights",
                folder / "weights.safetensors", "--device", args.device, "--precision", precision, "--samples", samples,
                "--noise", 0.15, "--seed", 5, "--target", 7, "-o", folder / "out", "--save", "npy", "--quiet",
                folder / "image.npy"]
        code, _, err = run(line, part)
        if code != 0:
            return part.note(f"switchback smoothgrad: exit code {code}: {last_line(err)}")
        request = dict(image=str(folder / "image.npy"), weights=str(folder / "weights.safetensors"), noise=0.15, seed=5,
                       samples=samples, target=7, batch=min(samples, 10))
        try:
            peer.ask("reference", **request)
            ours_error = peer.ask("error", map=str(next((folder / "out").glob("*.smoothgrad.npy"))))["error"]
            part.save(map_error=dict(switchback=ours_error))
            part.document["map_error"]["PyTorch"] = peer.ask("own_error", precision=precision, **request)["error"]
        except (RuntimeError, StopIteration) as why:
            part.note(f"map errors: {why}")
    part.save()


def stage_jacobian(args, part):
    """LeNet, ten outputs of one image."""
    peer = Peer(args)
    part.save(peer=peer.facts, ours_ms=[], ways={})
    for r in range(1 if args.quick else 4):
        if part.left() < 10:
            part.note(f"time was over in round {r + 1}")
            break
        document = bench(args, part, "--method", "jacobian", "--model", "lenet", "--weights", "random:0", "--repeat",
                         20, "--min-seconds", 0.01)
        part.document["ours_ms"] += [ms / document["items_per_call"] for ms in document["ms_runs"]]
        for name, way in peer.ask("jacobian", repeat=50)["ways"].items():
            if "ms" in way:
                part.document["ways"].setdefault(name, []).append(way["ms"])
            else:
                part.note(f"PyTorch's {name}: {way['error']}")
        part.save()
    peer.close()


def stages():
    table = dict(info=stage_info, suite=stage_suite, torch=stage_torch)
    table |= {tool: stage_sanitizer for tool in SANITIZERS}
    table |= dict(ceilings=stage_ceilings)
    table |= {f"conv-{p}": stage_conv for p in model.PRECISIONS}
    table |= {f"smoothgrad-{p}": stage_smoothgrad for p in model.PRECISIONS}
    return table | dict(jacobian=stage_jacobian)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=list(stages()))
    parser.add_argument("--switchback", type=Path, required=True, help="the command")
    parser.add_argument("--tests", type=Path, help="switchback_tests")
    parser.add_argument("--root", type=Path, default=ROOT, help="where tests are run (default: the project or bundle)")
    parser.add_argument("--filter", default="*cuda*", help="of the tests (default *cuda*)")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=480)
    parser.add_argument("--python", default=sys.executable, help="the interpreter that has PyTorch (default: this one)")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--size", type=int, default=224, help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="very little of everything, to try the script")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    args.out, args.switchback = args.out.resolve(), args.switchback.resolve()
    args.tests = args.tests.resolve() if args.tests else None
    part = Part(args)
    part.save()
    try:
        stages()[args.stage](args, part)
    except Skip as why:
        part.save(status="skipped", reason=str(why))
        print(f"skipped: {why}", file=sys.stderr)
        return SKIPPED
    except (RuntimeError, OSError, ValueError) as why:
        part.save(status="failed", reason=str(why))
        print(f"failed: {why}", file=sys.stderr)
        return 1
    part.save(status="done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
