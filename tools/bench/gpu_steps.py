"""One step of a method as PyTorch runs it again and again on a GPU, in every way a good user has: "eager", "graph" (a
captured CUDA graph), "compile" (torch.compile) and "compile+graph" (with mode "reduce-overhead")."""

import torch

import torch_nets as nets


def captured(work):
    """work() as a CUDA graph, and what its recorded call gave; it must write no new memory of the outside."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = work()
    return graph, result


class Step:
    """A subclass has work(), which runs on fixed memory; call() runs it as the way says."""

    def __init__(self, peer, name, way, precision, layout, batch):
        self.way, self.batch, self.size = way, batch, peer.size
        self.dtype, self.format = nets.DTYPES[precision], nets.memory_format(layout)
        self.model = peer.net(precision, layout, name)
        if way.startswith("compile"):
            self.model = torch.compile(self.model, mode="reduce-overhead" if way == "compile+graph" else None)
        self.x = torch.zeros(1, 3, self.size, self.size, device=peer.device, dtype=self.dtype)
        self.graph = None

    def prepare(self):
        for _ in range(3):
            self.work()
        if self.way == "graph":
            self.graph, _ = captured(self.work)

    def call(self):
        if self.graph:
            self.graph.replay()
        else:
            self.work()


class SmoothgradStep(Step):
    """One batch of SmoothGrad: noise, forward, backward, and the batch's gradients added to `total`."""

    def __init__(self, peer, *case):
        super().__init__(peer, "vgg19", *case)
        self.total = torch.zeros_like(self.x, dtype=torch.float32)
        self.prepare()

    def work(self):
        noisy = self.x + 0.3 * torch.randn(self.batch, *self.x.shape[1:], dtype=self.dtype, device=self.x.device)
        noisy = noisy.contiguous(memory_format=self.format).requires_grad_()
        (g,) = torch.autograd.grad(self.model(noisy)[:, 7].sum(), noisy)
        self.total += g.sum(0, keepdim=True, dtype=torch.float32)

    def run(self, image, samples):
        """The mean gradient on the host; `samples` is a multiple of the batch."""
        self.total.zero_()
        self.x.copy_(image)
        for _ in range(samples // self.batch):
            self.call()
        return (self.total / samples).cpu()


class OcclusionStep(Step):
    """One batch of masked copies. The masks are made on the device from their places, in one pass over the copies and
    not by one small kernel a copy."""

    def __init__(self, peer, mask, *case):
        super().__init__(peer, "vgg19", *case)
        self.mask = mask
        self.places = torch.zeros(2, self.batch, 1, 1, 1, device=self.x.device, dtype=torch.int64)  # rows, columns
        self.side = torch.arange(self.size, device=self.x.device)
        self.scores = torch.zeros(self.batch, device=self.x.device)
        with torch.inference_mode():
            self.prepare()

    def work(self):
        rows, columns = self.side[:, None] - self.places[0], self.side[None, :] - self.places[1]
        inside = (rows >= 0) & (rows < self.mask) & (columns >= 0) & (columns < self.mask)
        copies = torch.where(inside, torch.zeros_like(self.x), self.x).contiguous(memory_format=self.format)
        self.scores.copy_(self.model(copies)[:, 7])

    def run(self, image, places):
        """score(x) − score(x occluded) of places [2,n], on the host; the last batch may be filled up with places."""
        found = []
        with torch.inference_mode():
            self.x.copy_(image)
            clean = self.model(self.x)[0, 7].float()
            for first in range(0, places.shape[1], self.batch):
                part = places[:, first : first + self.batch]
                self.places[:, : part.shape[1], 0, 0, 0].copy_(part)
                self.call()
                found.append(self.scores.clone())
            return (clean - torch.cat(found)[: places.shape[1]]).cpu()
