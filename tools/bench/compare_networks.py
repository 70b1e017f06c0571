"""The zoo's networks (--networks: any of torchvision's by name; those of the default have goals) at 224x224, f32, batch 1 and 16: a forward pass, and a forward pass with the gradient of one output
with respect to the input (the way of all gradient maps). PyTorch at its best of contiguous and channels_last, batch norms
folded; forward passes under inference_mode, and also in oneDNN's own layouts (torch.utils.mkldnn). Weights are random on
both sides, speed does not depend on them."""

from compare_core import MALLOCS

BATCHES = (1, 16)
# How often PyTorch's speed ours is to be.
GOALS = dict(resnet18=1.5, resnet34=1.5, googlenet=1.5, squeezenet1_1=1.2, mobilenet_v2=1.3)
MODELS = tuple(GOALS)


def layouts(do):
    return ("contiguous", "channels_last", "mkldnn") if do == "forward" else ("contiguous", "channels_last")


def runs(bench, name, ask):
    """Whether PyTorch has all operators in this layout."""
    try:
        ask()
    except RuntimeError as why:
        bench.remarks.append(f"{name} left out: {str(why)[:150]}")
        return False
    return True


def networks(bench, do):
    for model in bench.args.networks:
        for batch in BATCHES:
            workload, repeat = f"{do} {model}, batch {batch}", 20 if batch == 1 else 4
            sides = {"switchback": lambda: bench.ours.rate(
                "--method", do, "--model", model, "--weights", "random:0", "--batch", batch, "--repeat", repeat)}
            for malloc in MALLOCS:
                for layout in layouts(do):
                    def theirs(malloc=malloc, layout=layout):
                        return bench.peer(malloc).ask("passes", do_backward=do == "gradient", model=model, layout=layout,
                                                      batch=batch, repeat=repeat, seconds=1)["per_second"]
                    if runs(bench, f"{model} ({layout})", theirs):
                        sides[f"PyTorch {malloc} ({layout})"] = theirs
            bench.rounds(workload, sides)
            best, as_it_is = bench.best(workload, "PyTorch"), bench.best(workload, "PyTorch default")
            if best:
                bench.goal(f"{workload}: beside {best}", f"{GOALS.get(model, '')}", bench.ratio(workload, "switchback", best))
            if as_it_is and as_it_is != best:
                bench.goal(f"{workload}: beside {as_it_is}", "", bench.ratio(workload, "switchback", as_it_is))


WORKLOADS = {"networks-forward": lambda bench: networks(bench, "forward"),
             "networks-gradient": lambda bench: networks(bench, "gradient")}
