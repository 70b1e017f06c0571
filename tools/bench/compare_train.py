"""Training steps in f32: forward, cross entropy, gradients of all parameters, SGD with momentum and weight decay, on
random images. PyTorch at its best of contiguous and channels_last, its optimiser over all parameters at once (foreach),
gradients set to none. ResNets at 224x224."""

from compare_core import MALLOCS

# Network, batch, and how often PyTorch's speed ours is to be.
CASES = (("lenet", 64, 2.0), ("resnet18", 16, 1.2))


def steps(bench):
    for model, batch, goal in CASES:
        workload, repeat = f"train {model}, batch {batch}", 40 if model == "lenet" else 3
        sides = {"switchback": lambda: bench.ours.rate(
            "--method", "train", "--model", model, "--weights", "random:0", "--batch", batch, "--repeat", repeat)}
        for malloc in MALLOCS:
            for layout in ("contiguous", "channels_last"):
                sides[f"PyTorch {malloc} ({layout})"] = lambda malloc=malloc, layout=layout: bench.peer(malloc).ask(
                    "train", model=model, layout=layout, batch=batch, repeat=repeat, seconds=1)["per_second"]
        bench.rounds(workload, sides)
        best, as_it_is = bench.best(workload, "PyTorch"), bench.best(workload, "PyTorch default")
        bench.goal(f"{workload}: beside {best}", f"{goal}", bench.ratio(workload, "switchback", best))
        if as_it_is != best:
            bench.goal(f"{workload}: beside {as_it_is}", "", bench.ratio(workload, "switchback", as_it_is))


WORKLOADS = {"train": steps}
