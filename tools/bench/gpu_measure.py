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
import subprocess
import sys
import tempfile
from pathlib import Path

import gpu_lab
import gpu_maps
import gpu_model as model
from gpu_core import Part, Peer, Skip, gpu_state, last_line, run, summary

ROOT = Path(__file__).resolve().parent.parent.parent
SKIPPED = 77
SANITIZERS = ("memcheck", "racecheck", "initcheck", "synccheck")
SHARDS, SANITIZER_SHARDS = 4, 40


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


def stages():
    table = dict(info=stage_info, suite=stage_suite, torch=stage_torch)
    table |= {tool: stage_sanitizer for tool in SANITIZERS}
    table |= dict(ceilings=stage_ceilings)
    table |= {f"conv-{p}": stage_conv for p in model.PRECISIONS}
    table |= dict(lab=gpu_lab.stage_lab)
    table |= {f"smoothgrad-{p}": gpu_maps.stage_smoothgrad for p in model.PRECISIONS}
    table |= {f"occlusion-{p}": gpu_maps.stage_occlusion for p in gpu_maps.OCCLUSION_PRECISIONS}
    return table | dict(jacobian=gpu_maps.stage_jacobian, etalon=gpu_maps.stage_etalon)


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
