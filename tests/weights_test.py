#!/usr/bin/env python3
"""Tests of weights/convert.py and weights/fetch.py: checkpoints of every kind, hostile ones, and a local server.

    python3 tests/weights_test.py [--switchback build/switchback] [CLASS[.test] ...]

Needs numpy. With PyTorch at hand, files of its own torch.save are compared as well. The tests are in tests/weights/."""

import argparse
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "weights"))

import case  # noqa: E402
from command import Command  # noqa: E402, F401
from fetching import Fetching  # noqa: E402, F401
from hostile import Code, Hostile  # noqa: E402, F401
from reading import Reading  # noqa: E402, F401


def main():
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--switchback", type=Path, default=case.PROGRAM)
    args, rest = parser.parse_known_args()
    case.PROGRAM = args.switchback.resolve()
    unittest.main(argv=[sys.argv[0], *rest])


if __name__ == "__main__":
    main()
