"""Etalon images beside PyTorch (and the algorithms of the literature), f32:
  etalon-lenet   the ten etalons of one image, W and b; every way of PyTorch's, and the coordinate algorithm, batched
  etalon-digits  all etalons of many digits; PyTorch's ways for many images at their best batch
  etalon-vgg16   a few outputs of VGG16 beside as many backward passes at the best batch: of ours (forward and backward
                 less forward) and of PyTorch's
  etalon-hidden  the units of VGG16's conv3_3 at one place, by their receptive fields and by whole maps"""

import statistics

from compare_core import BATCHES, LAYOUTS, MALLOCS
from compare_smoothgrad import rounds_of_ways

GOAL_ONE, GOAL_COORDINATE, GOAL_MANY, GOAL_PASSES, GOAL_FIELDS = 5, 60, 1.6, 1.15, 10
DIGIT_BATCHES = (10, 32, 100, 320)
COORDINATES = (49, 98, 196, 392, 784)
MOST_ERROR = 1e-4  # of rows and biases against float64


class Case:
    """A network with its weights and images as files."""

    def __init__(self, bench, model, images, count):
        shape = (1, 28, 28) if model == "lenet" else (3, bench.args.size, bench.args.size)
        self.bench, self.model, self.count = bench, model, count
        self.image, self.weights = bench.folder / f"{model}-{images}.npy", bench.folder / f"{model}.safetensors"
        bench.peer().ask("image", path=str(self.image), shape=[images, *shape], seed=2)
        bench.ours.command("--method", "forward", "--model", model, "--weights", "random:0", "--save-weights",
                           self.weights, "--batch", 1, "--repeat", 1, "--warm-up", 0)

    def request(self, layout="contiguous"):
        return dict(model=self.model, weights=str(self.weights), image=str(self.image), layout=layout, count=self.count)

    def options(self, method, *more):
        return ("--method", method, "--model", self.model, "--weights", self.weights, *more, self.image)

    def ours(self, *more):
        """etalons/s"""
        return self.bench.ours.rate(*self.options("etalon", *more))

    def check(self):
        """Rows and biases of the first image against float64."""
        document, _ = self.bench.ours.command(
            "--model", self.model, "--weights", self.weights, "--target", ",".join(map(str, range(self.count))),
            "--save", "npy", "-o", self.bench.folder / "out", self.image, command="etalon")
        files = [file["path"] for file in document["inputs"][0]["files"]]
        biases = next(path for path in files if path.endswith("-bias.npy"))
        rows = next(path for path in files if path != biases)
        errors = self.bench.peer().ask("etalon_errors", case=self.request(), rows=rows, biases=biases)
        if not max(errors.values()) < MOST_ERROR:
            self.bench.notes.append(f"{self.model}: etalons differ from float64's: {errors}")
        self.bench.goal(f"{self.model}: error against float64, rows and biases", "rounding",
                        "{rows:.1e}, {biases:.1e}".format(**errors))


def one(bench):
    case, name = Case(bench, "lenet", 1, 10), "etalon-lenet"
    case.check()
    sides = {"switchback": lambda: case.ours("--repeat", 200) / 10,
             "switchback coordinate": lambda: case.ours("--algorithm", "coordinate", "--repeat", 3) / 10}
    rounds_of_ways(bench, name, sides, "PyTorch",
                   lambda: bench.peer().ask("etalon", case=case.request(), repeat=100, seconds=0.4), "images")
    rounds_of_ways(bench, f"{name}-coordinate", {"switchback": sides["switchback"]}, "PyTorch's coordinates",
                   lambda: bench.peer().ask("coordinate", case=case.request(), batches=COORDINATES, repeat=10,
                                            seconds=0.5), "images")
    bench.goal("LeNet, ten etalons of one image: ours beside PyTorch's best way", f"{GOAL_ONE}",
               bench.ratio(name, "switchback", "PyTorch, best way"))
    bench.goal("LeNet, …: ours beside the coordinate algorithm in PyTorch", f"{GOAL_COORDINATE}",
               bench.ratio(f"{name}-coordinate", "switchback", "PyTorch's coordinates, best way"))


def many(bench):
    count, name, few = bench.args.digits, "etalon-digits", min(bench.args.digits, 640)
    case, shares = Case(bench, "lenet", count, 10), []

    def ours():
        document, _ = bench.ours.command(*case.options("etalon", "--images", count, "--repeat", 1, "--warm-up", 1))
        shares.append(document["share_of_peak"])
        bench.documents[name] = document
        return document["items_per_second"] / 10

    def theirs(malloc, way, batch, images):
        return bench.peer(malloc).ask("etalon_batch", case=case.request(), way=way, batch=batch,
                                      images=images)["per_second"]

    ways = bench.peer().ask("etalon_names", count=10)["names"]
    best = bench.scan("digits", [(way, batch) for way in ways for batch in DIGIT_BATCHES],
                      lambda malloc, c: theirs(malloc, *c, few))
    sides = {"switchback": ours}
    for malloc, (way, batch) in [(malloc, c) for malloc in MALLOCS for c in best[malloc]]:
        sides[f"PyTorch {malloc} ({way}, batch {batch})"] = (
            lambda malloc=malloc, way=way, batch=batch: theirs(malloc, way, batch, count))
    bench.rounds(name, sides, "images")
    title = f"LeNet, all etalons of {count} digits"
    if side := bench.best(name, "PyTorch"):
        bench.goal(f"{title}: ours beside {side}", f"{GOAL_MANY}", bench.ratio(name, "switchback", side))
    if shares:
        bench.goal(f"{title}: share of the processor's peak", "", f"{statistics.median(shares):.2f}")


def outputs(bench):
    """Rates are of backward passes, and of forward passes: what a gradient costs beyond its forward pass."""
    count, name = bench.args.outputs, "etalon-vgg16"
    case = Case(bench, "vgg16", 1, count)
    sides = {"switchback etalon": lambda: case.ours("--outputs", count, "--repeat", 1, "--warm-up", 1)}
    for batch in bench.args.pass_batches:
        for method in ("gradient", "forward"):
            sides[f"switchback {method}, batch {batch}"] = lambda method=method, batch=batch: bench.ours.rate(
                *case.options(method, "--batch", batch, "--repeat", 1, "--warm-up", 1))
    ways = [f"input repeated {count} times", f"{count} backward passes", "is_grads_batched"]
    for layout in LAYOUTS:
        for way in ways:
            sides[f"PyTorch {layout}, {way}"] = lambda layout=layout, way=way: theirs(bench, case, layout, way)
    bench.rounds(name, sides, "etalons or images")
    if passes := backward_rates(bench, name):
        batch = max(passes, key=lambda b: statistics.median(passes[b]))
        pairs = [p / e for p, e in zip(passes[batch], bench.tables[name]["switchback etalon"]["values"])]
        bench.goal(f"VGG16, {count} outputs: our time over that of as many of our backward passes (best batch, "
                   f"{batch})", f"at most {GOAL_PASSES}", (statistics.median(pairs), min(pairs), max(pairs)))
    if side := bench.best(name, "PyTorch"):
        bench.goal(f"VGG16, {count} outputs: ours beside {side}", "", bench.ratio(name, "switchback etalon", side))
    bench.tables["etalon-memory"] = {
        f"switchback, vgg16, {count} outputs, {label}": bench.ours.beyond_weights(*case.options(
            "etalon", "--outputs", count, "--repeat", 1, "--warm-up", 0, *more))
        for label, more in (("as it is", ()), ("--memory 512M", ("--memory", "512M")))}


def theirs(bench, case, layout, way):
    answer = bench.peer().ask("etalon", case=case.request(layout), only=[way], threads="all", repeat=1, seconds=0)
    (found,) = answer["ways"].values()
    if "error" in found:
        raise RuntimeError(f"{way}: {found['error']}")
    return 1e3 * case.count / found["ms"]


def backward_rates(bench, name):
    """batch -> backward passes/s of each round: a gradient's time less its forward pass's."""
    table, found = bench.tables[name], {}
    for batch in bench.args.pass_batches:
        gradient, forward = (table.get(f"switchback {m}, batch {batch}") for m in ("gradient", "forward"))
        if gradient and forward:
            pairs = zip(gradient["values"], forward["values"])
            found[batch] = [1 / max(1 / g - 1 / f, 1e-9) for g, f in pairs]
    return found if "switchback etalon" in table else {}


def hidden(bench):
    name, place = "etalon-hidden", bench.args.size // 8
    case = Case(bench, "vgg16", 1, 1)
    layer = ("--layer", f"features.14:all:{place},{place}", "--repeat", 1, "--warm-up", 1)
    bench.rounds(name, {"switchback, receptive fields": lambda: case.ours(*layer),
                        "switchback, whole maps": lambda: case.ours(*layer, "--full-maps")}, "etalons")
    bench.goal("VGG16, conv3_3's units at one place: receptive fields beside whole maps", f"{GOAL_FIELDS}",
               bench.ratio(name, "switchback, receptive fields", "switchback, whole maps"))


WORKLOADS = {"etalon-lenet": one, "etalon-digits": many, "etalon-vgg16": outputs, "etalon-hidden": hidden}
