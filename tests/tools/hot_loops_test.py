#!/usr/bin/env python3
"""tools/hot_loops.py on a few lines of machine code: what a round takes, and what the table lets through."""

import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
import hot_loops


def sass(name, *lines):
    """As cuobjdump prints it, 16 bytes an instruction; LABEL: marks the next one."""
    labels, code = {}, []
    for line in lines:
        if line.endswith(":"):
            labels[line[:-1]] = f"{16 * len(code):#x}"
        else:
            code.append(line)
    text = f"\t\tFunction : {name}\n"
    for i, line in enumerate(code):
        words = [labels.get(word, word) for word in line.split()]
        text += f"        /*{16 * i:04x}*/                   {' '.join(words)} ;   /* 0x000000ff017b82 */\n"
        text += "                                                         /* 0x000fe20000000800 */\n"
    return text


LOOP = sass("loop", "MOV R1, R2", "HMMA.16816.F32 R4, R8, R12, R4",
            "top:", "LDSM.16.M88.4 R8, [R20]", "@P0 BRA skip", "LDGSTS.E.128 [R1], desc[UR4][R2.64]",
            "ISETP.NE.AND P1, PT, R3, RZ, PT", "@P1 BRA skip",  # the next tap, once in a while
            "IMAD R3, R4, R5, R6", "IMAD R3, R4, R5, R6",
            "skip:", "HMMA.16816.F32 R4, R8, R12, R4", "@!P2 HMMA.16816.F32 R4, R8, R12, R4", "@P3 BRA top", "EXIT")
END = sass("end", "FADD R1, R2, R3", "@!P0 EXIT", "BSSY B0, meet", "@P1 BRA other", "VOTE.ANY R4, PT, P2",
           "STG.E desc[UR4][R2.64], R4", "BSYNC B0",
           "other:", "IADD3 R1, R2, R3, RZ", "VOTE.ANY R4, PT, P2", "VOTE.ANY R4, PT, P2", "STG.E desc[UR4][R2.64], R4",
           "meet:", "BRA.DIV UR4, apart", "VOTE.ANY R4, PT, P2", "STG.E desc[UR4][R2.64], R4", "EXIT",
           "apart:", "VOTE.ANY R4, PT, P2", "BRA meet")


class Counts(unittest.TestCase):
    def count(self, text, *work):
        (code,) = hot_loops.functions(text).values()
        return hot_loops.count(code, work)

    def test_a_round_does_its_work_by_the_shortest_way(self):
        self.assertEqual(self.count(LOOP, ("HMMA", 2), ("LDGSTS", 1)), 8)  # neither the next tap nor what is before
        self.assertEqual(self.count(LOOP, ("HMMA", 2), ("LDGSTS", 0)), 5)
        self.assertIsNone(self.count(LOOP, ("HMMA", 4)))

    def test_code_without_a_loop(self):
        # VOTE, STG and BSYNC of the first piece; BRA.DIV, VOTE, STG, EXIT of the last: lanes stay together.
        self.assertEqual(self.count(END, ("VOTE", 2), ("STG", 2)), 7)
        self.assertEqual(self.count(END, ("VOTE", 3), ("STG", 2)), 8)
        self.assertIsNone(self.count(END, ("VOTE", 9)))

    def test_the_table(self):
        with tempfile.TemporaryDirectory() as folder:
            hot_loops.TABLE = Path(folder) / "table.txt"
            hot_loops.write_table("release 13.0", {"a step": 100, "an end": 50})
            same = {"a step": 103, "an end": 49}
            self.assertEqual(hot_loops.compare("release 13.0", same)[1], [])
            self.assertIn("--update-loops", hot_loops.compare("release 13.0", same)[0][-1])
            for found, said in (({"a step": 104, "an end": 50}, "a step: 104 instructions where there were 100"),
                                ({"a step": None, "an end": 50}, "a step: its work was not found"),
                                ({"new": 1, "an end": 50}, "new: not in table.txt")):
                (wrong,) = hot_loops.compare("release 13.0", found)[1]
                self.assertIn(said, wrong)
            lines, wrong = hot_loops.compare("release 13.1", {"a step": 200, "an end": 50})
            self.assertEqual((lines[-1], wrong), ("not compared: this is nvcc release 13.1, and the table's release 13.0", []))


if __name__ == "__main__":
    unittest.main()
