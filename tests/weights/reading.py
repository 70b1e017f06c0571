"""Checkpoints of every kind that is read, and how they come out."""

import importlib.util
import json
import struct
import unittest

import numpy as np

import convert
import make_checkpoints
from case import BASE, ROOT, Case
from shipping import write_safetensors
from torch_files import Ordered, Raw, View, emit, legacy_checkpoint, name, zip_checkpoint

HAS_TORCH = importlib.util.find_spec("torch") is not None


class Reading(Case):
    def test_files_of_pytorch(self):
        for file in ("checkpoint.pth", "checkpoint_legacy.pth"):
            self.check(make_checkpoints.expected(), ROOT / "tests" / "golden" / file)

    @unittest.skipUnless(HAS_TORCH, "no PyTorch")
    def test_files_of_this_pytorch(self):
        import torch

        state = make_checkpoints.state_dict()
        for protocol in (2, 3, 4, 5):
            for zipped in (True, False):
                torch.save(state, self.input, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
                self.check(make_checkpoints.expected())

    @unittest.skipUnless(HAS_TORCH, "no PyTorch")
    def test_pytorch_reads_what_these_tests_write(self):
        import torch

        value = Ordered(a=View("0", BASE, 1, (2, 3), (1, 6)), b=View("1", BASE[0], how="parameter"))
        for write in (zip_checkpoint, legacy_checkpoint):
            write(self.input, value)
            state = torch.load(self.input, weights_only=True)
            np.testing.assert_array_equal(state["a"].numpy(), BASE.ravel()[1:].copy()[[[0, 6, 12], [1, 7, 13]]])
            np.testing.assert_array_equal(state["b"].detach().numpy(), BASE[0])

    def test_strides_offsets_and_shared_storages(self):
        value = {"whole": View("0", BASE), "turned": View("0", BASE, 0, (6, 4), (1, 6)),
                 "part": View("0", BASE, 8, (2, 3), (6, 1)), "steps": View("0", BASE, 1, (2, 2), (12, 3)),
                 "one": View("0", BASE, 23, ()), "none": View("1", BASE[:0], 0, (0, 5), (5, 1))}
        want = {"whole": BASE, "turned": BASE.T, "part": BASE[1:3, 2:5], "steps": BASE[::2, 1:5:3], "one": BASE[3, 5],
                "none": np.zeros((0, 5))}
        zip_checkpoint(self.input, value)
        self.check(want)
        legacy_checkpoint(self.input, value)
        self.check(want)
        legacy_checkpoint(self.input, {"a": View("0", BASE, 1, (2, 6), (6, 1), part=("1", 5, 13)), "b": View("0", BASE)})
        self.check({"a": BASE[1:3], "b": BASE})

    def test_types_and_byte_orders(self):
        upper = (BASE.view(np.uint32) >> 16).astype(np.uint16)
        kinds = {"f8": BASE.astype("f8"), "f4": BASE, "f2": BASE.astype("f2"), "bf16": upper,
                 "i8": np.arange(-3, 3), "u1": np.arange(250, 256, dtype="u1")}
        value = {kind: View(kind, data, element=kind) for kind, data in kinds.items()}
        want = {kind: BASE if kind == "bf16" else data.astype(np.float32) for kind, data in kinds.items()}
        for big_endian in (False, True):
            for write in (zip_checkpoint, legacy_checkpoint):
                write(self.input, value, big_endian=big_endian)
                self.check(want)

    def test_pickles_of_old_pytorch(self):
        for how in ("v1", "parameter", "old tensor", "old parameter"):
            legacy_checkpoint(self.input, {"x": View("0", BASE, 6, (3, 6), how=how)})
            self.check({"x": BASE[1:]})
        pair = b"](U\x01x" + emit(View("0", BASE), legacy=True) + b"e"
        pairs = Raw(name("collections", "OrderedDict") + b"(](" + pair + b"etR")
        legacy_checkpoint(self.input, {"state_dict": pairs, "unused": View("0", BASE)})  # as Python 2 wrote them
        self.check({"x": BASE})

    def test_wrappers_prefixes_and_what_is_dropped(self):
        count = View("1", np.array([7]), element="i8")
        state = Ordered({"module.a": View("0", BASE), "module.b.num_batches_tracked": count})
        for value in ({"state_dict": state, "epoch": 3}, {"model": {"state_dict": state}, "loss": View("2", BASE)},
                      {"model": {"depth": 18}, "weights": state},
                      {"_orig_mod." + key: view for key, view in state.items()}, {**state, "module.note": "text"}):
            zip_checkpoint(self.input, value, prefix="my model v1.0")
            self.check({"a": BASE})
        zip_checkpoint(self.input, {"ema": state, "state_dict": {"b": View("3", BASE[0])}})
        self.check({"a": BASE}, key="ema")
        self.check({"b": BASE[0]})
        zip_checkpoint(self.input, {"aux1.conv": View("0", BASE), "fc": View("1", BASE)})
        self.check({"fc": BASE}, model="googlenet")
        self.check({"aux1.conv": BASE, "fc": BASE}, model="resnet18")
        zip_checkpoint(self.input, {"AuxLogits.fc": View("0", BASE), "fc": View("1", BASE), "x.relative_position_index": View("2", BASE)})
        self.check({"fc": BASE}, model="inception_v3")

    def test_copies_beside_the_network(self):
        zip_checkpoint(self.input, {"ema.a": View("0", BASE * 0), "model.a": View("1", BASE), "teacher.a": View("2", BASE * 0)})
        summary, _ = convert.convert(self.input, self.output, "some", wanted={"a": BASE.shape})
        self.assertIn("prefix 'model.' cut off, 2 others left out", summary)

    def test_names_of_an_older_torchvision(self):
        old = {"module.denselayer1.norm.1.weight": View("0", BASE), "module.layers.0.mlp.linear_2.weight": View("1", BASE[0]),
               "module.other.norm.1.weight": View("2", BASE[1])}
        zip_checkpoint(self.input, old)
        wanted = {"denselayer1.norm1.weight": BASE.shape, "layers.0.mlp.3.weight": BASE[0].shape, "other.norm.1.weight": BASE[1].shape}
        summary, _ = convert.convert(self.input, self.output, "some", wanted=wanted)
        self.assertIn("2 names of an older torchvision made today's", summary)

    def test_numpy(self):
        arrays = {"a.weight": BASE, "b": np.asfortranarray(BASE), "c": BASE.astype(">f8"), "d": BASE.astype("f2"),
                  "e": np.array([True, False]), "f": np.float32(3)}
        for save in (np.savez, np.savez_compressed):
            with open(self.input, "wb") as file:
                save(file, **arrays)
            self.check({key: np.asarray(array, np.float32) for key, array in arrays.items()})

    def test_safetensors(self):
        arrays = {"a": BASE, "b": BASE.astype("f8"), "c": np.arange(3), "d": BASE.astype("f2"), "e": BASE[:0]}
        write_safetensors(self.input, arrays, {"format": "pt"})
        self.check({key: array.astype(np.float32) for key, array in arrays.items()})
        header = json.dumps({"x": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
        self.input.write_bytes(struct.pack("<Q", len(header)) + header + b"\x80\x3f\x20\xc0")
        self.check({"x": [1.0, -2.5]})

    def test_values_that_float32_lacks(self):
        zip_checkpoint(self.input, {"a": View("0", np.array([1e300, np.nan, 1.0]), element="f8"), "b": View("1", BASE)})
        _, warnings = convert.convert(self.input, self.output)
        self.assertRegex(warnings[0], r"1 tensors hold NaN or infinite values as float32: a$")
        zip_checkpoint(self.folder / "large", {"a": View("0", np.array([(1 << 24) + 1]), element="i8")})
        self.output.unlink()
        self.refused("integers that float32 cannot", self.folder / "large")
