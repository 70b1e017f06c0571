"""What the tests of weights/ share: a folder for each test, how to run the scripts, where the command is."""

import os
import resource
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / "weights"), str(ROOT / "tests" / "golden")]

import convert  # noqa: E402
import make_checkpoints  # noqa: E402
from shipping import WEIGHTS, read_safetensors  # noqa: E402
from torch_files import Ordered, View  # noqa: E402
from torch_pickle import CheckpointError  # noqa: E402

PROGRAM = ROOT / "build" / "switchback"  # or what weights_test.py --switchback says
BASE = make_checkpoints.BASE


class Case(unittest.TestCase):
    """A folder of its own for each test."""

    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)
        self.input, self.output = self.folder / "input", self.folder / "output.safetensors"

    def converted(self, path=None, **options):
        convert.convert(path or self.input, self.output, **options)
        return read_safetensors(self.output)[0]

    def check(self, want, path=None, **options):
        got = self.converted(path, **options)
        self.assertEqual(set(got), set(want))
        for key, array in want.items():
            self.assertEqual(got[key].dtype, np.float32)
            self.assertEqual(got[key].shape, np.shape(array), key)
            np.testing.assert_array_equal(got[key], array, key)

    def refused(self, pattern, path=None, **options):
        """The error must be one line that matches, and no file may be left."""
        before = sorted(self.folder.iterdir())
        with self.assertRaisesRegex(CheckpointError, pattern) as caught:
            convert.convert(path or self.input, self.output, **options)
        self.assertNotIn("\n", str(caught.exception))
        self.assertEqual(sorted(self.folder.iterdir()), before)

    def run_script(self, script, *arguments):
        return subprocess.run([sys.executable, WEIGHTS / script, *map(str, arguments)], capture_output=True, text=True,
                              timeout=60)

    def run_limited(self, names, memory, seconds):
        """Converts files of the folder in a process with so much address space; it prints "NAME: ERROR" for each."""
        code = ("import convert, sys\nfor name in sys.argv[1:]:\n  try: convert.convert(name, 'out')\n"
                "  except convert.CheckpointError as error: print(error)")
        return subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, timeout=seconds,
                              cwd=self.folder, env={**os.environ, "PYTHONPATH": str(WEIGHTS), "OPENBLAS_NUM_THREADS": "1"},
                              preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (memory, memory)))


class WithCommand(Case):
    """With the switchback command, and views of the shipped LeNet's weights."""

    def setUp(self):
        super().setUp()
        self.lenet, _ = read_safetensors(WEIGHTS / "lenet.safetensors")
        self.views = Ordered({key: View(str(i), array) for i, (key, array) in enumerate(self.lenet.items())})

    def classify(self, *weights):
        digits = [WEIGHTS / "samples" / f"digit_{i}.png" for i in range(10)]
        run = subprocess.run([PROGRAM, "classify", *digits, "--model", "lenet", "--save", "npy", "-o",
                              self.folder / "maps", *weights], capture_output=True, text=True)
        self.assertEqual(run.returncode, 0, run.stderr)
        return [np.load(self.folder / "maps" / f"digit_{i}.classify.npy") for i in range(10)]
