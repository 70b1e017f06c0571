"""PyTorch's side of tools/bench/compare_torch.py: one process that stays alive, reads one JSON request a line on stdin
and answers with one JSON line. So runs of both programs alternate without importing anything again.

Everything is what a good PyTorch user would write: parameters without gradients, so that only the input's is computed;
eval mode; whole models in bf16; channels_last where asked; no host copies inside the timed part."""

import ctypes
import gc
import json
import math
import os
import re
import statistics
import sys
import time

import torch
from torch import nn

VGG19 = [64, 64, "M", 128, 128, "M", 256, 256, 256, 256, "M", 512, 512, 512, 512, "M", 512, 512, 512, 512, "M"]


def vgg19():
    """torchvision's, without the dropout that eval mode skips; weights uniform with He's variance as `random:SEED`."""
    layers, channels = [], 3
    for step in VGG19:
        if step == "M":
            layers.append(nn.MaxPool2d(2, 2))
        else:
            layers += [nn.Conv2d(channels, step, 3, padding=1), nn.ReLU(inplace=True)]
            channels = step
    head = [nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(512 * 49, 4096), nn.ReLU(inplace=True),
            nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Linear(4096, 1000)]
    return nn.Sequential(*layers, *head)


def lenet():
    return nn.Sequential(nn.Conv2d(1, 32, 5), nn.MaxPool2d(3), nn.ReLU(inplace=True), nn.Conv2d(32, 64, 5),
                         nn.MaxPool2d(2), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(256, 200),
                         nn.ReLU(inplace=True), nn.Linear(200, 10))


def prepared(model, precision="fp32", layout="contiguous"):
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            bound = math.sqrt(6 / module.weight[0].numel())
            nn.init.uniform_(module.weight, -bound, bound)
            nn.init.uniform_(module.bias, -0.1, 0.1)
    model = model.eval().requires_grad_(False)
    if precision == "bf16":
        model = model.bfloat16()
    if layout == "channels_last":
        model = model.to(memory_format=torch.channels_last)
    return model


def memory_format(layout):
    return torch.channels_last if layout == "channels_last" else torch.contiguous_format


def smoothgrad(model, x, target, samples, batch, sigma, layout):
    """Mean gradient over `samples` noisy copies of x [1,3,H,W]."""
    total = torch.zeros_like(x, dtype=torch.float32)
    for first in range(0, samples, batch):
        n = min(batch, samples - first)
        noisy = x + sigma * torch.randn(n, *x.shape[1:], dtype=x.dtype)
        noisy = noisy.contiguous(memory_format=memory_format(layout)).requires_grad_()
        score = model(noisy)[:, target].sum()
        (g,) = torch.autograd.grad(score, noisy)
        total += g.sum(0, keepdim=True, dtype=torch.float32)
    return total / samples


def status(field):
    with open("/proc/self/status") as file:
        return int(re.search(rf"{field}:\s+(\d+) kB", file.read()).group(1)) * 1024


class Peer:
    def __init__(self):
        self.key = self.model = self.warm = None

    def net(self, precision, layout):
        if self.key != (precision, layout):
            self.key = self.model = None
            gc.collect()
            self.key, self.model = (precision, layout), prepared(vgg19(), precision, layout)
        return self.model

    def do_hello(self, request):
        torch.set_num_threads(request["threads"])
        config = torch.__config__.show()
        found = re.search(r"BLAS_INFO=(\w+)", config)
        blas = found.group(1) if found else "unknown"
        with open("/proc/self/maps") as file:  # what the BLAS really is: Debian's "generic" is an alternative
            found = [line.split()[-1] for line in file if re.search(r"(libblas|openblas|libmkl)", line)]
        libraries = {os.path.basename(os.path.realpath(path)) for path in found}
        dnn = re.search(r"MKL-DNN (v[\d.]+)", config)
        return dict(torch=torch.__version__, python=sys.version.split()[0], blas=blas, threads=torch.get_num_threads(),
                    blas_libraries=sorted(libraries), onednn=dnn.group(1) if dnn else None,
                    capability=torch.backends.cpu.get_cpu_capability() if hasattr(torch.backends, "cpu") else None,
                    malloc={k: v for k, v in os.environ.items() if k.startswith("MALLOC_")})

    def do_probe(self, request):
        """GFLOP/s of one fixed matrix product, the machine's state at this moment."""
        a = torch.ones(1024, 1024)
        rates = []
        for _ in range(8):
            start = time.perf_counter()
            a @ a
            rates.append(2 * 1024**3 / (time.perf_counter() - start) / 1e9)
        return dict(gflops=statistics.median(rates[2:]))

    def do_smoothgrad(self, request):
        """Seconds for `samples` gradients in batches, after one untimed batch whenever the case is a new one."""
        batch, samples, layout = request["batch"], request["samples"], request["layout"]
        model = self.net(request["precision"], layout)
        dtype = torch.bfloat16 if request["precision"] == "bf16" else torch.float32
        x = torch.randn(1, 3, 224, 224).to(dtype)
        if self.warm != (self.key, batch):
            smoothgrad(model, x, 7, request.get("warm", batch), batch, 0.6, layout)
            self.warm = self.key, batch
        start = time.perf_counter()
        g = smoothgrad(model, x, 7, samples, batch, 0.6, layout)
        seconds = time.perf_counter() - start
        assert bool(torch.isfinite(g).all()) and float(g.abs().sum()) > 0
        return dict(seconds=seconds, per_second=samples / seconds)

    def do_gradient(self, request):
        """Batch 1, forward and backward, no noise: the median of `repeat`."""
        layout = request["layout"]
        model = self.net(request["precision"], layout)
        dtype = torch.bfloat16 if request["precision"] == "bf16" else torch.float32
        x = torch.randn(1, 3, 224, 224).to(dtype).contiguous(memory_format=memory_format(layout)).requires_grad_()
        seconds = []
        for _ in range(request["repeat"] + 1):
            start = time.perf_counter()
            torch.autograd.grad(model(x)[0, 7], x)
            seconds.append(time.perf_counter() - start)
        return dict(seconds=statistics.median(seconds[1:]), per_second=1 / statistics.median(seconds[1:]))

    def do_memory(self, request):
        """Peak memory of one SmoothGrad batch beyond what the process holds with the model loaded."""
        model = self.net(request["precision"], request["layout"])
        dtype = torch.bfloat16 if request["precision"] == "bf16" else torch.float32
        smoothgrad(model, torch.randn(1, 3, 32, 32).to(dtype), 7, 1, 1, 0.6, request["layout"])  # start all libraries
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # what loading left free must not hide what the run takes
        with open("/proc/self/clear_refs", "w") as file:  # VmHWM starts again from what is held now
            file.write("5")
        before = status("VmRSS")
        x = torch.randn(1, 3, 224, 224).to(dtype)
        smoothgrad(model, x, 7, request["samples"], request["batch"], 0.6, request["layout"])
        return dict(bytes=status("VmHWM") - before, held_before=before)

    def do_jacobian(self, request):
        """LeNet, all ten rows of d logits / d x for one image, every way PyTorch knows; ms of each, the median of
        `repeat` runs (fewer when `seconds` are over)."""
        threads, best = torch.get_num_threads(), {}
        model = prepared(lenet())
        x = torch.randn(1, 1, 28, 28)
        reference = None
        for name, way in jacobian_ways(model).items():
            for count in sorted({1, threads}):
                torch.set_num_threads(count)
                try:
                    rows = way(x)
                    times = []
                    while len(times) < request["repeat"] and sum(times) < request["seconds"]:
                        start = time.perf_counter()
                        way(x)
                        times.append(time.perf_counter() - start)
                except Exception as why:  # a way that this version does not offer
                    best[name] = dict(error=str(why).splitlines()[0][:120])
                    continue
                finally:
                    torch.set_num_threads(threads)
                rows = rows.reshape(10, 28, 28)
                reference = rows if reference is None else reference
                assert torch.allclose(rows, reference, rtol=1e-4, atol=1e-6), name
                best[f"{name}, {count} thread{'s' * (count > 1)}"] = dict(ms=1e3 * statistics.median(times))
        return dict(ways=best)


def jacobian_ways(model):
    def loops(x):
        x = x.clone().requires_grad_()
        y = model(x)
        return torch.stack([torch.autograd.grad(y[0, t], x, retain_graph=t < 9)[0] for t in range(10)])

    def repeated(x):
        x = x.repeat(10, 1, 1, 1).requires_grad_()
        return torch.autograd.grad(model(x).diagonal().sum(), x)[0]

    def batched(x):
        x = x.clone().requires_grad_()
        return torch.autograd.grad(model(x), x, torch.eye(10, device=x.device)[:, None], is_grads_batched=True)[0]

    def vectorised(x):
        return torch.autograd.functional.jacobian(model, x, vectorize=True)

    def jacrev(x):
        try:
            from torch.func import jacrev as transform
        except ImportError:
            from functorch import jacrev as transform
        return transform(model)(x)

    def vmapped(x):
        try:
            from torch.func import vjp, vmap
        except ImportError:
            from functorch import vjp, vmap
        _, back = vjp(model, x)
        return vmap(back)(torch.eye(10, device=x.device)[:, None])[0]

    ways = dict(loops=loops, repeated=repeated, batched=batched, vectorised=vectorised, jacrev=jacrev, vmapped=vmapped)
    names = {"loops": "ten backward passes", "repeated": "input repeated ten times", "batched": "is_grads_batched",
             "vectorised": "functional.jacobian(vectorize)", "jacrev": "jacrev", "vmapped": "vmap over vjp"}
    return {names[k]: way for k, way in ways.items()}


def main():
    peer = Peer()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not mix with the answers
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(peer, f"do_{request['do']}")(request)
        except Exception as why:
            answer = dict(error=f"{type(why).__name__}: {why}")
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
