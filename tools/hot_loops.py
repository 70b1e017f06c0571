"""Instructions that a warp issues in the kernels' hot loops: counted without a GPU, in the machine code for Hopper that lies
in a build's objects, and held to the committed table kernels/hot_loops.txt. `tools/cuda_resources.py BUILD --loops` does it.

A count is of the shortest way once round a loop that does all its work (what happens once in a while, as the step to the
next tap, is not on it), or, where there is no loop, of the shortest way through the code that does it."""

import importlib.util
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

TABLE = Path(__file__).resolve().parent.parent / "kernels/hot_loops.txt"
ARCH = "sm_90a"
SLACK = 0.03  # a count may be that much larger than the table's: what the assembler does otherwise with the same idea


@dataclass(frozen=True)
class Hot:
    """`kernel`: how its name in the table of resources begins. `work`: what one round does, as (opcode, times); opcodes by
    their beginning."""
    name: str
    file: str
    kernel: str
    work: tuple


def gemm(bm, bn, wm, wn, ring):
    return f"gemm_kernel<GemmTile<{bm}, {bn}, {wm}, {wn}>, {ring}, 16, false, "


CHUNK = (("FFMA", 512),)
ROWS = (("STG.E.128", 2), ("STG.E.U8", 2))  # from the store of 8 pixels of 32 channels to the gates of the next 8


def step(copies):
    return ("HMMA", 64), ("LDGSTS", copies)


LARGEST, TALL = gemm(128, 128, 64, 64, 4), gemm(128, 64, 64, 64, 4)
HOT = (
    Hot("bf16 128x128, a step: 64 HMMA", "gemm_bf16.cu", LARGEST, step(8)),
    Hot("bf16 128x64, a step: 64 HMMA", "gemm_bf16.cu", TALL, step(12)),
    Hot("tf32 128x128, a step: 64 HMMA", "gemm_tf32.cu", LARGEST, step(8)),
    Hot("tf32 128x64, a step: 64 HMMA", "gemm_tf32.cu", TALL, step(12)),
    Hot("bf16 128x128, adding up segments: 64 HMMA", "gemm_bf16.cu", gemm(128, 128, 64, 64, 3).replace("false", "true"),
        step(8)),
    Hot("f32 128x128, 4 of K: 512 FFMA", "gemm_f32.cu", gemm(128, 128, 64, 64, 3), CHUNK),
    Hot("f32 128x64, 4 of K: 512 FFMA", "gemm_f32.cu", gemm(128, 64, 64, 64, 3), CHUNK),
    Hot("f32 128x128, a step with 4 of K", "gemm_f32.cu", gemm(128, 128, 64, 64, 3), (*CHUNK, ("LDGSTS", 8))),
    Hot("bf16 128x128, end of 8 pixels, gates of 16", "gemm_bf16.cu", LARGEST, ROWS),
    Hot("first layer f32, a tap", "conv_first.cu", "first_forward_kernel<float, 3, 2>", (("FFMA", 96),)),
    Hot("first layer f32, end with gates", "conv_first.cu", "first_forward_kernel<float, 3, 2>",
        (("VOTE", 32), ("STG", 34))),
    Hot("first layer bf16, 16 pixels with gates", "conv_first_mma.cu", "first_forward_mma_kernel<bf16, 2>",
        (("HMMA", 24), ("STG.E.128", 4), ("STG.E.U8", 4))),
    Hot("first layer bf16 back, 16 pixels: 16 HMMA", "conv_first_mma.cu", "first_backward_mma_kernel<bf16, 3>",
        (("HMMA", 16), ("STS", 16))),
)


def cuobjdump(build):
    """Beside the build's nvcc, in a Python package (triton; nvidia-cuda-cuobjdump with nvidia-cuda-nvdisasm) or on PATH;
    None where there is none."""
    cache = (build / "CMakeCache.txt").read_text()
    nvcc = re.search(r"^SWITCHBACK_NVCC:\w+=(.*)$", cache, re.MULTILINE)
    places = [Path(nvcc[1]).parent] if nvcc else []
    for package, inside in (("triton", "backends/nvidia/bin"), ("nvidia", "*/bin")):
        spec = importlib.util.find_spec(package)
        for root in (spec.submodule_search_locations or ()) if spec else ():
            places += sorted(Path(root).glob(inside))
    for place in places:
        if found := shutil.which("cuobjdump", path=place):
            return found
    return shutil.which("cuobjdump")


@dataclass(frozen=True)
class Instruction:
    address: int
    opcode: str
    text: str

    @property
    def whole(self):  # the opcode with what qualifies it
        return OPCODE.match(self.text)[0].split()[-1]


INSTRUCTION = re.compile(r"^\s*/\*([0-9a-f]{4,})\*/\s+(.*?)\s*;", re.MULTILINE)
OPCODE = re.compile(r"^(?:@!?\w+ +)?([A-Z0-9_]+)[A-Z0-9_.]*")
ADDRESS = re.compile(r"0x([0-9a-f]+)\b")


def functions(sass):
    """symbol -> its instructions, of what cuobjdump prints."""
    parts = re.split(r"^\s*Function : (\S+)\s*$", sass, flags=re.MULTILINE)
    return {symbol: [Instruction(int(at, 16), OPCODE.match(text)[1], text) for at, text in INSTRUCTION.findall(body)]
            for symbol, body in zip(parts[1::2], parts[2::2])}


def successors(code):
    """For each instruction the indices of those that may follow it, where the lanes of a warp stay together (BRA.DIV, which
    branches where they don't, falls through)."""
    index = {instruction.address: i for i, instruction in enumerate(code)}
    meeting, after = {}, []  # where lanes meet again, by barrier register
    for i, instruction in enumerate(code):
        fall = [i + 1] if i + 1 < len(code) else []
        target = ADDRESS.findall(instruction.text)
        target = [index[int(target[-1], 16)]] if target and int(target[-1], 16) in index else []
        guarded = instruction.text.startswith("@")
        if instruction.opcode == "BSSY":
            meeting[re.search(r"\bB\d+", instruction.text)[0]] = target
            after.append(fall)
        elif instruction.opcode == "BSYNC":
            after.append(meeting.get(re.search(r"\bB\d+", instruction.text)[0], fall) + (fall if guarded else []))
        elif instruction.text.startswith("BRA.DIV"):
            after.append(fall)
        elif instruction.opcode == "BRA":
            conditional = guarded or re.search(r"BRA\S* +!?U?P\d", instruction.text)
            after.append(target + (fall if conditional else []))
        elif instruction.opcode in ("EXIT", "RET", "BRX", "JMX"):
            after.append(fall if guarded else [])
        else:
            after.append(fall)
    return after


@dataclass
class Piece:
    """Instructions that follow each other whatever happens."""
    length: int
    work: tuple
    after: list  # pieces


def pieces_of(code, work):
    after = successors(code)
    leaders = {0} | {j for i, to in enumerate(after) if to != [i + 1] for j in to}
    leaders |= {i + 1 for i, to in enumerate(after) if to != [i + 1] and i + 1 < len(code)}
    starts = sorted(leaders)
    number = {first: k for k, first in enumerate(starts)}
    return [Piece(end - first,
                  tuple(sum(i.whole.startswith(opcode) for i in code[first:end]) for opcode, _ in work),
                  [number[j] for j in after[end - 1]])
            for first, end in zip(starts, starts[1:] + [len(code)])]


def shortest(pieces, start, last, work):
    """Instructions of the shortest way from the beginning of piece `start` to the end of piece `last` that does `work`
    exactly, or None. Ways go downwards only: inner loops are passed once."""
    wanted = tuple(times for _, times in work)
    ways = {start: {tuple(0 for _ in work): 0}}
    for k in range(start, last + 1):
        for before, length in ways.pop(k, {}).items():
            done, length = tuple(map(sum, zip(before, pieces[k].work))), length + pieces[k].length
            if any(a > b for a, b in zip(done, wanted)) or (k == last and done != wanted):
                continue
            if k == last:
                return length
            for j in pieces[k].after:
                if k < j <= last:
                    there = ways.setdefault(j, {})
                    there[done] = min(there.get(done, length), length)
    return None


def count(code, work):
    """Of the loops that can do `work` in one round, the shortest round; where there is none, the shortest way from a piece
    with such an instruction to one with the last of them. None where that is nowhere."""
    pieces = pieces_of(code, work)
    rounds = [shortest(pieces, j, k, work) for k, piece in enumerate(pieces) for j in piece.after if j <= k]
    if not any(rounds):
        at_work = [k for k, piece in enumerate(pieces) if any(piece.work)]
        rounds = [shortest(pieces, j, k, work) for j in at_work for k in at_work if j <= k]
    return min((length for length in rounds if length), default=None)


def counts(build, rows):
    """Hot.name -> count, or None where the machine code does no such work. `rows`: those of tools/cuda_resources.py."""
    tool, found = cuobjdump(build), {}
    for file in sorted({hot.file for hot in HOT}):
        symbols = {hot: row["symbol"] for hot in HOT if hot.file == file for row in rows
                   if row["file"] == file and row["arch"] == ARCH and row["kernel"].startswith(hot.kernel)}
        if not symbols:
            continue
        (built,) = build.glob(f"kernels/CMakeFiles/switchback_kernels.dir/*/{file}.o")
        command = [tool, "-sass", "-arch", ARCH, "-fun", ",".join(sorted(set(symbols.values()))), str(built)]
        code = functions(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True,
                                        env={**os.environ, "NVDISASM_PATH": str(Path(tool).parent)}).stdout)
        found |= {hot.name: count(code[symbol], hot.work) if symbol in code else None for hot, symbol in symbols.items()}
    return {hot.name: found.get(hot.name) for hot in HOT}


def read_table():
    """(nvcc release, name -> count)"""
    lines = TABLE.read_text().splitlines() if TABLE.exists() else []
    release = next((line.removeprefix("# nvcc ") for line in lines if line.startswith("# nvcc ")), "")
    return release, {name: int(number) for name, number in (l.rsplit(maxsplit=1) for l in lines if not l.startswith("#"))}


def write_table(release, found):
    width = max(map(len, found))
    TABLE.write_text(f"# Instructions of a warp on {ARCH}; see tools/hot_loops.py. `tools/cuda_resources.py BUILD "
                     f"--update-loops` writes this.\n# nvcc {release}\n"
                     + "".join(f"{name:<{width}} {number:>5}\n" for name, number in found.items()))


def compare(release, found):
    """(lines to print, what is wrong)"""
    table_release, table = read_table()
    lines = [f"{'hot loop, ' + ARCH:<44} {'now':>5} {'table':>6}"]
    lines += [f"{name:<44} {found[name] or '-':>5} {table.get(name, '-'):>6}" for name in found]
    wrong = [f"{name}: its work was not found in the machine code; describe it anew in tools/hot_loops.py"
             for name in found if not found[name]]
    if release != table_release:
        lines.append(f"not compared: this is nvcc {release}, and the table's {table_release}")
        return lines, wrong
    for name in found:
        if found[name] and name not in table:
            wrong.append(f"{name}: not in {TABLE.name}; add it with --update-loops")
        elif found[name] and found[name] > table[name] * (1 + SLACK):
            wrong.append(f"{name}: {found[name]} instructions where there were {table[name]}, over {100 * SLACK:.0f} % more")
    if any(found[name] and found[name] < table.get(name, 0) for name in found):
        lines.append("some are shorter than in the table: --update-loops keeps that")
    return lines, wrong
