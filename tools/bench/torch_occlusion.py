"""Occlusion in PyTorch as a good user writes it: masked copies in batches under inference_mode, in a buffer made once;
and Captum's Occlusion. Boxes are (row, column, height, width)."""

import time

import torch

import torch_measure as measure
import torch_nets as nets


class Loop:
    """drops(boxes)[i] = score(x) − score(x with box i replaced by `fill`)."""

    def __init__(self, model, x, target, layout, batch, fill=0.0):
        self.model, self.x, self.target, self.layout, self.fill = model, x, target, layout, fill
        self.copies = torch.empty(batch, *x.shape[1:], dtype=x.dtype, device=x.device)
        self.copies = self.copies.contiguous(memory_format=nets.memory_format(layout))
        self.clean = self.scores(x)

    def scores(self, x):
        with torch.inference_mode():
            return nets.outputs(self.model, x, self.layout)[:, self.target].float()

    def batch(self, boxes):
        copies = self.copies[: len(boxes)]
        copies.copy_(self.x.expand_as(copies))
        for copy, (row, column, height, width) in zip(copies, boxes):
            copy[:, row : row + height, column : column + width] = self.fill
        return self.clean - self.scores(copies)

    def drops(self, boxes):
        n = len(self.copies)
        return torch.cat([self.batch(boxes[i : i + n]) for i in range(0, len(boxes), n)])


def captum_map(model, x, target, mask, stride, per_eval):
    """(seconds, map [C,H,W]) of Captum's Occlusion."""
    import matplotlib
    matplotlib.use("Agg")
    from captum.attr import Occlusion
    channels = x.shape[1]
    method = Occlusion(model)
    start = time.perf_counter()
    with torch.inference_mode():
        found = method.attribute(x, sliding_window_shapes=(channels, mask, mask), strides=(channels, stride, stride),
                                 baselines=0, target=target, perturbations_per_eval=per_eval)
    return time.perf_counter() - start, found[0]


def why_no_captum():
    try:
        import captum.attr  # noqa: F401
    except ImportError as why:
        return f"{why} (pip install --no-deps captum && pip install tqdm matplotlib)"
    return ""


class Requests:
    """Of torch_peer.Peer. `case` in a request: model, weights and image (files), target, precision, layout, batch."""

    def loop(self, case):
        model = self.net(case["precision"], case["layout"], case["model"], case["weights"])
        x = measure.read_input(case["image"], case["precision"], case["layout"])
        return Loop(model, x, case["target"], case["layout"], case["batch"])

    def do_image(self, request):
        measure.write_image(request["path"], request["shape"], request["seed"])
        return {}

    def do_occlusion(self, request):
        """Seconds for the boxes, after one untimed batch whenever the case is a new one."""
        loop, boxes = self.loop(request["case"]), request["boxes"]
        if self.warm != (loop.model, request["case"]["batch"]):
            loop.batch(boxes[: request["case"]["batch"]])
            self.warm = loop.model, request["case"]["batch"]
        start = time.perf_counter()
        drops = loop.drops(boxes)
        seconds = time.perf_counter() - start
        assert bool(torch.isfinite(drops).all()) and float(drops.abs().sum()) > 0
        return dict(seconds=seconds, per_second=len(boxes) / seconds)

    def do_occlusion_difference(self, request):
        """Of another program's drops (a file) from these; relative to |score|."""
        loop = self.loop(request["case"])
        theirs = measure.read_array(request["values"]).flatten()
        return dict(difference=float((theirs - loop.drops(request["boxes"])).abs().max() / loop.clean.abs()))

    def do_occlusion_memory(self, request):
        """Peak memory of one batch beyond what the process holds with the model loaded."""
        case = request["case"]
        loop = self.loop(case | dict(batch=1))
        loop.batch(request["boxes"][:1])  # starts all libraries
        return measure.peak_of(lambda: self.loop(case).drops(request["boxes"][: case["batch"]]))

    def do_captum_there(self, request):
        return dict(why_not=why_no_captum())

    def do_captum(self, request):
        """Masks side by side, so that each pixel belongs to one place and the map tells the drops of all of them. What
        a place costs does not depend on where it lies: fewer places than a fine stride has tell the time of one."""
        case, mask = request["case"], request["mask"]
        loop = self.loop(case)
        if self.warm != (loop.model, "captum"):
            captum_map(loop.model, loop.x, case["target"], mask, mask, case["batch"])
            self.warm = loop.model, "captum"
        seconds, found = captum_map(loop.model, loop.x, case["target"], mask, mask, case["batch"])
        starts = [[i for i in range(0, side, mask)] for side in found.shape[1:]]
        boxes = [(r, c, mask, mask) for r in starts[0] for c in starts[1]]
        captum_drops = torch.stack([found[0, r, c] for r, c, _, _ in boxes])
        difference = float((captum_drops - loop.drops(boxes)).abs().max() / loop.clean.abs())
        return dict(seconds=seconds, places=len(boxes), per_second=len(boxes) / seconds, difference=difference)
