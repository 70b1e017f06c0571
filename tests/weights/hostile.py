"""Files that are damaged or mean harm: clear errors, nothing run, nothing left, no memory beyond the file's size."""

import copy
import io
import json
import struct
import zipfile

import numpy as np

import convert
from case import BASE, Case
from shipping import read_safetensors, write_safetensors
from torch_files import MAGIC, Ordered, Raw, View, legacy_checkpoint, pickled, zip_checkpoint
from torch_pickle import CheckpointError


class Code(Case):
    """Pickles that would run something: never run; refused by name where they stand for weights, skipped beside them."""

    def attempt(self, opcodes, named):
        mark = self.folder / "it ran"
        command = f"touch '{mark}'".encode()
        attack = Raw(opcodes.replace(b"COMMAND", b"X" + struct.pack("<I", len(command)) + command))
        for write in (zip_checkpoint, legacy_checkpoint):
            for value in ({"state_dict": {"a": View("0", BASE), "b": attack}}, attack):
                write(self.input, value)
                self.refused(named)
            if b"\x82" in opcodes:  # EXT1 names nothing, so that nothing can be skipped
                continue
            write(self.input, {"state_dict": {"a": View("0", BASE)}, "hidden": [({"x": attack},)]})
            self.assertEqual(list(self.converted()), ["a"])
        self.assertFalse(mark.exists())

    def test_code_is_refused(self):
        self.attempt(b"cos\nsystem\n(COMMANDtR", "asks for 'os.system', which is neither a tensor nor plain data")
        self.attempt(b"cposix\nsystem\nCOMMAND\x85R", "'posix.system'")
        self.attempt(b"\x8c\x08builtins\x8c\x04eval\x93COMMAND\x85R", "'builtins.eval'")  # STACK_GLOBAL
        self.attempt(b"(COMMANDios\nsystem\n", "'os.system'")  # INST
        self.attempt(b"(cos\nsystem\nCOMMANDo", "'os.system'")  # OBJ
        self.attempt(b"\x82\x01COMMAND\x85R", "'1'|code")  # EXT1
        self.attempt(b"ctorch.nn.modules.linear\nLinear\n)\x81}b", "'torch.nn.modules.linear.Linear'")  # a model
        self.attempt(b"ctorch\nload\nCOMMAND\x85R", "'torch.load'")
        self.attempt(b"ctorch._utils\n_rebuild_tensor_v2.__globals__\nCOMMAND\x85R", "__globals__'")
        self.attempt(b"cos\nsys\x1b[2J\nCOMMAND\x85R", r"'os\.sys\\x1b\[2J'")  # no control characters on a terminal

    def test_the_attack_works_elsewhere(self):
        """These pickles do run where nothing stops them; else the tests above would show nothing."""
        import pickle
        mark = self.folder / "it ran"
        command = f"touch '{mark}'".encode()
        pickle.loads(b"\x80\x02cos\nsystem\nX" + struct.pack("<I", len(command)) + command + b"\x85R.")
        self.assertTrue(mark.exists())

    def test_calls_of_data(self):
        for opcodes in (b"}(NtR", b"X\x01\x00\x00\x00x)R", b"ctorch\nFloatStorage\n)R", b"ctorch\nSize\n}R", b"N}b",
                        b"ctorch._utils\n_rebuild_tensor_v2\n)R", b"t", b"h\x07", b"]((]NtR", b"}((NNtNu", b"NQ", b"(NNtQ"):
            zip_checkpoint(self.input, {"a": Raw(opcodes)})
            self.refused("its pickle is damaged")


class Hostile(Case):
    def refused_view(self, pattern, **lies):
        zip_checkpoint(self.input, {"x": View("0", BASE, **lies)})
        self.refused(pattern)

    def test_views_beyond_their_storage(self):
        self.refused_view("reaches to element 24 of a storage of 24", offset=1)
        self.refused_view("reaches to element 26", size=(4, 6), stride=(7, 1))
        self.refused_view("reaches to element", offset=1 << 60)
        self.refused_view("has no valid sizes", offset=-1)
        self.refused_view("has no valid sizes", size=(4, -6), stride=(6, 1))
        self.refused_view("has no valid sizes", size=(4, 6), stride=(-6, 1))
        self.refused_view("has no valid sizes", size=(4, 6), stride=(6,))
        self.refused_view("has no valid sizes", size=(1,) * 9)
        self.refused_view("has no valid sizes", size=(1 << 70, 0), stride=(1, 1))
        self.refused_view("has no valid sizes", size=(2.5,), stride=(1,))
        self.refused_view("repeats the 24 elements of its storage to 4194304", size=(1 << 22,), stride=(0,))
        self.refused_view("has 96 bytes, not the 4000000000000 of its tensors", count=10**12)
        self.refused_view("damaged", count=-1)
        self.refused_view("damaged", count=1 << 70)

    def test_storages(self):
        value = {"x": View("0", BASE)}
        zip_checkpoint(self.input, value, records={"data/0": None})
        self.refused("the record archive/data/0 is missing")
        zip_checkpoint(self.input, value, records={"data/0": b"short"})
        self.refused("has 5 bytes, not the 96 of its tensors")
        zip_checkpoint(self.input, {**value, "y": View("0", BASE, element="f8", count=12)})
        self.refused("the storage 0 has two types or sizes")
        zip_checkpoint(self.input, {"x": View("../../etc/passwd", BASE)}, records={"data/../../etc/passwd": None})
        self.refused(r"a storage is called '../../etc/passwd'")
        legacy_checkpoint(self.input, {"a": View("0", BASE, 1, (2, 6), (6, 1), part=("1", 5, 12))})
        self.refused("reaches to element 12 of a storage of 12")
        legacy_checkpoint(self.input, {"a": View("0", BASE, 1, (2, 6), (6, 1), part=("1", 5, 20))})
        self.refused("a view beyond the storage")
        legacy_checkpoint(self.input, value)
        whole = self.input.read_bytes()
        for data in (whole[:-1], whole[:-120], whole.replace(struct.pack("<q", 24), struct.pack("<q", 1 << 40))):
            self.input.write_bytes(data)
            self.refused("damaged")

    def test_zip_archives(self):
        value = {"x": View("0", BASE)}
        for path in ("/etc/passwd", "../evil", "archive/../../evil", "a\\b"):
            with zipfile.ZipFile(self.input, "w") as archive:
                archive.writestr("archive/data.pkl", pickled(value))
                archive.writestr(path, b"x")
            self.refused("names a path outside itself")
        zip_checkpoint(self.input, {"x": View("0", np.zeros(1 << 20, np.float32))}, compression=zipfile.ZIP_DEFLATED)
        self.refused("is compressed")
        zip_checkpoint(self.input, value, records={"data.pkl": None})
        self.refused("holds no PREFIX/data.pkl")
        zip_checkpoint(self.input, value, records={"constants.pkl": b""})
        self.refused("TorchScript")
        zip_checkpoint(self.input, value)
        whole = self.input.read_bytes()
        for data in (whole[:-30], whole[:100], whole.replace(BASE.tobytes(), BASE[::-1].tobytes())):  # the CRC
            self.input.write_bytes(data)
            self.refused("damaged")
        with self.assertWarns(UserWarning), zipfile.ZipFile(self.input, "w") as archive:
            archive.writestr("a.npy", b"")
            archive.writestr("a.npy", b"")
        self.refused("holds 'a.npy' twice")

    def test_overlapping_records(self):
        """Ten thousand directory entries for one record: a small file that would unpack to a large one."""
        with zipfile.ZipFile(self.input, "w") as archive:
            archive.writestr("0.npy", bytes(1 << 16))
            for i in range(1, 10000):
                archive.filelist.append(copy.copy(archive.filelist[0]))
                archive.filelist[i].filename = f"{i}.npy"
        self.refused("records overlap")

    def npz(self, data, compression=zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(self.input, "w", compression) as archive:
            archive.writestr("x.npy", data)

    def test_numpy_files(self):
        def header(text):
            return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()

        np.savez(self.folder / "objects.npz", x=np.array([{}], object))
        self.refused("holds object, not numbers", self.folder / "objects.npz")
        np.savez(self.folder / "complex.npz", x=np.ones(2, complex))
        self.refused("not numbers", self.folder / "complex.npz")
        shape = "{'descr': '<f4', 'fortran_order': False, 'shape': (%s)}\n"
        self.npz(header(shape % "1000000000000,") + bytes(16))
        self.refused("does not fill its")
        self.npz(header(shape % "-4,") + bytes(16))
        self.refused("damaged")
        self.npz(header("(" * 5000))
        self.refused("no valid header")
        self.npz(header("__import__('os').system('true')"))
        self.refused("no valid header")
        self.npz(b"\x93NUMPY\x09\x00....")
        self.refused("no valid header")
        self.npz(header(shape % f"{1 << 24},") + bytes(4 << 24))  # 64 MiB of zeros in 64 KiB
        self.refused("zip bomb")

    def test_safetensors_files(self):
        def file(header, data=bytes(8)):
            text = header if isinstance(header, bytes) else json.dumps(header).encode()
            self.input.write_bytes(struct.pack("<Q", len(text)) + text + data)

        def tensor(begin, end, shape=(1,), dtype="F32"):
            return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}

        for header in ({"a": tensor(0, 4)}, {"a": tensor(0, 8)}, {"a": tensor(0, 8, (2,)), "b": tensor(4, 8)},
                       {"a": tensor(0, 16, (4,))}, {"a": tensor(0, 8, (2,), "F99")}, {"a": tensor(0, 8, (2.0,))},
                       {"a": tensor(0, 8, (1 << 40, 1 << 40))}, {"a": 7}, {"a": tensor(8, 0, (2,))},
                       {"a": tensor(0, 8, [[1]] * 2)}, b'{"a":{},"a":{}}', b'{"a":' + b"[" * 9000, b"{\xff}"):
            file(header)
            self.refused("damaged")
        self.input.write_bytes(struct.pack("<Q", 1 << 50) + b"{}" + bytes(20))
        self.refused("a header of 1125899906842624 bytes")

    def test_other_files(self):
        for data, pattern in (
                (b"", "it has 0 bytes"), (b"\x80\x02}q\x00." + bytes(20), "none that torch.save wrote"),
                (b"<!DOCTYPE html><html></html>", "web page"), (b"\x89HDF\r\n\x1a\n" + bytes(20), "HDF5"),
                (b"\x93NUMPY" + bytes(20), "single .npy"), (bytes(257) + b"ustar" + bytes(300), "tar file"),
                (b"hello, this is text", "none of .pth"), (b"PK\x03\x04" + bytes(40), "damaged"),
                (pickled(MAGIC) + pickled(1002) + bytes(9), "none that torch.save wrote")):
            self.input.write_bytes(data)
            self.refused(pattern)
        self.refused("no such file", self.folder / "nothing")

    def test_other_values(self):
        view = View("0", BASE)
        for value, pattern in (({}, "holds no state dict"), ([view], "it holds a list"), (view, "it holds a Tensor"),
                               ({"a": 1}, "holds no state dict .it holds a;"), ({7: view}, "'7' is no name"),
                               ({"a\n\x1b": view}, r"'a\\n\\x1b' is no name"), ({"__metadata__": view}, "is no name"),
                               ({"\ud800": view}, "is no name"), ({"": view}, "is no name"),
                               ({"bn.num_batches_tracked": view}, "holds no weights")):
            zip_checkpoint(self.input, value)
            self.refused(pattern)
        zip_checkpoint(self.input, {"state_dict": {"a": View("0", BASE)}})
        self.refused("holds no dict 'ema'", key="ema")

    def test_memory_and_time(self):
        """Small files that ask for much: each must be refused within 1 GiB of address space and a few seconds."""
        doubling = b"(" + b"N\x85" + b"q\x01h\x01\x86" * 3000 + b"Nd"  # a tuple of 2^3000 leaves as the key of a dict
        attacks = {
            "memo": b"Nr\xff\xff\xff\xff",
            "text": b"\x8d" + struct.pack("<Q", 1 << 62),
            "bytes": b"\x8e" + struct.pack("<Q", (1 << 63) - 1),
            "number": b"\x8b" + struct.pack("<i", (1 << 31) - 1),
            "key": b"}N" + b"q\x01h\x01\x86" * 3000 + b"Ns",
            "dict": doubling,
            "name": b"N" + b"q\x01h\x01\x86" * 200 + b"X\x01\x00\x00\x00x\x93",
            "copies": b"](" + b"N" * 100000 + b"eq\x01" + b"ctorch\nSize\nq\x02" + b"h\x02h\x01\x85R" * 100000,
            "deep": b"]" * 1000000 + b"a" * 999999}
        for attack, opcodes in attacks.items():
            zip_checkpoint(self.folder / attack, {"a": Raw(opcodes)})
        run = self.run_limited(sorted(attacks), memory=1 << 30, seconds=30)
        self.assertEqual(run.returncode, 0, run.stderr[-500:])
        self.assertEqual([line.split(":")[0] for line in run.stdout.splitlines()], sorted(attacks), run.stdout)
        self.assertNotIn("memory", run.stdout)

    def test_flipped_bytes(self):
        """Whatever is flipped, cut or doubled: an error of ours or an answer, nothing else, and no partial file."""
        seeds = []
        for index, write in enumerate((zip_checkpoint, legacy_checkpoint)):
            write(self.input, {"state_dict": Ordered(a=View("0", BASE), b=View("1", BASE[0], how="parameter"))})
            seeds.append(self.input.read_bytes())
        buffer = io.BytesIO()
        np.savez_compressed(buffer, a=BASE, b=BASE[0])
        seeds.append(buffer.getvalue())
        write_safetensors(self.input, {"a": BASE, "b": BASE[0].astype("f8")})
        seeds.append(self.input.read_bytes())
        random = np.random.default_rng(1)
        answers = 0
        for round_ in range(800):
            data = bytearray(seeds[round_ % 4])
            for _ in range(random.integers(1, 4)):
                at = int(random.integers(len(data)))
                if random.integers(8) == 0:
                    data[at:at + int(random.integers(1, 40))] = b""
                else:
                    data[at] = int(random.choice([0, 1, 0x7F, 0x80, 0xFF, random.integers(256)]))
            self.input.write_bytes(data)
            try:
                convert.convert(self.input, self.output)
                answers += 1
                read_safetensors(self.output)
                self.output.unlink()
            except CheckpointError:
                pass
            self.assertEqual([path.name for path in self.folder.iterdir()], ["input"])
        self.assertGreater(answers, 0)
        self.assertLess(answers, 800)
