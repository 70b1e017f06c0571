#!/usr/bin/env python3
"""`switchback embed` beside openTSNE and scikit-learn on MNIST's raw test digits, as a report.

    tools/bench/compare_embed.py [--switchback build/switchback] [--mnist FOLDER] [--points 10000] [--seeds 3] [--out FILE.md]

Needs openTSNE and scikit-learn (pip install openTSNE scikit-learn). All programs get the same points and as many threads
as there are; they run in turn, each in a process of its own (behind --prefix, as "chrt -f 50" on a busy machine). Ours is
timed from start to end, reading included, the others from points in memory to the embedding.
KL divergence and trustworthiness of every result are computed by one program, here: p from exact neighbours at the
perplexity, q over all pairs in double. PCA is compared with numpy's SVD, k-means with scikit-learn's at equal restarts.
"""

import argparse
import gzip
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

BLOCK = 500


def digits(folder, count):
    with gzip.open(pathlib.Path(folder) / "t10k-images-idx3-ubyte.gz") as file:
        return np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 784)[:count].astype(np.float32)


def squared(a, b):
    return np.maximum((a * a).sum(1)[:, None] + (b * b).sum(1)[None] - 2 * a @ b.T, 0)


class Judge:
    """Joint probabilities of the points and the ranks that trustworthiness needs, once for all results."""

    def __init__(self, x, perplexity):
        self.x, self.n, self.near = x.astype(np.float64), len(x), int(3 * perplexity)
        rows, columns, values = [], [], []
        for begin in range(0, self.n, BLOCK):
            d = squared(self.x[begin:begin + BLOCK], self.x)
            d[np.arange(len(d)), begin + np.arange(len(d))] = np.inf
            index = np.argpartition(d, self.near, 1)[:, :self.near]
            close = np.take_along_axis(d, index, 1)
            close -= close.min(1, keepdims=True)
            low, high, beta = np.zeros(len(d)), np.full(len(d), np.inf), 1 / close.mean(1)
            for _ in range(100):
                p = np.exp(-beta[:, None] * close)
                total = p.sum(1)
                entropy = np.log(total) + beta * (p * close).sum(1) / total
                above = entropy > np.log(perplexity)
                low, high = np.where(above, beta, low), np.where(above, high, beta)
                beta = np.where(np.isinf(high), 2 * beta, (low + high) / 2)
            rows.append(np.repeat(begin + np.arange(len(d)), self.near))
            columns.append(index.ravel())
            values.append((p / total[:, None]).ravel())
        from scipy.sparse import coo_matrix
        one_way = coo_matrix((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), (self.n, self.n)).tocsr()
        self.p = ((one_way + one_way.T) / (2 * self.n)).tocoo()

    def kl(self, y):
        y = y.astype(np.float64)
        z = sum((1 / (1 + squared(y[b:b + BLOCK], y))).sum() for b in range(0, self.n, BLOCK)) - self.n
        apart = ((y[self.p.row] - y[self.p.col]) ** 2).sum(1)
        return float((self.p.data * (np.log(self.p.data) + np.log1p(apart) + np.log(z))).sum())

    def trust(self, y, k=5):
        y, penalty = y.astype(np.float64), 0
        for begin in range(0, self.n, BLOCK):
            here = np.arange(min(BLOCK, self.n - begin))
            away, d = squared(y[begin:begin + BLOCK], y), squared(self.x[begin:begin + BLOCK], self.x)
            away[here, begin + here] = d[here, begin + here] = np.inf
            for j in np.argpartition(away, k, 1)[:, :k].T:
                penalty += np.maximum(0, (d < d[here, j][:, None]).sum(1) + 1 - k).sum()
        return float(1 - 2 * penalty / (self.n * k * (2 * self.n - 3 * k - 1)))


def peer(args, program, points, seed, to):
    """One run of a peer, in this process."""
    x = np.load(points)
    if program == "openTSNE":
        from openTSNE import TSNE
        start = time.time()
        made = TSNE(perplexity=args.perplexity, n_jobs=args.threads, random_state=seed).fit(x)
        y, told = np.asarray(made), float(made.kl_divergence)
    else:
        from sklearn.manifold import TSNE
        start = time.time()
        made = TSNE(perplexity=args.perplexity, n_jobs=args.threads, random_state=seed, init="pca", max_iter=750).fit(x)
        y, told = made.embedding_, float(made.kl_divergence_)
    seconds = time.time() - start
    np.save(to, y)
    print(json.dumps([seconds, told]))


def ours(args, folder, method, seed, *more):
    command = [*args.prefix.split(), args.switchback, "embed", str(folder / "points.npy"), "--method", method, "--seed", str(seed), "--save", "npy",
               "--threads", str(args.threads), "--json", "--name", "result", "-o", str(folder / "out"), *more]
    start = time.time()
    made = subprocess.run(command, capture_output=True, text=True, check=True)
    return time.time() - start, json.loads(made.stdout), folder / "out"


def result(out, ending=".npy"):
    found = [p for p in out.glob("*" + ending) if ending == ".clusters.npy" or not p.name.endswith(".clusters.npy")]
    return np.load(max(found, key=lambda p: p.stat().st_mtime))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--switchback", default="build/switchback")
    parser.add_argument("--mnist", default="../shared/data/mnist")
    parser.add_argument("--points", type=int, default=10000)
    parser.add_argument("--perplexity", type=float, default=30)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--programs", default="switchback,openTSNE,scikit-learn")
    parser.add_argument("--prefix", default="")
    parser.add_argument("--out")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    if args.one:
        return peer(args, args.one[0], args.one[1], int(args.one[2]), args.one[3])
    programs = args.programs.split(",")
    x = digits(args.mnist, args.points)
    judge = Judge(x, args.perplexity)
    runs = {name: [] for name in programs}
    lines = []

    def say(text):
        print(text, flush=True)
        lines.append(text)

    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        np.save(folder / "points.npy", x)
        for seed in range(args.seeds):
            for program in programs:
                if program == "switchback":
                    seconds, told, out = ours(args, folder, "tsne", seed, "--perplexity", f"{args.perplexity:g}")
                    y = result(out)
                    told = told["kl"]
                else:
                    told = subprocess.run([*args.prefix.split(), sys.executable, __file__, "--one", program, str(folder / "points.npy"),
                                           str(seed), str(folder / "peer.npy"), "--perplexity", str(args.perplexity),
                                           "--threads", str(args.threads)], capture_output=True, text=True, check=True).stdout
                    (seconds, told), y = json.loads(told.splitlines()[-1]), np.load(folder / "peer.npy")
                runs[program].append((seconds, judge.kl(y), judge.trust(y), told))
                print(program, seed, *("%.4f" % v for v in runs[program][-1]), flush=True)
        say(f"t-SNE of {len(x):,} raw MNIST test digits, perplexity {args.perplexity:g}, 250 + 500 iterations, "
            f"{args.threads} threads, seeds 0 to {args.seeds - 1}; medians (least to largest).\n")
        say("| program | seconds | KL divergence | its own figure | trustworthiness (5) |")
        say("|---|---|---|---|---|")
        for program in programs:
            columns = list(zip(*runs[program]))
            text = ["%.*f (%.*f to %.*f)" % (d, statistics.median(c), d, min(c), d, max(c))
                    for c, d in zip((columns[0], columns[1], columns[3], columns[2]), (1, 4, 4, 4))]
            say(f"| {program} | " + " | ".join(text) + " |")
        from sklearn.cluster import KMeans
        ratios = []
        for seed in range(args.seeds):
            _, told, _ = ours(args, folder, "pca", seed, "--clusters", "10", "--restarts", "10")
            ratios.append((told["inertia"], KMeans(10, n_init=10, random_state=seed).fit(x).inertia_))
        say("\nk-means, 10 clusters, 10 restarts; inertia, ours and scikit-learn's: " +
            "; ".join("%.8g, %.8g" % pair for pair in ratios) + ".")
        # Scores of both share their span with the components: sines of the angles between them.
        _, _, out = ours(args, folder, "pca", 0, "--dims", "3")
        y = result(out).astype(np.float64)
        centred = x.astype(np.float64) - x.mean(0, dtype=np.float64)
        u = np.linalg.svd(centred, full_matrices=False)[0][:, :3]
        q = np.linalg.qr(y)[0]
        say("\nPCA, 3 components: the largest sine between the spans of our scores and numpy's is %.2g." %
            np.linalg.norm(q - u @ (u.T @ q), 2))
    if args.out:
        pathlib.Path(args.out).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
