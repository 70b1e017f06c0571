"""What tests/compare_torch.py checks beside single maps: digits, preprocessing, SmoothGrad and lower precisions."""

import numpy as np
import torch

import reference
from checks import ROOT, Failed, check_values, unit_options, unit_text
from reference import Run, error
from shipping import write_safetensors


# ---------------------------------------------------------------------------------------------- digits

def sample_digits():
    """The shipped digits as LeNet's input [1,1,28,28] each, preprocessed here: grey, (x/255 - 0.1307)/0.3081."""
    try:
        from PIL import Image
    except ImportError:
        return []
    digits = []
    for path in sorted((ROOT / "weights" / "samples").glob("digit_*.png")):
        grey = Image.open(path).convert("L")
        if grey.size == (28, 28):
            digits.append(((np.asarray(grey, np.float64) / 255 - 0.1307) / 0.3081).astype(np.float32)[None, None])
    return digits


def check_digits(case):
    """All sample digits as one batch, all ten outputs: logits, maps [N,10,1,28,28] under the loaded tape."""
    digits = sample_digits()
    if not digits:
        return case.report.skip("lenet: sample digits", "none in weights/samples, or no PIL to read them")
    batch = np.concatenate(digits)
    path = case.save("digits", batch)
    run = Run(case.net, case.parameters, torch.from_numpy(batch).double())
    write_safetensors(case.sb.folder / "digits-tape.safetensors", {k: v.numpy() for k, v in run.tape.items()})
    conv = case.sb.default_conv
    check_values(case, run, path, conv, "fc2", reference.variances(run, case.parameters, case.sb.convs[conv]),
                 " (digits)")
    for rule in reference.RULES:
        what = f"lenet {conv} digits, all ten outputs, {rule}: loaded"
        expected = np.stack([run.map(("fc2", t, None, None), rule) for t in range(10)], 1)
        options = [*case.options, "--conv", conv, "--target", "all", "--load-tape",
                   case.sb.folder / "digits-tape.safetensors"]
        got = case.attempt(what, lambda: case.sb.map(rule, *options, inputs=[path]))
        if got is not None:
            e = error(got, expected)
            case.report.row(e <= 1e-5, what, e, 1e-5)


# ---------------------------------------------------------------------------------------------- preprocessing

def photos(folder):
    """PNG copies of the photos (so that both sides start from the same decoded pixels) and of some odd sizes."""
    from PIL import Image
    found = []
    for source in sorted((ROOT / ".." / "shared" / "data" / "photos").glob("*")):
        if source.suffix in (".png", ".jpg", ".bmp"):
            path = folder / f"{source.stem}.png"
            Image.open(source).convert("RGB").save(path)
            found.append(path)
    for index, (w, h) in enumerate([(97, 61), (256, 256), (300, 257), (511, 900)]):
        smooth = reference.image_like(index, (3, h, w))
        path = folder / f"synthetic_{w}x{h}.png"
        Image.fromarray((smooth.transpose(1, 2, 0) * 60 + 120).clip(0, 255).astype(np.uint8)).save(path)
        found.append(path)
    return found


def check_preprocessing(sb, report):
    report.head("preprocessing against torchvision on PIL images, before normalisation")
    try:
        from PIL import Image
        from torchvision import transforms
    except ImportError as missing:
        return report.skip("preprocessing", str(missing))
    theirs = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor()])
    mean, std = np.array([0.485, 0.456, 0.406])[:, None, None], np.array([0.229, 0.224, 0.225])[:, None, None]
    saved = sb.folder / "preprocessed.npy"
    for path in photos(sb.folder):
        what = f"{path.name} {'x'.join(map(str, Image.open(path).size))}"
        try:
            sb.run("classify", "--model", "resnet18", "--weights", "random:0", "--save-input", saved, inputs=[path])
            ours = sb.file(saved).astype(np.float64)
        except Failed as why:
            report.row(False, what, note=str(why))
            continue
        expected = theirs(Image.open(path).convert("RGB")).numpy()
        if ours.shape != (1, *expected.shape):
            report.row(False, what, note=f"shape {ours.shape}, expected (1, {expected.shape})")
            continue
        e = float(np.abs(ours[0] * std + mean - expected).max()) * 255
        report.row(e <= 1.001, what, f"{e:.3f}", "1", "grey levels, largest difference")


# ---------------------------------------------------------------------------------------------- SmoothGrad

def smoothgrad(case, x, unit, rule, samples, share, seed):
    """(mean g, mean g²) over samples in float64, with the command's documented noise."""
    sigma = share * float(x.max() - x.min())
    total = square = 0
    for s in range(samples):
        noisy = torch.from_numpy(x + sigma * reference.noise(seed, 0, s, x.shape[1:])[None])
        g = Run(case.net, case.parameters, noisy).map(unit, rule)
        total, square = total + g, square + g * g
    return total / samples, square / samples


def check_smoothgrad(case, size, samples, report):
    x = reference.image_like(3, size)[None].astype(np.float64)
    path = case.save("smooth", x)
    clean = Run(case.net, case.parameters, torch.from_numpy(x))
    unit = (case.net.nodes[-1][0], int(clean.output.argmax()), None, None)
    rng = np.random.default_rng(0)
    for rule in reference.RULES:
        # A seed of the noise for which float64 itself does not move: else the comparison would be one of ties.
        for seed in range(1, 20):
            mean, square = smoothgrad(case, x, unit, rule, samples, 0.15, seed)
            nudged = x + 1e-6 * rng.standard_normal(x.shape)
            if error(smoothgrad(case, nudged, unit, rule, samples, 0.15, seed)[0], mean) < 1e-5:
                break
        else:
            report.skip(f"smoothgrad {case.model} {rule}", "no stable seed in 19")
            continue
        moments = dict(mean=mean)
        if rule == "gradient":
            moments |= dict(square=square, variance=square - mean * mean)
        for moment, expected in moments.items():
            what = f"smoothgrad {case.model} {'x'.join(map(str, size))} {rule} {moment}, {samples} samples"
            options = ["--samples", samples, "--noise", 0.15, "--seed", seed, "--rule", rule, "--moment", moment]
            kind = "smoothgrad" if rule == "gradient" else f"smoothgrad-{rule}"
            got = case.attempt(what, lambda: case.sb.array("smoothgrad", *case.options, *options, inputs=[path],
                                                           kind=kind))
            if got is not None:
                e = error(got, expected)
                report.row(e <= 1e-4, what, e, 1e-4, f"noise seed {seed}")


# ---------------------------------------------------------------------------------------------- lower precisions

# Half a unit in the last place, relative.
EPS = dict(tf32=2.0**-11, bf16=2.0**-8, fp16=2.0**-11)


def rounding_limit(net, precision):
    """Every convolution and linear layer rounds what it reads and its weights, independently of all others: eps a
    rounding, summed in quadrature, and twice that. With a tape loaded the same holds on the way back."""
    layers = sum(op in ("conv", "linear") for _, op, *_ in net.nodes)
    return 2 * EPS[precision] * (2 * layers) ** 0.5


def torch_bf16(case, x, unit):
    """PyTorch's own bf16, on the CPU: logits and the free map of each rule; empty where it has none."""
    try:
        half = Run(case.net, {k: v.bfloat16() for k, v in case.parameters.items()}, x.bfloat16())
        return {"logits": half.output.detach().double().numpy()} | {r: half.map(unit, r) for r in reference.RULES}
    except RuntimeError as why:
        print(f"     PyTorch's bf16: {str(why).splitlines()[0]}")
        return {}


def check_precisions(case, size):
    """Below fp32, against float64: logits and the output's maps with the tape loaded have limits. Free maps are
    reported only: rounding turns gates, and a map is discontinuous there."""
    image = reference.image_like(1, size)[None]
    path, x = case.save("half", image), torch.from_numpy(image).double()
    run = Run(case.net, case.parameters, x)
    unit = (case.net.nodes[-1][0], int(run.output.argmax()), None, None)
    tape = case.sb.folder / "half-tape.safetensors"
    write_safetensors(tape, {k: v.numpy() for k, v in run.tape.items()})
    truth = {"logits": run.output.detach().numpy()} | {rule: run.map(unit, rule) for rule in reference.RULES}
    theirs = torch_bf16(case, x, unit) if "bf16" in case.sb.precisions else {}
    for precision in case.sb.precisions:
        options = [*case.options, "--precision", precision]
        limit = rounding_limit(case.net, precision)

        def beside(of):
            return f"PyTorch's bf16 {error(theirs[of], truth[of]):.2e}" if precision == "bf16" and of in theirs else ""

        def row(what, of, function, limit=None):
            got = case.attempt(what, function)
            if got is not None:
                e = error(got, truth[of])
                case.report.row(None if limit is None else e <= limit, what, e, "" if limit is None else limit,
                                "" if what.endswith("loaded") else beside(of))

        row(f"{case.model} {precision} logits", "logits", lambda: case.sb.array("classify", *options, inputs=[path]),
            limit)
        options += unit_options(case.net, unit)
        for rule in reference.RULES:
            what = f"{case.model} {precision} {unit_text(unit)} {rule}"
            row(f"{what}: loaded", rule, lambda: case.sb.map(rule, *options, "--load-tape", tape, inputs=[path]), limit)
            row(f"{what}: free", rule, lambda: case.sb.map(rule, *options, inputs=[path]))
