"""Training steps in f32: forward, loss (cross entropy; of the autoencoder squared errors), gradients of all parameters, SGD
with momentum and weight decay, on random images. PyTorch at its best of contiguous and channels_last, its optimiser over all
parameters at once (foreach), gradients set to none. ResNet-18 at 224x224, the autoencoder and ResNet-20 at 32x32. And the
memory of a step of ResNet-18, gradients and the optimiser's state included."""

from compare_core import MALLOCS

# Network, batch, and how often PyTorch's speed ours is to be.
CASES = (("lenet", 64, 2.0), ("autoencoder", 64, 2.0), ("resnet20", 128, 1.3), ("resnet18", 16, 1.2))
MEMORY = 0.8  # of PyTorch's at most


def steps(bench):
    for model, batch, goal in CASES:
        workload, repeat = f"train {model}, batch {batch}", 3 if model == "resnet18" else 8 if model == "resnet20" else 150
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


def memory(bench):
    table = {"switchback": bench.ours.beyond_weights("--method", "train", "--model", "resnet18", "--weights", "random:0",
                                                     "--batch", 16, "--repeat", 1)}
    for layout in ("contiguous", "channels_last"):
        peer = bench.fresh_peer()
        answer = peer.ask("train", model="resnet18", layout=layout, batch=16, memory=True)
        table[f"PyTorch, {layout}"] = dict(peak=answer["bytes"] + answer["held_before"], beyond_weights=answer["bytes"])
        peer.close()
    bench.tables["memory of training resnet18, batch 16"] = table
    least = min(row["beyond_weights"] for name, row in table.items() if name.startswith("PyTorch"))
    ratio = table["switchback"]["beyond_weights"] / least
    bench.goal("memory of training resnet18, batch 16, of PyTorch's", f"<= {MEMORY}", [ratio, ratio, ratio])


WORKLOADS = {"train": steps, "train-memory": memory}
