"""Philox4x32-10 in numpy (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011), the weights
`random:SEED` and the noise that the engine must reproduce."""

import math
import zlib

import numpy as np

# Known answers of the published test file kat_vectors (Random123): counter, key, words.
KNOWN_ANSWERS = [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    ([0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344], [0xA4093822, 0x299F31D0],
     [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]),
]


def philox(counter, key):
    """counter: four arrays (or numbers) of 32-bit words, key: two numbers; returns uint32 [..., 4]."""
    low = np.uint64(0xFFFFFFFF)
    c0, c1, c2, c3 = np.broadcast_arrays(*[np.asarray(c, np.uint64) for c in counter])
    k0, k1 = int(key[0]), int(key[1])
    shift = np.uint64(32)
    for _ in range(10):
        p0, p1 = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (p1 >> shift) ^ c1 ^ np.uint64(k0), p1 & low, (p0 >> shift) ^ c3 ^ np.uint64(k1), p0 & low
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], -1).astype(np.uint32)


def key_of(seed):
    return seed & 0xFFFFFFFF, seed >> 32


def self_check():
    for counter, key, words in KNOWN_ANSWERS:
        got = philox(counter, key).tolist()
        assert got == words, f"philox {counter} {key}: {got}, published {words}"


def uniform(seed, name, count):
    """v in [-1, 1), float32, for elements 0..count-1 of the parameter `name`."""
    block = np.arange((count + 3) // 4, dtype=np.uint64)
    tag = zlib.crc32(name.encode())
    words = philox((block & np.uint64(0xFFFFFFFF), block >> np.uint64(32), tag, 0x80000000), key_of(seed))
    u = (words.ravel()[:count] >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)
    return np.float32(2) * u - np.float32(1)  # exact in float32


def random_parameter(seed, name, kind, shape):
    """kind: conv.weight, linear.weight, bias (of either), bn.weight, bn.bias, bn.running_mean, bn.running_var."""
    v = uniform(seed, name, math.prod(shape)).reshape(shape)
    one = np.float32(1)
    if kind in ("conv.weight", "linear.weight"):
        value = v * np.float32(math.sqrt(6.0 / math.prod(shape[1:])))
    elif kind in ("bias", "bn.bias", "bn.running_mean"):
        value = v * np.float32(0.1)
    elif kind == "bn.weight":
        value = one + np.float32(0.25) * v
    elif kind == "bn.running_var":
        value = one + np.float32(0.5) * v
    else:
        raise ValueError(kind)
    assert value.dtype == np.float32
    return value


def noise_block(seed, image, sample, block):
    """The four words and the four normals (float64) of elements 4·block .. 4·block+3."""
    words = philox((block & 0xFFFFFFFF, block >> 32, sample, image), key_of(seed))
    u = [((int(w) >> 8) + 0.5) * 2.0**-24 for w in words]
    normals = []
    for u1, u2 in ((u[0], u[1]), (u[2], u[3])):
        r = math.sqrt(-2 * math.log(u1))
        normals += [r * math.cos(2 * math.pi * u2), r * math.sin(2 * math.pi * u2)]
    return words.tolist(), normals


def golden_noise():
    """What noise.json holds."""
    noise = []
    for seed in (0, 0x123456789ABCDEF):
        for image in (0, 1):
            for sample in (0, 1):
                words, normals = [], []
                for block in range(3):
                    w, n = noise_block(seed, image, sample, block)
                    words += w
                    normals += n
                noise.append(dict(seed=seed, image=image, sample=sample, first_element=0, words=words, normals=normals))
    # Beyond 2^32 blocks the second counter word counts; images stay below 2^31.
    for seed, image, sample, block in ((7, 0x7FFFFFFF, 49, 150527 // 4), (7, 3, 0xFFFFFFFF, (1 << 32) + 5)):
        words, normals = noise_block(seed, image, sample, block)
        noise.append(dict(seed=seed, image=image, sample=sample, first_element=4 * block, words=words, normals=normals))
    weights = []
    for seed in (0, 1, 0x123456789ABCDEF):
        for name, kind, shape in (
            ("features.0.weight", "conv.weight", (8, 3, 3, 3)), ("features.0.bias", "bias", (8,)),
            ("layer3.0.conv1.weight", "conv.weight", (32, 16, 3, 3)),
            ("classifier.6.weight", "linear.weight", (10, 512)), ("classifier.6.bias", "bias", (10,)),
            ("bn1.weight", "bn.weight", (8,)), ("bn1.bias", "bn.bias", (8,)),
            ("bn1.running_mean", "bn.running_mean", (8,)), ("bn1.running_var", "bn.running_var", (8,)),
        ):
            value = random_parameter(seed, name, kind, shape).ravel()
            at = sorted({0, 1, 2, 3, 4, 5, len(value) - 2, len(value) - 1})
            weights.append(dict(seed=seed, name=name, kind=kind, shape=shape, elements=at,
                                values=[float(value[i]) for i in at]))
    known = [dict(counter=c, key=k, words=w) for c, k, w in KNOWN_ANSWERS]
    return dict(philox=known, noise=noise, weights=weights)
