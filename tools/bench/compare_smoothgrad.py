"""SmoothGrad and gradients beside PyTorch: SmoothGrad on VGG19 at 224x224 in f32 and bf16; forward and backward of one
image at batch 1; all ten rows of LeNet's Jacobian for one image; peak memory of SmoothGrad on VGG19 at batch 16."""

from compare_core import BATCHES, LAYOUTS, MALLOCS


def vgg19(precision, conv="auto"):
    return "--model", "vgg19", "--weights", "random:0", "--precision", precision, "--conv", conv


def convs(precision):
    return ("auto", "direct") if precision == "fp32" else ("auto",)


def smoothgrad(bench, precision):
    samples, sides = bench.args.samples * (3 if precision == "bf16" else 1), {}

    def theirs(malloc, case, samples, **more):
        request = dict(precision=precision, layout=case[0], batch=case[1], samples=samples, **more)
        return bench.peer(malloc).ask("smoothgrad", **request)["per_second"]

    if bench.ours:
        for conv in convs(precision):
            sides[f"switchback {conv}"] = lambda conv=conv: bench.ours.rate(
                "--method", "smoothgrad", *vgg19(precision, conv), "--batch", bench.args.batch, "--samples", samples,
                "--repeat", 1)
    cases = [(layout, batch) for layout in LAYOUTS for batch in BATCHES]
    best = bench.scan(precision, cases, lambda malloc, case: theirs(malloc, case, max(case[1], 2), warm=1))
    for malloc, case in [(malloc, case) for malloc in MALLOCS for case in best[malloc]]:
        sides[f"PyTorch {malloc} ({case[0]}, batch {case[1]})"] = (
            lambda malloc=malloc, case=case: theirs(malloc, case, samples))
    bench.rounds(f"smoothgrad-{precision}", sides)


def batch1(bench, precision):
    sides, repeat = {}, bench.args.repeat
    if bench.ours:
        for conv in convs(precision):
            sides[f"switchback {conv}"] = lambda conv=conv: bench.ours.rate(
                "--method", "gradient", *vgg19(precision, conv), "--batch", 1, "--repeat", repeat)
    for malloc in MALLOCS:
        for layout in LAYOUTS:
            sides[f"PyTorch {malloc} ({layout})"] = lambda malloc=malloc, layout=layout: bench.peer(malloc).ask(
                "gradient", precision=precision, layout=layout, repeat=repeat)["per_second"]
    bench.rounds(f"batch1-{precision}", sides)


def jacobian(bench):
    sides = {}
    if bench.ours:
        sides["switchback"] = lambda: bench.ours.rate("--method", "jacobian", "--model", "lenet", "--weights",
                                                      "random:0", "--batch", 1, "--repeat", 200)
    rounds_of_ways(bench, "jacobian", sides, "PyTorch", lambda: bench.peer().ask("jacobian", repeat=100, seconds=0.4),
                   "Jacobians")


def rounds_of_ways(bench, workload, sides, name, ask, unit):
    """Rounds in which every way of PyTorch's runs every time; its side is the best of them in each round, and every way
    gets a row of its own."""
    ways = {}

    def theirs():
        answer = ask()["ways"]
        for way, found in answer.items():
            if "ms" in found:
                ways.setdefault(way, []).append(1e3 / found["ms"])
            elif (remark := f"{workload}: {name}'s {way}: {found['error']}") not in bench.remarks:
                bench.remarks.append(remark)
        return max(1e3 / found["ms"] for found in answer.values() if "ms" in found)

    best = f"{name}, best way"
    sides[best] = theirs
    bench.rounds(workload, sides, unit)
    probes = bench.tables[workload].get(best, {}).get("probes", [])
    bench.tables[workload] |= {f"{name}, {way}": dict(values=v, probes=probes) for way, v in ways.items()}


def memory(bench):
    table = {}
    for precision in ("fp32", "bf16"):
        if bench.ours:
            try:
                table[f"switchback, {precision}"] = bench.ours.beyond_weights(
                    "--method", "smoothgrad", *vgg19(precision), "--batch", 16, "--samples", 16, "--repeat", 1)
            except RuntimeError as why:
                bench.notes.append(f"memory: {why}")
        for layout in LAYOUTS:
            peer = bench.fresh_peer()
            try:
                answer = peer.ask("memory", precision=precision, layout=layout, batch=16, samples=16)
                table[f"PyTorch, {precision}, {layout}"] = dict(peak=answer["bytes"] + answer["held_before"],
                                                                beyond_weights=answer["bytes"])
            except RuntimeError as why:
                bench.notes.append(f"memory: {why}")
            peer.close()
    bench.tables["memory"] = table


WORKLOADS = {"smoothgrad-fp32": lambda bench: smoothgrad(bench, "fp32"),
             "smoothgrad-bf16": lambda bench: smoothgrad(bench, "bf16"),
             "batch1-fp32": lambda bench: batch1(bench, "fp32"), "batch1-bf16": lambda bench: batch1(bench, "bf16"),
             "jacobian": jacobian, "memory": memory}
