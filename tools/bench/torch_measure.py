"""What the benchmarks measure in PyTorch's process: time of a way, peak memory; and what both sides read, images."""

import ctypes
import gc
import re
import statistics
import time

import torch

import torch_nets as nets


def median_ms(work, repeat, seconds):
    """Of up to `repeat` runs, fewer when `seconds` are over; the first run is not counted."""
    work()
    times = []
    while not times or len(times) < repeat and sum(times) < seconds:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def by_threads(work, request):
    """{threads: ms} with one thread and with all: small networks are faster with one. With all alone where the request
    says so."""
    threads, found = torch.get_num_threads(), {}
    try:
        for count in {threads} if request.get("threads") == "all" else sorted({1, threads}):
            torch.set_num_threads(count)
            found[count] = median_ms(work, request["repeat"], request["seconds"])
    finally:
        torch.set_num_threads(threads)
    return found


def status(field):
    with open("/proc/self/status") as file:
        return int(re.search(rf"{field}:\s+(\d+) kB", file.read()).group(1)) * 1024


def peak_of(work):
    """Peak memory of the work beyond what the process holds before it."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what loading left free must not hide what the run takes
    with open("/proc/self/clear_refs", "w") as file:  # VmHWM starts again from what is held now
        file.write("5")
    before = status("VmRSS")
    work()
    return dict(bytes=status("VmHWM") - before, held_before=before)


def read_array(path):
    import numpy as np
    return torch.from_numpy(np.load(path))


def read_input(path, precision, layout):
    """Images [N,C,H,W] as the model takes them."""
    return read_array(path).to(nets.DTYPES[precision]).contiguous(memory_format=nets.memory_format(layout))


def write_image(path, shape, seed):
    """Photo-like random images: coarse patches and noise. f32, NCHW."""
    import numpy as np
    n, c, h, w = shape
    rng = np.random.default_rng(seed)
    coarse = rng.standard_normal((n, c, -(-h // 8), -(-w // 8)))
    image = np.kron(coarse, np.ones((1, 1, 8, 8)))[:, :, :h, :w] + 0.3 * rng.standard_normal(shape)
    np.save(path, image.astype(np.float32))
