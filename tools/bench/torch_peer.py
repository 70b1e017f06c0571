"""PyTorch's side of tools/bench/compare_torch.py: one process that stays alive, reads one JSON request a line on stdin
and answers with one JSON line. So runs of both programs alternate without importing anything again.

Everything is what a good PyTorch user would write: parameters without gradients, so that only the input's is computed;
eval mode; whole models in bf16; channels_last where asked; no host copies inside the timed part."""

import gc
import json
import os
import re
import statistics
import sys
import time

import torch

import torch_etalon
import torch_measure as measure
import torch_nets as nets
import torch_occlusion
from torch_nets import memory_format


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


class Peer(torch_occlusion.Requests, torch_etalon.Requests):
    def __init__(self):
        self.kept, self.models, self.warm = None, {}, None

    def net(self, precision, layout, name="vgg19", weights=None):
        """The layouts of one network, its weights and precision are kept; random weights where no file is given."""
        if self.kept != (name, weights, precision):
            self.kept, self.models = (name, weights, precision), {}
            gc.collect()
        if layout not in self.models:
            model = nets.network(name)
            model = nets.loaded(model, weights) if weights else nets.randomized(model)
            self.models[layout] = nets.placed(model, precision, layout)
        return self.models[layout]

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
        dtype = nets.DTYPES[request["precision"]]
        x = torch.randn(1, 3, 224, 224).to(dtype)
        if self.warm != (model, batch):
            smoothgrad(model, x, 7, request.get("warm", batch), batch, 0.6, layout)
            self.warm = model, batch
        start = time.perf_counter()
        g = smoothgrad(model, x, 7, samples, batch, 0.6, layout)
        seconds = time.perf_counter() - start
        assert bool(torch.isfinite(g).all()) and float(g.abs().sum()) > 0
        return dict(seconds=seconds, per_second=samples / seconds)

    def do_gradient(self, request):
        """Batch 1, forward and backward, no noise: the median of `repeat`."""
        layout = request["layout"]
        model = self.net(request["precision"], layout)
        dtype = nets.DTYPES[request["precision"]]
        x = torch.randn(1, 3, 224, 224).to(dtype).contiguous(memory_format=memory_format(layout)).requires_grad_()
        seconds = []
        for _ in range(request["repeat"] + 1):
            start = time.perf_counter()
            torch.autograd.grad(model(x)[0, 7], x)
            seconds.append(time.perf_counter() - start)
        return dict(seconds=statistics.median(seconds[1:]), per_second=1 / statistics.median(seconds[1:]))

    def do_passes(self, request):
        """Forward passes of a batch, or forward and backward to the input: images per second."""
        layout, batch = request["layout"], request["batch"]
        model = self.net("fp32", layout, request["model"])
        x = torch.randn(batch, 3, 224, 224).contiguous(memory_format=memory_format(layout))

        def forward():
            with torch.inference_mode():
                nets.outputs(model, x, layout)

        def gradient():
            image = x.detach().requires_grad_()
            torch.autograd.grad(model(image)[:, 7].sum(), image)

        ms = measure.median_ms(gradient if request["do_backward"] else forward, request["repeat"], request["seconds"])
        return dict(per_second=1e3 * batch / ms)

    def do_train(self, request):
        """Steps of SGD with momentum and weight decay: images per second."""
        layout, batch, name = request["layout"], request["batch"], request["model"]
        model = nets.randomized(nets.network(name)).train().to(memory_format=memory_format(layout))
        x = torch.randn(batch, *nets.input_shape(name, 224)).contiguous(memory_format=memory_format(layout))
        labels = torch.arange(batch) * 7 % (10 if name in nets.SMALL else 1000)
        optimizer = torch.optim.SGD(model.parameters(), 1e-6, momentum=0.9, weight_decay=1e-4, foreach=True)

        def step():
            optimizer.zero_grad(set_to_none=True)
            y = model(x)
            loss = torch.nn.functional.mse_loss(y, x) if y.shape == x.shape else torch.nn.functional.cross_entropy(y, labels)
            loss.backward()
            optimizer.step()

        if request.get("memory"):
            model(x[:2, :, :64, :64])  # starts all libraries
            return measure.peak_of(lambda: [step() for _ in range(2)])
        return dict(per_second=1e3 * batch / measure.median_ms(step, request["repeat"], request["seconds"]))

    def do_memory(self, request):
        """Peak memory of one SmoothGrad batch beyond what the process holds with the model loaded."""
        layout, batch = request["layout"], request["batch"]
        model = self.net(request["precision"], layout)
        dtype = nets.DTYPES[request["precision"]]
        smoothgrad(model, torch.randn(1, 3, 32, 32).to(dtype), 7, 1, 1, 0.6, layout)  # start all libraries
        x = torch.randn(1, 3, 224, 224).to(dtype)
        return measure.peak_of(lambda: smoothgrad(model, x, 7, request["samples"], batch, 0.6, layout))


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
