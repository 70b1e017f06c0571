"""What the stages of gpu_measure.py share: the part of the report that a stage writes, and both programs."""

import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
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
