"""Occlusion beside PyTorch: a mask of 32 pixels at every 2nd pixel of 224x224, 9,409 positions, for each of --models.
Both time a random sample of positions, ours another one in each round (tools/bench/bench_occlusion.cpp says how it is drawn
without bias). PyTorch's batched loop over masked copies runs under inference_mode, batch norms folded, in a buffer made
once, at its best two of contiguous, channels_last and oneDNN's own layouts (torch.utils.mkldnn) times batches 1, 4, 8,
16, 32. Before the clock starts, both programs' drops at random positions are compared: same weights, image and boxes.
occlusion-captum is Captum's Occlusion (pip install --no-deps captum && pip install tqdm matplotlib) at its best layout
and perturbations_per_eval; occlusion-memory the peak memory at 16 positions in a batch, and under --memory 128M."""

import random

from compare_core import MALLOCS

LAYOUTS, BATCHES = ("contiguous", "channels_last", "mkldnn"), (1, 4, 8, 16, 32)
CHECKED = 12  # positions whose scores are compared
# How often PyTorch's speed ours is to be, fp32, and the share of the counted ratio of FLOPs that windows are to keep.
GOALS, SHARE, CAPTUM_GOAL = dict(vgg16=5.5, vgg19=4.5, resnet18=2.2, resnet34=1.4), 0.8, 6
MOST_DIFFERENCE = dict(fp32=1e-4, bf16=0.1)  # of both programs' drops, of |logit|; bf16 has 8 bits


class Case:
    """One network and precision: an image and weights as files, and what both programs need to be told."""

    def __init__(self, bench, model, precision):
        self.bench, self.model, self.precision, self.args = bench, model, precision, bench.args
        self.size = 28 if model == "lenet" else bench.args.size
        self.image, self.weights = bench.folder / f"{model}.npy", bench.folder / f"{model}.safetensors"
        channels = 1 if model == "lenet" else 3
        bench.peer().ask("image", path=str(self.image), shape=[1, channels, self.size, self.size], seed=1)
        self.request = dict(model=model, weights=str(self.weights), image=str(self.image), precision=precision)
        self.target, self.calls = 0, {}

    def boxes(self, count, seed):
        """Random ones of the grid: (row, column, height, width)."""
        mask, stride = self.args.mask, self.args.stride
        grid = [(r, c, mask, mask) for r in range(0, self.size - mask + 1, stride)
                for c in range(0, self.size - mask + 1, stride)]
        return random.Random(seed).sample(grid, min(count, len(grid)))

    def close(self):
        self.weights.unlink(missing_ok=True)

    def check(self):
        """Writes the weights and compares the drops: the largest difference, relative to |logit|."""
        boxes, out = self.boxes(CHECKED, 7), self.bench.folder / "out"
        places = [word for r, c, h, w in boxes for word in ("--box", f"{c},{r},{w},{h}")]
        document, _ = self.bench.ours.command(
            "--model", self.model, "--weights", "random:0", "--save-weights", self.weights, "--precision",
            self.precision, *places, "--save", "npy", "-o", out, self.image, command="occlusion")
        entry = document["inputs"][0]
        self.target = entry["target"]
        request = self.request | dict(target=self.target, layout="contiguous", batch=4)
        answer = self.bench.peer().ask("occlusion_difference", case=request, boxes=boxes,
                                       values=entry["files"][0]["path"])
        difference = answer["difference"]
        if not difference < MOST_DIFFERENCE[self.precision]:
            self.bench.notes.append(f"{self.model}, {self.precision}: drops differ by {difference:.1e} of the logit")
        self.bench.goal(f"{self.model}, {self.precision}: largest difference of the drops, of the logit", "rounding",
                        f"{difference:.1e}")

    def ours(self, algorithm, conv):
        """positions/s of the whole grid, estimated from a sample."""
        positions = self.args.positions if algorithm == "incremental" else self.args.full_positions
        self.calls[algorithm, conv] = seed = self.calls.get((algorithm, conv), 0) + 1  # each round another sample
        document, _ = self.bench.ours.command(*self.options(algorithm, conv, positions, "--seed", seed))
        self.bench.documents[f"occlusion-{self.precision} {self.model}, {algorithm} {conv}"] = document
        return document["items_per_second"]

    def options(self, algorithm, conv, positions, *more):
        return ("--method", "occlusion", "--model", self.model, "--weights", self.weights, "--precision",
                self.precision, "--conv", conv, "--algorithm", algorithm, "--mask", self.args.mask, "--stride",
                self.args.stride, "--positions", positions, "--repeat", 1, "--warm-up", 1, *more, self.image)

    def torch(self, malloc, layout, batch, positions, do="occlusion"):
        request = self.request | dict(target=self.target, layout=layout, batch=batch)
        return self.bench.peer(malloc).ask(do, case=request, boxes=self.boxes(positions, 3),
                                           mask=self.args.mask)["per_second"]


def occlusion(bench, precision):
    for model in bench.args.models:
        case = Case(bench, model, precision)
        case.check()
        workload, sides = f"occlusion-{precision} {model}", {}
        convs = ("auto", "direct") if precision == "fp32" else ("auto",)
        for algorithm in ("incremental", "full"):
            for conv in convs:
                sides[f"switchback {algorithm} {conv}"] = (
                    lambda algorithm=algorithm, conv=conv: case.ours(algorithm, conv))
        cases = [(layout, batch) for layout in LAYOUTS for batch in BATCHES]
        best = bench.scan(f"{precision} {model}", cases, lambda malloc, c: case.torch(malloc, *c, max(c[1], 4)))
        for malloc, (layout, batch) in [(malloc, c) for malloc in MALLOCS for c in best[malloc]]:
            sides[f"PyTorch {malloc} ({layout}, batch {batch})"] = (
                lambda malloc=malloc, layout=layout, batch=batch: case.torch(malloc, layout, batch,
                                                                             bench.args.full_positions))
        bench.rounds(workload, sides, "positions")
        conclude(bench, case, workload)
        case.close()


def conclude(bench, case, workload):
    """The goals' rows."""
    title, auto, direct = f"{case.model}, {case.precision}", "incremental auto", "incremental direct"
    best, facts = bench.best(workload, "PyTorch"), bench.documents.get(f"{workload}, {auto}")
    if not best or not facts:
        return

    def ratio(ours, theirs):
        return bench.ratio(workload, f"switchback {ours}", theirs)

    counted, wanted = facts["flop_ratio"], ""
    if case.precision == "fp32" and case.model in GOALS:
        wanted = f"{GOALS[case.model]} (224x224, mask 32, stride 2)"
    bench.goal(f"{title}: incremental beside {best}", wanted, ratio(auto, best))
    bench.goal(f"{title}: … beside PyTorch as it is", "", ratio(auto, bench.best(workload, "PyTorch default")))
    bench.goal(f"{title}: … beside our own full recomputation", "at least 1", ratio(auto, "switchback full auto"))
    bench.goal(f"{title}: counted ratio of FLOPs", "", f"{counted:.2f}")
    for ours, full, least in ((direct, "full direct", f"{SHARE}"), (auto, "full auto", "")):
        if measured := ratio(ours, f"switchback {full}"):
            bench.goal(f"{title}: share of it that {ours} reaches beside {full}", least,
                       tuple(value / counted for value in measured))
    bench.goal(f"{title}: first call's time over later ones'", "",
               f"{facts['ms_first_call'] / facts['ms_median']:.2f}")


def captum(bench):
    """Captum's Occlusion at its best perturbations_per_eval; on one network."""
    model = "vgg16" if "vgg16" in bench.args.models else bench.args.models[0]
    why = bench.peer().ask("captum_there")["why_not"]
    if why:
        bench.remarks.append(f"captum: skipped, {why}")
        return bench.say(f"  skipped: {why}")
    case = Case(bench, model, "fp32")
    case.check()
    workload = f"occlusion-captum {model}"
    cases = [(layout, batch) for layout in ("contiguous", "channels_last") for batch in BATCHES]
    best = bench.scan(f"Captum {model}", cases, lambda malloc, c: case.torch(malloc, *c, 0, "captum"))
    sides = {"switchback incremental auto": lambda: case.ours("incremental", "auto")}
    for malloc, (layout, batch) in [(malloc, c) for malloc in MALLOCS for c in best[malloc]]:
        sides[f"Captum {malloc} ({layout}, {batch} perturbations per eval)"] = (
            lambda malloc=malloc, layout=layout, batch=batch: case.torch(malloc, layout, batch, 0, "captum"))
    bench.rounds(workload, sides, "positions")
    if name := bench.best(workload, "Captum"):
        bench.goal(f"{model}, fp32: incremental beside {name}", f"{CAPTUM_GOAL}",
                   bench.ratio(workload, "switchback incremental auto", name))
    case.close()


def memory(bench):
    """At 16 positions in a batch, and under a limit."""
    table = bench.tables["occlusion-memory"] = {}
    for model in bench.args.models:
        case = Case(bench, model, "fp32")
        case.check()
        for name, algorithm, more in (("incremental", "incremental", ("--batch", 16)),
                                      ("full", "full", ("--batch", 16)),
                                      ("incremental, --memory 128M", "incremental", ("--memory", "128M"))):
            table[f"switchback, {model}, {name}"] = bench.ours.beyond_weights(
                *case.options(algorithm, "auto", 16, *more))
        for layout in LAYOUTS:
            peer = bench.fresh_peer()
            try:
                request = case.request | dict(target=case.target, layout=layout, batch=16)
                answer = peer.ask("occlusion_memory", case=request, boxes=case.boxes(16, 3))
                table[f"PyTorch, {model}, {layout}"] = dict(peak=answer["bytes"] + answer["held_before"],
                                                            beyond_weights=answer["bytes"])
            except RuntimeError as why:
                bench.remarks.append(f"memory: {why}")
            peer.close()
        least = min(v["beyond_weights"] for k, v in table.items() if k.startswith(f"PyTorch, {model}"))
        ours = table[f"switchback, {model}, incremental"]["beyond_weights"]
        bench.goal(f"{model}, fp32: memory beyond the weights at 16 positions, of PyTorch's least", "at most 1",
                   f"{ours / max(least, 1):.2f}")
        case.close()


WORKLOADS = {"occlusion-fp32": lambda bench: occlusion(bench, "fp32"),
             "occlusion-bf16": lambda bench: occlusion(bench, "bf16"), "occlusion-captum": captum,
             "occlusion-memory": memory}
