"""Training at full size: STEPS steps of `switchback train` from the same weights and batches as PyTorch in float64, step by
step. PyTorch's own float32 is measured beside it: ours may be no further from float64 than twice that, or FLOOR."""

import json
import subprocess
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
import torch_nets as nets
from checks import Failed
from shipping import read_safetensors, write_safetensors

STEPS, SEED = 30, 16
LOSS, WEIGHTS = 1e-4, 1e-3  # of losses at every step, of weights after the last
# Of both, below which twice PyTorch's float32 is no bar: roundings of different sums.
FLOOR = 1e-6


@dataclass
class Run:
    model: str
    shape: tuple
    batch: int
    options: list
    optimizer: object
    mse: bool = False
    floor: float = FLOOR


RUNS = [
    Run("lenet", (1, 28, 28), 64, ["--optimizer", "adam", "--lr", 1e-3], lambda p: torch.optim.Adam(p, 1e-3)),
    Run("autoencoder", (3, 32, 32), 32, ["--optimizer", "adam", "--lr", 1e-3, "--loss", "mse"],
        lambda p: torch.optim.Adam(p, 1e-3), mse=True),
    # Batch norms and gates let roundings grow from step to step, and how far is chance: at the recipe's rate PyTorch's
    # float32 is off by far more than the limits, and two such runs differ by more than twice. Hence a small one.
    Run("resnet20", (3, 32, 32), 64,
        ["--optimizer", "sgd", "--lr", 2e-4, "--momentum", 0.9, "--weight-decay", 1e-4],
        lambda p: torch.optim.SGD(p, 2e-4, momentum=0.9, weight_decay=1e-4), floor=LOSS),
]  # fmt: skip


def data(run, batches=4):
    """Noisy pictures of ten kinds, their labels, and the order of each epoch."""
    rng, n = np.random.default_rng(SEED), batches * run.batch
    kinds, labels = rng.random((10, *run.shape)), rng.integers(0, 10, n)
    x = 0.6 * kinds[labels] + 0.4 * rng.random((n, *run.shape))
    x = x if run.mse else (x - 0.5) / 0.25
    order = np.stack([rng.permutation(n) for _ in range(-(-STEPS // batches))])
    return x.astype(np.float32), labels, order


def arrays(module):
    return {k: v.detach().double().numpy() for k, v in module.state_dict().items() if v.dtype.is_floating_point}


def with_torch(run, start, x, labels, order, dtype):
    """Losses of the steps, weights behind them."""
    module = nets.network(run.model).train()
    module.load_state_dict({k: torch.from_numpy(v) for k, v in start.items()}, strict=False)
    module, x, labels = module.to(dtype), torch.from_numpy(x).to(dtype), torch.from_numpy(labels)
    optimizer, losses = run.optimizer(module.parameters()), []
    for which in torch.from_numpy(order).flatten().split(run.batch)[:STEPS]:
        y = module(x[which])
        loss = F.mse_loss(y, x[which]) if run.mse else F.cross_entropy(y, labels[which])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return np.array(losses), arrays(module)


def with_switchback(run, start, x, labels, order, sb, folder):
    folder.mkdir()
    np.save(folder / "x.npy", x)
    np.save(folder / "labels.npy", labels)
    np.save(folder / "order.npy", order)
    write_safetensors(folder / "start.safetensors", {k: v.astype(np.float32) for k, v in start.items()})
    line = [sb.binary, "train", folder / "x.npy", "--model", run.model, "--weights", folder / "start.safetensors",
            "--order", folder / "order.npy", "--batch-size", run.batch, "--epochs", len(order), "--steps", STEPS,
            "--device", sb.device, "--quiet", "-o", folder / "run", *run.options]  # fmt: skip
    line += [] if run.mse else ["--labels", folder / "labels.npy"]
    sb.runs += 1
    done = subprocess.run([str(a) for a in line], capture_output=True, text=True)
    if done.returncode != 0:
        raise Failed(f"exit code {done.returncode}: {done.stderr.strip()[-300:]}")
    losses = [json.loads(step)["loss"] for step in (folder / "run" / "steps.jsonl").read_text().splitlines()]
    return np.array(losses), read_safetensors(folder / "run" / "last.safetensors")[0]


def errors(ours, exact):
    """The largest difference of a loss, and of a weight or running statistic."""
    if ours[1].keys() != exact[1].keys() or len(ours[0]) != len(exact[0]):
        raise Failed(f"{len(ours[0])} steps, parameters {sorted(ours[1].keys() ^ exact[1].keys())[:4]} are not the same")
    return (float(np.abs(ours[0] - exact[0]).max()),
            max(float(np.abs(ours[1][k].astype(np.float64) - v).max()) for k, v in exact[1].items()))  # fmt: skip


def check_training(sb, report):
    report.head(f"training: {STEPS} steps against float64")
    for run in RUNS:
        torch.manual_seed(SEED)
        start = arrays(nets.network(run.model))
        start = {k: v.astype(np.float32) for k, v in start.items()}
        x, labels, order = data(run)
        try:
            trained = with_switchback(run, start, x, labels, order, sb, sb.folder / run.model)
            exact, theirs = (with_torch(run, start, x, labels, order, t) for t in (torch.float64, torch.float32))
            ours = errors(trained, exact)
        except Failed as why:
            if "there is no model" in str(why):
                report.skip(f"{run.model}, {STEPS} steps", "the command does not know it")
                continue
            report.row(False, f"{run.model}, {STEPS} steps", note=str(why))
            continue
        theirs = errors(theirs, exact)
        for what, got, other, limit in zip(("losses", "weights"), ours, theirs, (LOSS, WEIGHTS)):
            bar = min(limit, max(2 * other, run.floor))
            report.row(got <= bar, f"{run.model}, batch {run.batch}: {what} of {STEPS} steps", got, bar, f"PyTorch's float32: {other:.1e}")
        report.row(exact[0][-4:].mean() < 0.95 * exact[0][0], f"{run.model}: it learns", f"{exact[0][0]:.3f}", note=f"to {exact[0][-1]:.3f}")
