"""weights/convert.py with the switchback command."""

import numpy as np

import case
import convert
from case import BASE, WEIGHTS, WithCommand
from torch_files import View, legacy_checkpoint, zip_checkpoint


class Command(WithCommand):
    """Architectures, and networks that run with converted weights."""

    def convert(self, *options):
        return self.run_script("convert.py", self.input, self.output, "--switchback", case.PROGRAM, *options)

    def test_converted_weights_give_the_same_logits(self):
        want = self.classify("--weights", WEIGHTS / "lenet.safetensors")
        for write in (zip_checkpoint, legacy_checkpoint):
            write(self.input, {"model": {f"module.{key}": view for key, view in self.views.items()}})
            run = self.convert("--model", "lenet")
            self.assertEqual(run.returncode, 0, run.stderr)
            self.assertIn("8 tensors, 0.4 MiB", run.stdout)
            self.assertIn("names and shapes are those of lenet", run.stdout)
            self.assertEqual(run.stderr, "")
            for a, b in zip(want, self.classify("--weights", self.output)):
                np.testing.assert_array_equal(a, b)

    def test_other_architectures_are_refused(self):
        changed = {key: view for key, view in self.views.items() if key != "fc1.bias"}
        changed["fc2.weight"] = View("fc2", BASE)
        changed["fc3.weight"] = View("fc3", BASE)
        zip_checkpoint(self.input, changed)
        run = self.convert("--model", "lenet")
        self.assertEqual(run.returncode, 1)
        for part in ("these are not weights of lenet", "1 missing: fc1.bias", "1 surplus: fc3.weight",
                     "1 misshapen: fc2.weight is [4, 6], should be [10, 200]"):
            self.assertIn(part, run.stderr)
        self.assertEqual(len(run.stderr.splitlines()), 1)
        self.assertFalse(self.output.exists())
        run = self.convert("--model", "vgg11")
        self.assertRegex(run.stderr, r"22 missing: features.0.weight, .*, …; 8 surplus: ")

    def test_batch_norm_shapes(self):
        wanted = convert.architecture(case.PROGRAM, "resnet18")
        self.assertEqual(wanted["bn1.running_var"], (64,))
        self.assertEqual(wanted["layer4.0.downsample.0.weight"], (512, 256, 1, 1))
        self.assertEqual(len(wanted), 102)
        entries = {key: convert.Entry(shape, "f4", None) for key, shape in wanted.items()}
        convert.check_architecture(entries, wanted, "resnet18")

    def test_wrong_usage(self):
        zip_checkpoint(self.input, self.views)
        for options, pattern in ((("--model", "lenett"), "convert: error: unknown model 'lenett' .nearest: lenet"),
                                 (("--key", "ema"), "holds no dict 'ema'"), (("--nothing",), "unrecognized")):
            run = self.convert(*options)
            self.assertEqual(run.returncode, 2, run.stderr)
            self.assertRegex(run.stderr, pattern)
        run = self.run_script("convert.py", self.input, self.output, "--model", "lenet", "--switchback", "/nothing")
        self.assertEqual(run.returncode, 2)
        self.assertIn("/nothing is not there", run.stderr)
        run = self.run_script("convert.py", self.input, self.folder / "x.pth")
        self.assertEqual(run.returncode, 2)
        run = self.run_script("convert.py", self.input, self.folder / "no" / "folder.safetensors")
        self.assertEqual(run.returncode, 1)
        self.assertRegex(run.stderr, r"^convert: error: [^\n]*No such file or directory\n$")
        self.assertEqual([path.name for path in self.folder.iterdir()], ["input"])
