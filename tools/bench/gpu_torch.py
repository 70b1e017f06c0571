"""PyTorch's side of tools/bench/gpu_measure.py: one process that stays alive, reads one JSON request a line on stdin
and answers with one JSON line. Runs on a GPU; on the CPU too, slowly, so that the script can be tried anywhere.

    python3 tools/bench/gpu_torch.py [cuda|cpu]

SmoothGrad and occlusion in every way a good PyTorch user has (gpu_steps.py); contiguous or channels_last; cuDNN's own
search for the fastest algorithm is on. fp32 means that TF32 is off for products and convolutions alike; tf32 that it is
on for both. What is timed begins with the image in host memory and ends with the map there, as for `switchback`."""

import gc
import json
import os
import statistics
import sys
import time
from pathlib import Path

import torch

import gpu_steps
import torch_nets as nets
from torch_etalon import coordinate, etalons, image_ways
from torch_occlusion import Loop

ROOT = Path(__file__).resolve().parent.parent.parent


def relative_error(values, reference):
    values, reference = values.double().cpu(), reference.double().cpu()
    return float((values - reference).norm() / reference.norm())


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

    def net(self, precision, layout, name="vgg19"):
        self.precision(precision)
        if (precision, layout, name) not in self.models:
            model = nets.randomized(nets.network(name))
            self.models[precision, layout, name] = nets.placed(model, precision, layout, self.device)
        return self.models[precision, layout, name]

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
        n, dtype = request["n"], nets.DTYPES[request["precision"]]
        self.precision(request["precision"])
        a, b = (torch.randn(n, n, device=self.device).to(dtype) for _ in range(2))
        for _ in range(3):
            a @ b
        rates = [2 * n**3 * 4 / self.seconds(lambda: [a @ b for _ in range(4)]) for _ in range(request["repeat"])]
        return dict(rates=rates, n=n)

    def timed(self, key, make, work):
        """(seconds of work(step), peak memory) for the step of this key; make() prepares it, work warms it up."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        if key not in self.steps:
            self.steps[key] = make()
            work(self.steps[key])
        maps = []
        seconds = self.seconds(lambda: maps.append(work(self.steps[key])))
        assert bool(torch.isfinite(maps[0]).all()) and float(maps[0].abs().sum()) > 0
        peak = torch.cuda.max_memory_allocated() if self.device.type == "cuda" else 0
        return dict(seconds=seconds, peak_bytes=peak)

    def do_smoothgrad(self, request):
        """Seconds for `samples` gradients; the first request of a kind also prepares it."""
        case, samples = [request[k] for k in ("way", "precision", "layout", "batch")], request["samples"]
        self.precision(request["precision"])
        image = torch.rand(1, 3, self.size, self.size)
        found = self.timed(("smoothgrad", *case), lambda: gpu_steps.SmoothgradStep(self, *case),
                           lambda step: step.run(image, samples))
        return found | dict(per_second=samples / found["seconds"])

    def do_occlusion(self, request):
        """Seconds for all places of a mask at every `stride`th pixel."""
        case, mask = [request[k] for k in ("way", "precision", "layout", "batch")], request["mask"]
        self.precision(request["precision"])
        image = torch.rand(1, 3, self.size, self.size)
        starts = torch.arange(0, self.size - mask + 1, request["stride"])
        places = torch.cartesian_prod(starts, starts).T.contiguous()
        found = self.timed(("occlusion", *case), lambda: gpu_steps.OcclusionStep(self, mask, *case),
                           lambda step: step.run(image, places))
        return found | dict(per_second=places.shape[1] / found["seconds"])

    def do_drop(self, request):
        """Frees the prepared steps: graphs and their memory."""
        self.steps.clear()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return {}

    def loaded(self, request, precision):
        model = nets.loaded(nets.network(request.get("model", "vgg19")), request["weights"])
        return nets.placed(model, precision, "channels_last", self.device)

    def noisy(self, request, first, count):
        """Samples [first, first + count) in float64, with the noise that kernels/noise/noise.h defines."""
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
        model = self.loaded(request, precision)
        total, batch = 0, request["batch"]
        for first in range(0, request["samples"], batch):
            x = self.noisy(request, first, min(batch, request["samples"] - first))
            x = x.to(self.device, nets.DTYPES[precision]).contiguous(memory_format=torch.channels_last).requires_grad_()
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

    def do_occlusion_errors(self, request):
        """Drops of the request's boxes against float64, relative to |logit|: the other program's (in the request) and
        PyTorch's own in a precision."""
        import numpy as np
        drops = {}
        for precision in ("fp64", request["precision"]):
            self.precision(precision)
            x = torch.from_numpy(np.load(request["image"])).to(self.device, nets.DTYPES[precision])
            loop = Loop(self.loaded(request, precision), x, request["target"], "channels_last", 16)
            drops[precision] = loop.drops(request["boxes"]).double().cpu()
            if precision == "fp64":
                size = float(loop.clean.abs())
        ours = torch.tensor(request["drops"], dtype=torch.float64)
        return dict(switchback=float((ours - drops["fp64"]).abs().max()) / size,
                    PyTorch=float((drops[request["precision"]] - drops["fp64"]).abs().max()) / size)

    def do_jacobian(self, request):
        """LeNet, all ten rows of d logits / d x of one image; ms of each way, every run's figure."""
        model, image = self.net("fp32", "contiguous", "lenet"), torch.randn(1, 1, 28, 28)
        ways = {name: lambda way=way: way(image.to(self.device))[0].cpu()
                for name, way in image_ways(model, 10).items()}
        if self.device.type == "cuda":
            ways["input repeated 10 times, CUDA graph"] = self.repeated_graph(model, image, 10)
        return dict(ways=self.median_ways(ways, request["repeat"]))

    def do_etalon(self, request):
        """Outputs 0 to count − 1 of one image, rows and biases on the host; ms of each way."""
        model, count = self.net(request["precision"], request["layout"], request["model"]), request["count"]
        shape = nets.input_shape(request["model"], self.size)
        image = torch.randn(1, *shape).to(nets.DTYPES[request["precision"]])
        ways = {name: lambda way=way: [part.cpu() for part in etalons(model, way, image.to(self.device))]
                for name, way in image_ways(model, count).items() if name in request.get("only", [name])}
        if self.device.type == "cuda" and request["model"] == "lenet":
            ways[f"input repeated {count} times, CUDA graph"] = self.repeated_graph(model, image, count)
        if request["model"] == "lenet":
            ways["coordinate algorithm"] = lambda: [part.cpu() for part in
                                                    coordinate(model, image.to(self.device), 784)]
        return dict(ways=self.median_ways(ways, request["repeat"]))

    def median_ways(self, ways, repeat):
        answer = {}
        for name, way in ways.items():
            try:
                for _ in range(min(repeat, 5)):
                    way()
                times = [1e3 * self.seconds(way) for _ in range(repeat)]
            except Exception as why:  # a way that this version does not offer
                answer[name] = dict(error=str(why).splitlines()[0][:120])
                continue
            answer[name] = dict(ms=statistics.median(times), least=min(times))
        return answer

    def repeated_graph(self, model, image, count):
        x = torch.zeros(count, *image.shape[1:], device=self.device, requires_grad=True)
        graph, rows = gpu_steps.captured(lambda: torch.autograd.grad(model(x).diagonal().sum(), x)[0])

        def replay():
            with torch.no_grad():
                x.copy_(image.expand_as(x))
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
