"""weights/fetch.py against a server of our own."""

import hashlib
import http.server
import io
import os
import threading
from contextlib import redirect_stderr, redirect_stdout
from unittest import mock

import case
import convert
import fetch
from case import WEIGHTS, WithCommand
from torch_files import View, zip_checkpoint
from torch_pickle import CheckpointError


class Server(http.server.BaseHTTPRequestHandler):
    """Serves `files`; cut: how many bytes it sends of each answer; ranges: whether it knows ranges."""

    files, cut, ranges, log = {}, None, True, []

    def do_GET(self):
        data = self.files.get(self.path)
        type(self).log.append((self.path, self.headers.get("Range")))
        if data is None:
            self.send_error(404)
            return
        first = int(self.headers["Range"][6:-1]) if self.headers.get("Range") and self.ranges else 0
        if first >= len(data):
            self.send_error(416)
            return
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(data) - first))
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        self.wfile.write(data[first:][:self.cut])

    def log_message(self, *_):
        pass


class Fetching(WithCommand):
    """From a server of our own: a synthetic checkpoint of lenet, published under its hash."""

    def setUp(self):
        super().setUp()
        self.views["fc2.bias"] = View("last", self.lenet["fc2.bias"] + 1)
        zip_checkpoint(self.input, self.views)
        self.data = self.input.read_bytes()
        self.file = f"lenet-{hashlib.sha256(self.data).hexdigest()[:8]}.pth"
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
        Server.files, Server.cut, Server.ranges, Server.log = {f"/models/{self.file}": self.data}, None, True, []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        self.base = f"http://127.0.0.1:{server.server_port}/models"
        self.home = self.folder / "home"
        self.weights = self.home / ".local/share/switchback/weights"
        environment = {"HOME": str(self.home), "XDG_DATA_HOME": "", "SWITCHBACK_WEIGHTS": "", "no_proxy": "127.0.0.1"}
        published = {**fetch.PUBLISHED, "lenet": fetch.Published(self.file, 12.5, "LeCun et al. 1998")}
        for patch in (mock.patch.dict(os.environ, environment), mock.patch.object(fetch, "PUBLISHED", published),
                      mock.patch("time.sleep")):
            patch.start()
            self.addCleanup(patch.stop)

    def fetch(self, *options, name="lenet"):
        """(what it printed, None or the error)."""
        out, error = io.StringIO(), None
        with redirect_stdout(out), redirect_stderr(out):
            try:
                fetch.main([name, "--url", self.base, "--switchback", str(case.PROGRAM), "--timeout", "5", *options])
            except CheckpointError as caught:
                error = str(caught)
        return out.getvalue(), error

    def installed(self, folder=None):
        folder = folder or self.weights
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []

    def test_installs_where_the_command_looks(self):
        out, error = self.fetch()
        self.assertIsNone(error)
        self.assertIn(f"installed as {self.weights / 'lenet.safetensors'}", out)
        self.assertIn("licence: published by torchvision", out)
        self.assertEqual(self.installed(), ["lenet.safetensors", "manifest.json"])
        models = convert.ask_program(case.PROGRAM, "models")["models"]
        row = next(model for model in models if model["name"] == "lenet")["weights"][0]
        self.assertEqual(row["file"], str(self.weights / "lenet.safetensors"))
        self.assertEqual(row["source"], f"{self.base}/{self.file}")
        self.assertRegex(row["accuracy"], "^top-1 12.50 % of ImageNet")
        shipped = self.classify("--weights", WEIGHTS / "lenet.safetensors")
        self.assertEqual(self.classify()[0][0, 9], shipped[0][0, 9] + 1)  # the fetched ones are taken: fc2.bias + 1
        out, error = self.fetch()
        self.assertIn("is there already", out)
        self.assertEqual(len(Server.log), 1)

    def test_folders(self):
        with mock.patch.dict(os.environ, {"XDG_DATA_HOME": str(self.folder / "data")}):
            self.assertIn(f"installed as {self.folder}/data/switchback/weights/lenet", self.fetch()[0])
            folders = convert.ask_program(case.PROGRAM, "info")["weight_folders"]
            self.assertEqual(folders[0], f"{self.folder}/data/switchback/weights")
        with mock.patch.dict(os.environ, {"SWITCHBACK_WEIGHTS": str(self.folder / "named")}):
            self.assertIn("--model lenet` takes it", self.fetch()[0])
        out, _ = self.fetch("--folder", str(self.folder / "elsewhere"))
        self.assertIn(f"set SWITCHBACK_WEIGHTS={self.folder / 'elsewhere'}", out)

    def test_goes_on_after_an_interruption(self):
        Server.cut = 150_000
        _, error = self.fetch()
        self.assertIsNone(error)  # 3 of 4 attempts
        self.assertEqual([request for _, request in Server.log], [None, "bytes=150000-", "bytes=300000-"])
        Server.cut, Server.log = 50_000, []
        _, error = self.fetch("--force")
        self.assertRegex(error, "ended early .200000 bytes are kept, run it again to go on")
        self.assertEqual(self.installed(), [f"{self.file}.part", "lenet.safetensors", "manifest.json"])
        Server.cut, Server.ranges = None, False  # a server that begins anew each time
        _, error = self.fetch("--force")
        self.assertIsNone(error)
        self.assertEqual(self.installed(), ["lenet.safetensors", "manifest.json"])

    def test_a_complete_part_needs_no_more(self):
        self.weights.mkdir(parents=True)
        (self.weights / f"{self.file}.part").write_bytes(self.data)
        self.assertIsNone(self.fetch()[1])
        self.assertEqual(Server.log[0][1], f"bytes={len(self.data)}-")

    def test_wrong_files_are_not_installed(self):
        path = f"/models/{self.file}"
        Server.files = {path: self.data[:-1] + b"x"}
        self.assertRegex(self.fetch()[1], f"SHA-256 begins with .*, the published one with {self.file[6:14]}")
        self.assertEqual(self.installed(), [])
        Server.files = {}
        self.assertRegex(self.fetch()[1], "answered 404")
        self.assertEqual(self.installed(), [])
        zip_checkpoint(self.input, {"conv1.weight": self.views["conv1.weight"]})  # the hash fits, the network does not
        other = self.input.read_bytes()
        file = f"lenet-{hashlib.sha256(other).hexdigest()[:8]}.pth"
        Server.files = {f"/models/{file}": other}
        with mock.patch.dict(fetch.PUBLISHED, {"lenet": fetch.Published(file, 1.0, "")}):
            self.assertRegex(self.fetch()[1], "these are not weights of lenet: 7 missing")
        self.assertEqual(self.installed(), [])

    def test_offline_and_wrong_usage(self):
        closed = self.base.rsplit(":", 1)[0] + ":9"  # nobody listens there
        run = self.run_script("fetch.py", "resnet18", "--url", closed, "--switchback", case.PROGRAM)
        self.assertEqual(run.returncode, 1)
        self.assertRegex(run.stderr, r"^fetch: error: cannot download http://127.0.0.1:9/resnet18-f37072fd.pth: "
                                     r"[^\n]*refused \(is there internet\?[^\n]*\n$")
        self.assertFalse(self.home.exists())
        for arguments, pattern in ((["resnet81"], "nearest: resnet18"), ([], "which model"),
                                   (["vgg16", "--url", "file:///etc"], "http:// or https:// is wanted"),
                                   (["vgg16", "--timeout", "0"], "not positive")):
            run = self.run_script("fetch.py", *arguments)
            self.assertEqual(run.returncode, 2)
            self.assertRegex(run.stderr, pattern)

    def test_the_table(self):
        for model, published in fetch.PUBLISHED.items():
            self.assertRegex(published.file, r"^[a-z0-9_.]+(-owt)?-[0-9a-f]{8,10}\.pth$")
            family = model
            for ours, theirs in (("shufflenet_v2", "shufflenetv2"), ("netv2_x0_5", "netv2_x0.5"), ("netv2_x1_0", "netv2_x1"),
                                 ("mnasnet0_5", "mnasnet0.5"), ("mnasnet1_0", "mnasnet1.0")):
                family = family.replace(ours, theirs)
            self.assertTrue(published.file.startswith(family), model)
            self.assertIn(published.measure, ("top1", "miou"))
        self.assertEqual(len({published.file for published in fetch.PUBLISHED.values()}), len(fetch.PUBLISHED))
