"""PyTorch's side of tools/bench/gpu_measure.py: one process that stays alive, reads one JSON request a line on stdin
and answers with one JSON line. Runs on a GPU; on the CPU too, slowly, so that the script can be tried anywhere.

    python3 tools/bench/gpu_torch.py [cuda|cpu]

SmoothGrad in every way a good PyTorch user has: eager, a captured CUDA graph, torch.compile, and torch.compile with
graphs ("reduce-overhead"); contiguous or channels_last; cuDNN's own search for the fastest algorithm is on. fp32 means
that TF32 is off for products and convolutions alike; tf32 that it is on for both. What is timed begins with the image
in host memory and ends with the map there, as in `switchback bench`."""

import gc
import json
import os
import statistics
import struct
import sys
import time
from pathlib import Path

import torch

from torch_peer import jacobian_ways, lenet, memory_format, prepared, vgg19

DTYPES = dict(fp32=torch.float32, tf32=torch.float32, bf16=torch.bfloat16, fp16=torch.float16, fp64=torch.float64)
ROOT = Path(__file__).resolve().parent.parent.parent


def read_parameters(path, model):
    """A safetensors file of VGG19 into `model`: both number layers in the same order."""
    with open(path, "rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
        raw = bytearray(file.read())
    header.pop("__metadata__", None)
    keys = {name: name.split(".") for name in header}  # features.28.weight
    order = sorted(header, key=lambda n: (keys[n][0] != "features", int(keys[n][1]), keys[n][2] == "bias"))
    with torch.no_grad():
        for name, parameter in zip(order, model.parameters(), strict=True):
            first, last = header[name]["data_offsets"]
            values = torch.frombuffer(raw, dtype=torch.float32, count=(last - first) // 4, offset=first)
            parameter.copy_(values.reshape(parameter.shape))


def relative_error(values, reference):
    values, reference = values.double().cpu(), reference.double().cpu()
    return float((values - reference).norm() / reference.norm())


class Step:
    """One batch of SmoothGrad: noise, forward, backward, and the batch's gradients added to `total`."""

    def __init__(self, peer, way, precision, layout, batch):
        self.peer, self.way, self.batch = peer, way, batch
        self.dtype, self.format = DTYPES[precision], memory_format(layout)
        self.model = peer.net(precision, layout)
        if way.startswith("compile"):
            self.model = torch.compile(self.model, mode="reduce-overhead" if way == "compile+graph" else None)
        size = peer.size
        self.x = torch.zeros(1, 3, size, size, device=peer.device, dtype=self.dtype)
        self.total = torch.zeros(1, 3, size, size, device=peer.device)
        self.graph = None
        for _ in range(3):
            self.work()
        if way == "graph":
            self.record()

    def work(self):
        noisy = self.x + 0.3 * torch.randn(self.batch, *self.x.shape[1:], dtype=self.dtype, device=self.x.device)
        noisy = noisy.contiguous(memory_format=self.format).requires_grad_()
        (g,) = torch.autograd.grad(self.model(noisy)[:, 7].sum(), noisy)
        self.total += g.sum(0, keepdim=True, dtype=torch.float32)

    def record(self):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.work()
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.work()

    def smoothgrad(self, image, samples):
        """The mean gradient on the host; `samples` is a multiple of the batch."""
        self.total.zero_()
        self.x.copy_(image)
        for _ in range(samples // self.batch):
            if self.graph:
                self.graph.replay()
            else:
                self.work()
        return (self.total / samples).cpu()


class Peer:
    def __init__(self, device):
        self.device = torch.device(device)
        self.size = 224
        self.models, self.steps, self.reference = {}, {}, None
        torch.backends.cudnn.benchmark = True

    def precision(self, name):
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = name == "tf32"
        if hasattr(torch.backends.cuda.matmul, "allow_bf16_reduced_precision_reduction"):
            torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
            torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False

    def net(self, precision, layout):
        self.precision(precision)
        if (precision, layout) not in self.models:
            self.models[precision, layout] = prepared(vgg19(), "fp32", layout).to(self.device, DTYPES[precision])
        return self.models[precision, layout]

    def synchronize(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def seconds(self, work):
        self.synchronize()
        start = time.perf_counter()
        work()
        self.synchronize()
        return time.perf_counter() - start

    def do_hello(self, request):
        self.size = request.get("size", 224)
        facts = dict(torch=torch.__version__, python=sys.version.split()[0], cuda=torch.version.cuda)
        if self.device.type == "cuda":
            p = torch.cuda.get_device_properties(0)
            facts |= dict(device=p.name, processors=p.multi_processor_count, memory=p.total_memory,
                          cudnn=torch.backends.cudnn.version())
        return facts

    def do_forget(self, request):
        self.models.clear()
        self.steps.clear()
        torch._dynamo.reset()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return {}

    def do_copy(self, request):
        """Bytes/s of device-to-device copies, counting what is read and what is written; every run's figure."""
        count = request["bytes"] // 4
        a, b = torch.rand(count, device=self.device), torch.empty(count, device=self.device)
        b.copy_(a)
        rates = [2 * 4 * count / self.seconds(lambda: b.copy_(a)) for _ in range(request["repeat"])]
        return dict(rates=rates, bytes=request["bytes"])

    def do_gemm(self, request):
        """FLOP/s of an n x n x n product of random matrices."""
        n, dtype = request["n"], DTYPES[request["precision"]]
        self.precision(request["precision"])
        a, b = (torch.randn(n, n, device=self.device).to(dtype) for _ in range(2))
        for _ in range(3):
            a @ b
        rates = [2 * n**3 * 4 / self.seconds(lambda: [a @ b for _ in range(4)]) for _ in range(request["repeat"])]
        return dict(rates=rates, n=n)

    def do_smoothgrad(self, request):
        """Seconds for `samples` gradients; the first request of a kind also prepares it."""
        key = tuple(request[k] for k in ("way", "precision", "layout", "batch"))
        self.precision(request["precision"])
        image = torch.rand(1, 3, self.size, self.size)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        if key not in self.steps:
            self.steps[key] = Step(self, *key)
            self.steps[key].smoothgrad(image, request["batch"])
        maps = []
        seconds = self.seconds(lambda: maps.append(self.steps[key].smoothgrad(image, request["samples"])))
        assert bool(torch.isfinite(maps[0]).all()) and float(maps[0].abs().sum()) > 0
        peak = torch.cuda.max_memory_allocated() if self.device.type == "cuda" else 0
        return dict(seconds=seconds, per_second=request["samples"] / seconds, peak_bytes=peak)

    def do_drop(self, request):
        """Frees the prepared steps: graphs and their memory."""
        self.steps.clear()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return {}

    def noisy(self, request, first, count):
        """Samples [first, first + count) in float64, with the noise that kernels/noise.h defines."""
        import numpy as np
        sys.path[:0] = [str(ROOT / "tests" / "compare")]
        from reference import noise
        x = np.load(request["image"]).astype(np.float64)
        sigma = request["noise"] * float(x.max() - x.min())
        samples = [x[0] + sigma * noise(request["seed"], 0, s, x.shape[1:]) for s in range(first, first + count)]
        return torch.from_numpy(np.stack(samples))

    def map_of(self, request, precision):
        """SmoothGrad of the request's image, weights and noise, in one precision."""
        self.precision(precision)
        model = vgg19().eval().requires_grad_(False)
        read_parameters(request["weights"], model)
        model = model.to(self.device, DTYPES[precision], memory_format=torch.channels_last)
        total, batch = 0, request["batch"]
        for first in range(0, request["samples"], batch):
            x = self.noisy(request, first, min(batch, request["samples"] - first))
            x = x.to(self.device, DTYPES[precision]).contiguous(memory_format=torch.channels_last).requires_grad_()
            (g,) = torch.autograd.grad(model(x)[:, request["target"]].sum(), x)
            total = total + g.double().sum(0, keepdim=True)
        return (total / request["samples"]).cpu()

    def do_reference(self, request):
        """Keeps the float64 map that `error` and `own_error` compare with."""
        self.reference = self.map_of(request, "fp64")
        return dict(norm=float(self.reference.norm()))

    def do_own_error(self, request):
        return dict(error=relative_error(self.map_of(request, request["precision"]), self.reference))

    def do_error(self, request):
        import numpy as np
        values = torch.from_numpy(np.load(request["map"])).reshape(self.reference.shape)
        return dict(error=relative_error(values, self.reference))

    def do_jacobian(self, request):
        """LeNet, all ten rows of d logits / d x of one image; ms of each way, every run's figure."""
        self.precision("fp32")
        model = prepared(lenet()).to(self.device)
        image = torch.randn(1, 1, 28, 28)
        ways = {name: lambda way=way: way(image.to(self.device)).cpu() for name, way in jacobian_ways(model).items()}
        if self.device.type == "cuda":
            ways["input repeated ten times, CUDA graph"] = self.jacobian_graph(model, image)
        answer = {}
        for name, way in ways.items():
            try:
                for _ in range(5):
                    way()
                times = [1e3 * self.seconds(way) for _ in range(request["repeat"])]
            except Exception as why:  # a way that this version does not offer
                answer[name] = dict(error=str(why).splitlines()[0][:120])
                continue
            answer[name] = dict(ms=statistics.median(times), least=min(times))
        return dict(ways=answer)

    def jacobian_graph(self, model, image):
        x = torch.zeros(10, 1, 28, 28, device=self.device, requires_grad=True)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                torch.autograd.grad(model(x).diagonal().sum(), x)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            (rows,) = torch.autograd.grad(model(x).diagonal().sum(), x)

        def replay():
            with torch.no_grad():
                x.copy_(image.expand(10, 1, 28, 28))
            graph.replay()
            return rows.cpu()

        return replay


def main():
    device = sys.argv[1] if len(sys.argv) > 1 else "cuda"
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not mix with the answers
    peer = Peer(device)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(peer, f"do_{request['do']}")(request)
        except Exception as why:
            answer = dict(error=f"{type(why).__name__}: {str(why)[:300]}")
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
