"""Etalon images in PyTorch: for outputs t of one image or of many, the rows W_t = d NET(x)_t / d x and the biases
b_t = NET(x)_t − ⟨W_t, x⟩, in every way that PyTorch has; and the published coordinate algorithm, batched.

A way is a function of x [n,C,H,W] that gives the rows [n,P,C,H,W] and the outputs [n,P] that come with them (None where
this way does not tell them); `etalons` makes rows and biases of it."""

import time

import torch
import torch.nn.functional as F
from torch import nn

import torch_measure as measure


def etalons(model, way, x):
    """(rows [n,P,C,H,W], biases [n,P])."""
    rows, y = way(x)
    with torch.inference_mode():
        y = model(x)[:, : rows.shape[1]] if y is None else y
        return rows, y - torch.einsum("npi,ni->np", rows.flatten(2), x.flatten(1))


def image_ways(model, count):
    """Outputs 0 to count − 1 of one image: name -> way."""
    head = nn.Sequential(model, Columns(count))

    def result(rows, y, x):
        return rows.reshape(1, count, *x.shape[1:]), None if y is None else y.detach().reshape(1, count)

    def loops(x):
        x = x.clone().requires_grad_()
        y = head(x)
        rows = [torch.autograd.grad(y[0, t], x, retain_graph=t < count - 1)[0] for t in range(count)]
        return result(torch.stack(rows), y, x)

    def repeated(x):
        copies = x.repeat(count, 1, 1, 1).requires_grad_()
        y = head(copies).diagonal()
        return result(torch.autograd.grad(y.sum(), copies)[0], y, x)

    def batched(x):
        x = x.clone().requires_grad_()
        y = head(x)
        seeds = torch.eye(count, device=x.device, dtype=x.dtype)[:, None]
        return result(torch.autograd.grad(y, x, seeds, is_grads_batched=True)[0], y, x)

    def functional(**how):
        return lambda x: result(torch.autograd.functional.jacobian(head, x, **how), None, x)

    def transformed(name):
        return lambda x: result(*getattr(transforms(), name)(lambda x: (head(x),) * 2, has_aux=True)(x), x)

    def vmapped(x):
        y, back = transforms().vjp(head, x)
        seeds = torch.eye(count, device=x.device, dtype=x.dtype)[:, None]
        return result(transforms().vmap(back)(seeds)[0], y, x)

    return {f"{count} backward passes": loops, f"input repeated {count} times": repeated, "is_grads_batched": batched,
            "functional.jacobian": functional(), "functional.jacobian(vectorize)": functional(vectorize=True),
            "jacrev": transformed("jacrev"), "jacfwd": transformed("jacfwd"), "vmap over vjp": vmapped}


def batch_ways(model, count):
    """Outputs 0 to count − 1 of many images: name -> way."""

    def passes(x):  # one forward pass for all images, one backward pass for each output
        x = x.clone().requires_grad_()
        y = model(x)
        rows = [torch.autograd.grad(y[:, t].sum(), x, retain_graph=t < count - 1)[0] for t in range(count)]
        return torch.stack(rows, 1), y.detach()[:, :count]

    def repeated(x):
        copies = x.repeat_interleave(count, 0).requires_grad_()
        y = model(copies).reshape(len(x), count, -1).diagonal(dim1=1, dim2=2)
        rows = torch.autograd.grad(y.sum(), copies)[0]
        return rows.reshape(len(x), count, *x.shape[1:]), y.detach()

    def batched(x):
        x = x.clone().requires_grad_()
        y = model(x)[:, :count]
        seeds = torch.eye(count, device=x.device, dtype=x.dtype)[:, None].expand(count, *y.shape)
        return torch.autograd.grad(y, x, seeds, is_grads_batched=True)[0].transpose(0, 1), y.detach()

    def jacrev(x):
        def one(item):
            y = model(item[None])[0, :count]
            return y, y
        rows, y = transforms().vmap(transforms().jacrev(one, has_aux=True))(x)
        return rows, y.detach()

    return {f"{count} backward passes": passes, f"inputs repeated {count} times": repeated,
            "is_grads_batched": batched, "vmap of jacrev": jacrev}


class Columns(nn.Module):
    """The first `count` outputs."""

    def __init__(self, count):
        super().__init__()
        self.count = count

    def forward(self, y):
        return y[:, : self.count]


def transforms():
    try:
        import torch.func as module
    except ImportError:  # PyTorch 1.13
        import functorch as module
    return module


class Frozen:
    """A plain chain of layers with the active units and the pools' winners of one image: an affine map."""

    def __init__(self, model, x):
        self.layers = []  # (module, what is remembered of it)
        with torch.inference_mode():
            for module in model:
                remembered = None
                if isinstance(module, nn.MaxPool2d):
                    x, remembered = F.max_pool2d(x, module.kernel_size, module.stride, module.padding,
                                                 return_indices=True)
                elif isinstance(module, nn.ReLU):
                    remembered = (x > 0).to(x.dtype)
                    x = x * remembered
                else:
                    x = module(x)
                self.layers.append((module, remembered))

    def push(self, x, biases):
        """Images [n,C,H,W] through the map; without biases it is linear."""
        for module, remembered in self.layers:
            bias = module.bias if biases and isinstance(module, (nn.Conv2d, nn.Linear)) else None
            if isinstance(module, nn.Conv2d):
                x = F.conv2d(x, module.weight, bias, module.stride, module.padding)
            elif isinstance(module, nn.Linear):
                x = F.linear(x, module.weight, bias)
            elif isinstance(module, nn.MaxPool2d):
                winners = remembered.flatten(2).expand(len(x), -1, -1)
                x = x.flatten(2).gather(2, winners).reshape(len(x), *remembered.shape[1:])
            elif isinstance(module, nn.ReLU):
                x = x * remembered
            else:
                x = module(x)
        return x


def coordinate(model, x, batch):
    """(rows [1,P,C,H,W], biases [1,P]) by the published algorithm (Molchanov et al., "Etalon images"): remember active
    units and pooling winners, null the biases, push the image of every coordinate, `batch` at a time; the zero image
    with the biases on gives b."""
    frozen, pixels = Frozen(model, x), x[0].numel()
    with torch.inference_mode():
        biases = frozen.push(torch.zeros_like(x), True)
        images = torch.eye(pixels, device=x.device, dtype=x.dtype).reshape(pixels, *x.shape[1:])
        columns = torch.cat([frozen.push(part, False) for part in images.split(batch)])  # [pixels,P]
        return columns.T.reshape(1, -1, *x.shape[1:]), biases



class Requests:
    """Of torch_peer.Peer. `case` in a request: model, weights (file), image (file of one image or more), layout, count
    (outputs 0 to count − 1)."""

    def case(self, case, precision="fp32"):
        model = self.net(precision, case["layout"], case["model"], case["weights"])
        return model, measure.read_input(case["image"], precision, case["layout"])

    def do_jacobian(self, request):
        """LeNet, all ten rows of d logits / d x for one image, every way PyTorch knows; ms of each."""
        model, x = self.net("fp32", "contiguous", "lenet"), torch.randn(1, 1, 28, 28)
        return dict(ways=timed_ways(image_ways(model, 10), lambda way: way(x)[0], request))

    def do_etalon(self, request):
        """One image, every way: ms of each, its biases included."""
        model, x = self.case(request["case"])
        ways = image_ways(model, request["case"]["count"])
        ways = {name: way for name, way in ways.items() if name in request.get("only", ways)}
        return dict(ways=timed_ways(ways, lambda way: etalons(model, way, x[:1])[0], request))

    def do_coordinate(self, request):
        """One image by the coordinate algorithm: ms for each number of coordinates at a time."""
        model, x = self.case(request["case"])
        ways = {f"{batch} at a time": batch for batch in request["batches"]}
        return dict(ways=timed_ways(ways, lambda batch: coordinate(model, x[:1], batch)[0], request))

    def do_etalon_names(self, request):
        """The ways for many images."""
        return dict(names=list(batch_ways(torch.nn.Identity(), request["count"])))

    def do_etalon_batch(self, request):
        """Seconds for all etalons of `images` images of the file, `batch` images at a time."""
        (model, x), batch = self.case(request["case"]), request["batch"]
        way = batch_ways(model, request["case"]["count"])[request["way"]]
        if self.warm != (model, request["way"], batch):
            etalons(model, way, x[:batch])
            self.warm = model, request["way"], batch
        start = time.perf_counter()
        for part in x[: request["images"]].split(batch):
            rows, biases = etalons(model, way, part)
        seconds = time.perf_counter() - start
        assert bool(torch.isfinite(rows).all()) and bool(torch.isfinite(biases).all())
        return dict(seconds=seconds, per_second=request["images"] / seconds)

    def do_etalon_errors(self, request):
        """Another program's rows and biases (files) of the first image against float64: norm-wise, and relative to the
        largest output."""
        model, x = self.case(request["case"], "fp64")
        count = request["case"]["count"]
        rows, biases = etalons(model, image_ways(model, count)[f"{count} backward passes"], x[:1])
        ours = measure.read_array(request["rows"]).double().reshape(rows.shape)
        offsets = measure.read_array(request["biases"]).double().reshape(biases.shape)
        return dict(rows=float((ours - rows).norm() / rows.norm()),
                    biases=float((offsets - biases).abs().max() / model(x[:1]).abs().max()))


def timed_ways(ways, rows_of, request):
    """{way and threads: ms}, or the error of one that this version does not offer; all ways must agree."""
    found, reference = {}, None
    for name, way in ways.items():
        try:
            rows = rows_of(way)
            times = measure.by_threads(lambda: rows_of(way), request)
        except Exception as why:
            found[name] = dict(error=str(why).splitlines()[0][:120])
            continue
        reference = rows if reference is None else reference
        assert float((rows - reference).norm() / reference.norm()) < 1e-3, name
        found |= {f"{name}, {n} thread{'s' * (n > 1)}": dict(ms=ms) for n, ms in times.items()}
    return found
