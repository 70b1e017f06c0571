"""What tests/compare_torch.py checks of one network: parameters, values, and maps with loaded and with own tapes."""

import json
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import torch

import reference
from reference import Run, error, networks
from shipping import read_safetensors, write_safetensors

ROOT = Path(__file__).resolve().parent.parent.parent


class Failed(Exception):
    """A check that could not be made because the command failed."""


class Report:
    """Rows of the table, counted. `path`: a file that gets each row, too, as a line of JSON; or None."""

    def __init__(self, path=None):
        self.passed = self.failed = self.skipped = 0
        self.lines = open(path, "w", buffering=1) if path else None

    def keep(self, **row):
        if self.lines:
            self.lines.write(json.dumps(row) + "\n")

    def row(self, ok, what, value="", limit="", note=""):
        word = {True: "ok", False: "FAIL", None: "info"}[ok]
        self.keep(result=word, what=what, value=value, limit=limit, note=note)
        value = f"{value:.2e}" if isinstance(value, float) else str(value)
        limit = f"{limit:.0e}" if isinstance(limit, float) else str(limit)
        self.passed += ok is True
        self.failed += ok is False
        print(f"{word:5}{what:62}{value:>10}{'  <= ' + limit if limit else '':12}  {note}".rstrip(), flush=True)

    def skip(self, what, why):
        self.skipped += 1
        self.keep(result="skip", what=what, note=why)
        print(f"skip {what:62}{why}", flush=True)

    def head(self, text):
        print(f"\n== {text}", flush=True)


# The convolution algorithms of each kind of device, the default first, and which rounding bound holds them: True where
# 3x3 layers may be Winograd, False where all are plain sums, None where a library chooses and none is derived.
CONVS = {
    "cpu": {"auto": True, "direct": False, "winograd": True},
    "cuda": {"own": False, "direct": False, "cudnn": None},
}


class Switchback:
    """Runs the command on one device, in a scratch folder. convs: what of CONVS is to be had, missing: why others are
    not; precisions: those below fp32."""

    def __init__(self, binary, folder, device):
        self.binary, self.folder, self.runs = str(Path(binary).resolve()), Path(folder), 0
        self.device, self.convs, self.missing = device, dict(CONVS[device.split(":")[0]]), {}
        done = subprocess.run([self.binary, "info", "--json"], capture_output=True, text=True)
        if done.returncode != 0:
            raise Failed(f"switchback info: exit code {done.returncode}: {done.stderr.strip()[-300:]}")
        info = json.loads(done.stdout)
        self.precisions = [p for p in info["precisions"] if p != "fp32"]
        if device != "cpu":
            self.meet_gpu(info)

    def meet_gpu(self, info):
        name = self.device if ":" in self.device else f"{self.device}:0"
        gpu = next((g for g in info["gpus"] if g["device"] == name), None)
        if gpu is None:
            raise Failed(info["cuda"]["why_no_gpu"] or f"there is no {name}, only {', '.join(info['devices'])}")
        self.precisions = ["tf32", "bf16", "fp16"]
        line = next((text for text in gpu["libraries"] if text.startswith("cuDNN")), "cuDNN: not in this build")
        if line.startswith("cuDNN:"):  # "cuDNN 9.1.0 from FILE" where it is found
            self.missing["cudnn"] = line
            del self.convs["cudnn"]

    @property
    def default_conv(self):
        return next(iter(self.convs))

    def run(self, command, *options, inputs):
        self.runs += 1
        out = self.folder / f"out{self.runs}"
        line = [self.binary, command, *map(str, options), "--device", self.device, "-o", str(out), "--save", "npy",
                "--quiet", *map(str, inputs)]
        try:
            done = subprocess.run(line, capture_output=True, text=True, timeout=600)
        except subprocess.TimeoutExpired as late:
            raise Failed(f"no end after 600 s\n     {' '.join(line)}") from late
        if done.returncode != 0:
            shutil.rmtree(out, ignore_errors=True)
            raise Failed(f"exit code {done.returncode}: {done.stderr.strip()[-300:]}\n     {' '.join(line)}")
        return out

    def array(self, command, *options, inputs, kind=None):
        """The one array that the command writes for the first input."""
        out = self.run(command, *options, inputs=inputs)
        try:
            [path] = out.glob(f"{Path(inputs[0]).stem}.{kind or command}*.npy")  # options add to its name
            return np.load(path)
        except (OSError, ValueError) as why:
            raise Failed(f"{command} {' '.join(map(str, options))}: {why}") from why
        finally:
            shutil.rmtree(out, ignore_errors=True)

    def file(self, path):
        """What the command wrote to a named file, which is then removed, so that none is read twice."""
        try:
            return np.load(path) if path.suffix == ".npy" else read_safetensors(path)[0]
        except (OSError, ValueError, KeyError) as why:
            raise Failed(f"{path.name}: {why}") from why
        finally:
            path.unlink(missing_ok=True)

    def map(self, rule, *options, inputs):
        return self.array("gradient", "--rule", rule, *options, inputs=inputs, kind=rule)


# What is compared: hidden units as (node, channel, row, column), a conv's value before its ReLU.
HIDDEN = {
    "vgg16": [("features.28", 151, 6, 6), ("features.7", 40, 57, 31)],
    "alexnet": [("features.10", 77, 5, 6), ("features.3", 30, 11, 12)],
    "resnet34": [("layer3.1.conv2", 100, 2, 3), ("layer1.1.conv1", 9, 8, 10)],
    "lenet": [("conv2", 40, 1, 2), ("fc1", 17, None, None)],
}
# (c, h, w) of the inputs: the first for everything, the others for logits and one map.
SIZES = {
    "vgg16": [(3, 224, 224)],
    "alexnet": [(3, 224, 224)],
    "resnet34": [(3, 224, 224), (3, 192, 256)],
    "lenet": [(1, 28, 28)],
}
QUICK_SIZES = {"alexnet": [(3, 128, 160)], "resnet34": [(3, 64, 96)], "lenet": [(1, 28, 28)]}
SEED = 20240131


def unit_options(net, unit):
    node, channel, row, column = unit
    if node == net.nodes[-1][0]:
        return ["--target", channel]
    return ["--layer", f"{node}:{channel}" + (f":{row},{column}" if row is not None else "")]


def unit_text(unit):
    return f"{unit[0]}:{unit[1]}" + (f":{unit[2]},{unit[3]}" if unit[2] is not None else "")


class Case:
    """One network with its parameters in float64 and the command's options for the same ones."""

    def __init__(self, model, sb, report, seed=SEED, divide=1):
        self.model, self.sb, self.report = model, sb, report
        self.net = networks.build(model, divide)
        if model == "lenet":
            path = ROOT / "weights" / "lenet.safetensors"
            drawn = {k: v for k, v in read_safetensors(path)[0].items()}
            self.weights = path
        else:
            drawn = reference.random_parameters(self.net, seed)
            self.weights = f"random:{seed}"
        self.drawn = drawn
        self.parameters = {k: torch.from_numpy(np.asarray(v)).double() for k, v in drawn.items()}
        self.options = ["--model", model, "--weights", self.weights]

    def attempt(self, what, function):
        try:
            return function()
        except Failed as why:
            self.report.row(False, what, note=str(why))
            return None

    def save(self, name, x):
        path = self.sb.folder / f"{name}.npy"
        np.save(path, np.ascontiguousarray(x, np.float32))
        return path


def check_parameters(case):
    """The weights that the command draws and writes are, bit for bit, those drawn here from the published formula."""
    what = f"{case.model} --save-weights: all parameters bit-equal"
    path = case.sb.folder / "saved.safetensors"
    size = (1, 28, 28) if case.model == "lenet" else (3, 64, 64)
    x = case.save("tiny", np.zeros((1, *size)))

    def run():
        case.sb.array("classify", *case.options, "--save-weights", path, inputs=[x])
        return case.sb.file(path)

    saved = case.attempt(what, run)
    if saved is None:
        return
    wrong = [k for k in case.drawn.keys() | saved.keys()
             if k not in saved or k not in case.drawn or not np.array_equal(saved[k], case.drawn[k])]
    case.report.row(not wrong, what, f"{len(saved)}", note=f"differ: {', '.join(sorted(wrong)[:5])}" if wrong else "")


def check_architecture(case, run):
    """The node lists of tests/golden/networks.py say the same as torchvision's own module."""
    what = f"{case.model}: reference against torchvision's module"
    try:
        import torchvision
    except ImportError:
        return case.report.skip(what, "torchvision is not installed")
    options = {} if case.model.startswith("resnet") else ({"init_weights": False} if "vgg" in case.model else {})
    module = getattr(torchvision.models, case.model)(**options).eval()
    holders = dict(module.named_parameters()) | {k: b for k, b in module.named_buffers() if "num_batches" not in k}
    if holders.keys() != case.parameters.keys():
        return case.report.row(False, what, note=f"names differ: {sorted(holders.keys() ^ case.parameters.keys())[:5]}")
    if bad := [k for k in holders if holders[k].shape != case.parameters[k].shape]:
        return case.report.row(False, what, note=f"shapes differ: {bad[:5]}")
    for name, holder in holders.items():
        holder.data = case.parameters[name]
    with torch.no_grad():
        e = error(module(run.x).numpy(), run.output.detach().numpy())
    case.report.row(e <= 1e-12, what, e, 1e-12)


def check_checker(case, run, var):
    """A gate and a switch that are far from a tie, turned over, must be reported as outside the bound."""
    tape = {k: v.numpy().copy() for k, v in run.tape.items()}
    turned = {}
    for name, op, inputs, options in case.net.nodes:
        if op == "relu" and "gate" not in turned:
            at = int(run.values[inputs[0]].abs().argmax())
            tape[f"{name}.gate"].reshape(-1)[at] ^= 1
            turned["gate"] = name
        if op == "max_pool" and "switch" not in turned:
            at = int(run.values[name].argmax())
            flat = tape[f"{name}.switch"].reshape(-1)
            k = reference.pool_geometry(options)[0]
            flat[at] = (flat[at] + k + 1) % (k * k) if k == 3 else flat[at] ^ 1  # another place of the window
            turned["switch"] = name
    listed, problems = reference.differences(run, var, tape)
    found = {d["key"] for d in listed if not d["ok"]} | {p.split(":")[0] for p in problems}
    expected = {f"{name}.{kind}" for kind, name in turned.items()}
    case.report.row(found == expected, f"{case.model}: the checker finds a turned gate and a turned switch",
                    len(found), note="" if found == expected else f"found {found}, turned {expected}")


def check_tape(case, run, var, tape, needed, what, quiet=False):
    """Whether all that differs is within the bound; quiet: no row (the tape of the same pass has been reported)."""
    listed, problems = reference.differences(run, var, tape)
    missing = sorted(needed - tape.keys())
    if missing:
        problems.append(f"missing: {', '.join(missing[:4])}")
    bad = [d for d in listed if not d["ok"]]
    ok = not bad and not problems
    if quiet and ok:
        return True
    elements = sum(v.size for v in tape.values())
    case.report.row(ok, what, len(listed), note=f"differ of {elements} gates and switches")
    for problem in problems:
        print(f"       {problem}")
    for d in (bad + [d for d in listed if d["ok"]])[:6]:
        word = "" if d["ok"] else "  OUTSIDE"
        print(f"       {d['key']}{d['at']}: margin {d['margin']:.2e}, bound {d['bound']:.2e}{word}")
    if len(listed) > 6:
        print(f"       … {len(listed)} in all, {len(bad)} outside")
    return ok


def ancestors(net, node):
    """Gates and switches between the input and a node."""
    wanted, keys = {node}, set()
    for name, op, inputs, _ in reversed(net.nodes):
        if name in wanted:
            wanted.update(inputs)
            if name != node and op in ("relu", "max_pool"):
                keys.add(f"{name}.{'gate' if op == 'relu' else 'switch'}")
    return keys


class Truth:
    """What float64 says about one input, each map computed once: the run, its maps, the same maps with every gate and
    switch turned that input noise turns, and the maps under tapes that the command saved."""

    def __init__(self, case, image):
        self.case, self.x = case, torch.from_numpy(image).double()
        self.run = Run(case.net, case.parameters, self.x)
        self.maps, self.moved, self.turned, self.other, self.stable = {}, {}, {}, self.run, 0
        self.tape_file = case.sb.folder / "reference-tape.safetensors"
        write_safetensors(self.tape_file, {k: v.numpy() for k, v in self.run.tape.items()})

    def map(self, unit, rule):
        if (unit, rule) not in self.maps:
            self.maps[unit, rule] = self.run.map(unit, rule)
        return self.maps[unit, rule]

    def moves(self, unit, rule, size, pairs):
        """How far (norm-wise, relative) the map moves under noise of `size` times the input's: a map depends on the
        input through gates and switches alone, so all those that turn under any of `pairs` draws, added and
        subtracted, are turned together."""
        if size not in self.turned:
            rng = np.random.default_rng(5)
            amplitude = size * float(self.x.pow(2).mean().sqrt())
            tape = {k: v.clone() for k, v in self.run.tape.items()}
            for draw in rng.standard_normal((pairs, *self.x.shape)):
                for sign in (amplitude, -amplitude):
                    with torch.no_grad():
                        noisy = Run(self.case.net, self.case.parameters, self.x + torch.from_numpy(sign * draw)).tape
                    for key, values in noisy.items():
                        tape[key] = torch.where(values != self.run.tape[key], values, tape[key])
            same = all(torch.equal(v, self.run.tape[k]) for k, v in tape.items())
            self.turned[size] = self.run if same else Run(self.case.net, self.case.parameters, self.x, tape)
        if self.turned[size] is self.run:
            return 0.0
        if (unit, rule, size) not in self.moved:
            self.moved[unit, rule, size] = error(self.turned[size].map(unit, rule), self.map(unit, rule))
        return self.moved[unit, rule, size]

    def map_under(self, tape, unit, rule):
        """The map with another tape's gates and switches. Beyond the unit's node the tape may be missing."""
        def same(run):
            return unit[0] in run.values and all(np.array_equal(run.tape.get(k), v) for k, v in tape.items())
        if same(self.run):
            return self.map(unit, rule)
        if not same(self.other):
            tensors = {k: torch.from_numpy(v) for k, v in tape.items()}
            self.other = Run(self.case.net, self.case.parameters, self.x, tensors, until=unit[0])
        return self.other.map(unit, rule)


def check_maps(case, truth, path, unit, rules, conv, var):
    """Loaded, tape, own tape and stable for one unit; without variances, loaded alone."""
    report, saved_file = case.report, case.sb.folder / "saved-tape.safetensors"
    options = [*case.options, "--conv", conv, *unit_options(case.net, unit)]
    for rule in rules:
        what = f"{case.model} {conv} {unit_text(unit)} {rule}"
        expected = truth.map(unit, rule)
        loaded = case.attempt(f"{what}: loaded",
                              lambda: case.sb.map(rule, *options, "--load-tape", truth.tape_file, inputs=[path]))
        if loaded is not None:
            e = error(loaded, expected)
            report.row(e <= 1e-5, f"{what}: loaded", e, 1e-5)
        if var is None:
            continue
        free = case.attempt(f"{what}: free",
                            lambda: case.sb.map(rule, *options, "--save-tape", saved_file, inputs=[path]))
        tape = case.attempt(f"{what}: saved tape", lambda: case.sb.file(saved_file)) if free is not None else None
        if tape is None:
            continue
        needed = ancestors(case.net, unit[0])
        explained = check_tape(case, truth.run, var, tape, needed, f"{case.model} {conv} {unit_text(unit)}: tape",
                               quiet=rule != rules[0])
        if needed <= tape.keys():
            e = error(free, truth.map_under(tape, unit, rule))
            explained = explained and e <= 1e-5
            report.row(e <= 1e-5, f"{what}: own tape", e, 1e-5)
        check_stable(truth, unit, rule, what, error(free, expected), explained)


def check_stable(truth, unit, rule, what, e, explained):
    """The freely run map where float64's does not move under 1e-6 of input noise. A few draws do not turn every gate
    that 1e-6 could, and rounding reaches 2e-6 in deep layers; so a map that 4e-6 moves is excused if its own tape,
    each gate of which is within its bound, explains it."""
    report, moved = truth.case.report, truth.moves(unit, rule, 1e-6, 2)
    if moved >= 1e-5:
        return report.row(None, f"{what}: not stable", e, "", f"float64 moves {moved:.0e} under 1e-6 of noise")
    if e > 1e-4 and explained and (more := truth.moves(unit, rule, 4e-6, 3)) >= 1e-5:
        note = f"by the gates listed; float64 moves {more:.0e} under 4e-6"
        return report.row(None, f"{what}: hardly stable", e, "", note)
    truth.stable += 1
    report.row(e <= 1e-4, f"{what}: stable", e, 1e-4)


def check_values(case, run, path, conv, node, var, note=""):
    """One node's values (the output's: logits): the norm-wise error and, where there are variances, every element's in
    units of its own σ."""
    output = node == case.net.nodes[-1][0]
    what = f"{case.model} {conv} {'logits' if output else node} {'x'.join(map(str, run.x.shape))}{note}"
    options = [*case.options, "--conv", conv]
    got = case.attempt(what, lambda: case.sb.array("classify", *options, inputs=[path]) if output else
                       case.sb.array("activations", *options, "--layer", node, inputs=[path]))
    if got is None:
        return
    expected = run.values[node].detach().numpy()
    e = error(got, expected)
    case.report.row(e <= 1e-5, what, e, 1e-5)
    if var is not None and np.isfinite(e):
        sigmas = float((np.abs(got - expected) / np.sqrt(var[node].double().numpy()).clip(1e-300)).max())
        case.report.row(sigmas <= reference.SIGMAS, f"{what}: rounding", f"{sigmas:.2f}", f"{reference.SIGMAS:.0f} σ")


def check_model(case, quick):
    start = time.time()
    sizes = (QUICK_SIZES if quick else SIZES)[case.model]
    default = case.sb.default_conv
    image = reference.image_like(1, sizes[0])[None]
    path, truth = case.save("input", image), Truth(case, image)
    run = truth.run
    if case.model != "lenet":
        check_architecture(case, run)
    variances = {w: reference.variances(run, case.parameters, w) for w in (False, True)} | {None: None}
    check_checker(case, run, variances[True])
    output = (case.net.nodes[-1][0], int(run.output.argmax()), None, None)
    hidden = [u if not quick or u[2] is None else (u[0], u[1], 1, 1) for u in HIDDEN[case.model]]
    for conv in [default] if quick else case.sb.convs:
        var = variances[case.sb.convs[conv]]
        for node in [output[0], *(unit[0] for unit in hidden)]:
            check_values(case, run, path, conv, node, var)
        check_maps(case, truth, path, output, list(reference.RULES), conv, var)
        for unit in hidden:
            check_maps(case, truth, path, unit, list(reference.RULES) if conv == default else ["gradient"], conv, var)
    case.report.row(truth.stable > 0, f"{case.model}: maps that were stable", truth.stable)
    for size in sizes[1:]:
        image = reference.image_like(2, size)[None]
        path, truth = case.save("other", image), Truth(case, image)
        var = reference.variances(truth.run, case.parameters, case.sb.convs[default])
        check_values(case, truth.run, path, default, output[0], var)
        check_maps(case, truth, path, output, ["gradient"], default, var)
    print(f"     {case.model}: {time.time() - start:.0f} s", flush=True)
