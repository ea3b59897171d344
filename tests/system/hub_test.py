"""Models by the name they have on a hub: from the cache that the ecosystem shares, and fetched from a real HTTP server on loopback."""

import hashlib
import http.server
import json
import subprocess
import threading
import unittest
from pathlib import Path

from harness import ENVIRONMENT, PROGRAM, SystemTest

COMMIT, OLDER = "a" * 40, "b" * 40
TOKEN = "hf_SecretOfTheTest"


def git_digest(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Hub(http.server.ThreadingHTTPServer):
    """The addresses of the hub's API that fetching a model needs. Safetensors are large files: a redirect to another host's address."""

    def __init__(self, repositories):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories = repositories  # {repository: {commit: {path: content}}}; "main" is COMMIT
        self.requests = []  # (path, token or None, first byte)
        self.cut_after = None  # bytes of a large file, once
        self.damage = False  # of a large file
        self.private = False
        self.ranges = True
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, *_):
        pass  # a client that has what it wants

    @property
    def endpoint(self):
        return f"http://localhost:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, content=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self):
        hub = self.server
        path = self.path.partition("?")[0]
        first = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        hub.requests.append((path, self.headers.get("Authorization"), first))
        if path.startswith("/large/"):
            return self.large(Path(path).name, first)
        if hub.private and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer(401, b"{}")
        words = path.strip("/").split("/")
        if words[:2] == ["api", "models"]:
            return self.listing("/".join(words[2:4]), words[5].replace("%2F", "/"))
        repository, (_, commit, *file) = "/".join(words[:2]), words[2:]
        content = hub.repositories[repository][commit]["/".join(file)]
        if file[-1].endswith(".safetensors"):
            # By its number: another host than localhost.
            return self.answer(302, Location=f"http://127.0.0.1:{hub.server_port}/large/{hashlib.sha256(content).hexdigest()}")
        return self.answer(200, content)

    def listing(self, repository, revision):
        commits = self.server.repositories.get(repository, {})
        commit = {"main": COMMIT, "refs/pr/1": OLDER}.get(revision, revision)
        if commit not in commits:
            return self.answer(404, b'{"error": "Revision Not Found"}')
        siblings = []
        for name, content in commits[commit].items():
            entry = {"rfilename": name, "size": len(content), "blobId": git_digest(content)}
            if name.endswith(".safetensors"):
                entry["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
            siblings.append(entry)
        return self.answer(200, json.dumps({"id": repository, "sha": commit, "siblings": siblings}).encode())

    def large(self, digest, first):
        hub = self.server
        files = (content for commits in hub.repositories.values() for files in commits.values() for content in files.values())
        content = next(content for content in files if hashlib.sha256(content).hexdigest() == digest)
        if hub.damage:
            content = content[:-1] + bytes([content[-1] ^ 1])
        cut, hub.cut_after = hub.cut_after, None
        status, start = (206, first) if hub.ranges and first else (200, 0)
        self.send_response(status)
        self.send_header("Content-Length", str(len(content) - start))
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        self.wfile.write(content[start : cut])
        if cut:
            self.close_connection = True


class HubTest(SystemTest):
    def setUp(self):
        super().setUp()
        self.assert_done(self.run_temper("train", self.write_recipe("base.toml", train={"steps": 1}, checkpoint={"every": 0})))
        self.export = self.directory / "runs/test/export"
        files = {file.name: file.read_bytes() for file in self.export.iterdir()}
        others = {"pytorch_model.bin": b"pickle", "original/model.safetensors": b"again", ".gitattributes": b"*"}
        older = {name: content for name, content in files.items() if name != "generation_config.json"}
        self.hub = Hub({"org/model": {COMMIT: files | others, OLDER: older}})
        self.addCleanup(self.hub.server_close)
        self.addCleanup(self.hub.shutdown)
        self.large = len(files["model.safetensors"])
        self.home = self.directory / "home"

    def evaluate(self, path="org/model", download=True, ranks=1, **environment):
        recipe = self.write_recipe("hub.toml", model={"path": path, "init": "pretrained", "dtype": "fp32", "download": download})
        known = {"HF_HOME": str(self.home), "HF_ENDPOINT": self.hub.endpoint}
        kept = {key: value for key, value in ENVIRONMENT.items() if not key.startswith("HF_")}
        launcher = ["mpirun", "-n", str(ranks)] if ranks > 1 else []
        return subprocess.run([*launcher, PROGRAM, "eval", str(recipe)], cwd=self.directory, env=kept | known | environment,
                              capture_output=True, text=True, timeout=300)  # fmt: skip

    def assert_refused(self, result, code, *words):
        self.assertEqual(result.returncode, code, result.stderr)
        lines = [line for line in result.stderr.splitlines() if line.strip()]
        self.assertEqual(len(lines), 1, result.stderr)
        for word in words:
            self.assertIn(word, lines[0])

    def loss(self, result):
        self.assert_done(result)
        return json.loads(next(line for line in result.stdout.splitlines() if line.startswith("{")))["eval_loss"]

    def cached(self):
        return self.home / "hub/models--org--model"

    def test_a_model_is_fetched_once_into_the_shared_cache(self):
        expected = self.loss(self.evaluate(str(self.export), download=False))
        self.assertEqual(self.hub.requests, [])
        self.assertEqual(self.loss(self.evaluate()), expected)
        snapshot = self.cached() / "snapshots" / COMMIT
        self.assertEqual((self.cached() / "refs/main").read_text(), COMMIT)
        weights = snapshot / "model.safetensors"
        self.assertTrue(weights.is_symlink())
        self.assertEqual(weights.resolve().name, hashlib.sha256(weights.read_bytes()).hexdigest())
        self.assertEqual((snapshot / "config.json").resolve().name, git_digest((snapshot / "config.json").read_bytes()))
        self.assertEqual({file.name for file in snapshot.iterdir()}, {file.name for file in self.export.iterdir()} - {"README.md"})
        # Then its files are there, and only the branch is looked up again; without download, not even that.
        self.hub.requests.clear()
        self.assertEqual(self.loss(self.evaluate()), expected)
        self.assertEqual([path for path, _, _ in self.hub.requests], ["/api/models/org/model/revision/main"])
        self.hub.requests.clear()
        for name in ("org/model", "org/model@main", f"org/model@{COMMIT}"):
            self.assertEqual(self.loss(self.evaluate(name, download=False)), expected)
        self.assertEqual(self.loss(self.evaluate(HF_HUB_OFFLINE="1")), expected)
        self.assertEqual(self.hub.requests, [])

    def test_a_revision_is_pinned(self):
        self.assert_done(self.evaluate("org/model@refs/pr/1"))
        self.assertEqual((self.cached() / "refs/refs/pr/1").read_text(), OLDER)
        self.assertFalse((self.cached() / f"snapshots/{OLDER}/generation_config.json").exists())
        self.assert_done(self.evaluate(f"org/model@{COMMIT}"))
        self.assertTrue((self.cached() / f"snapshots/{COMMIT}/generation_config.json").exists())
        self.assertFalse((self.cached() / "refs/main").exists())

    def test_what_was_cut_off_goes_on_where_it_ended(self):
        self.hub.cut_after = self.large // 2
        self.assert_done(self.evaluate())
        firsts = [first for path, _, first in self.hub.requests if path.startswith("/large/")]
        self.assertEqual(firsts, [0, self.large // 2])
        self.assertEqual((self.cached() / f"snapshots/{COMMIT}/model.safetensors").read_bytes(), (self.export / "model.safetensors").read_bytes())

    def test_a_server_that_starts_again_is_taken_from_the_start(self):
        self.hub.cut_after, self.hub.ranges = self.large // 2, False
        self.assert_done(self.evaluate())
        self.assertEqual((self.cached() / f"snapshots/{COMMIT}/model.safetensors").read_bytes(), (self.export / "model.safetensors").read_bytes())

    def test_damage_is_found_and_not_kept(self):
        self.hub.damage = True
        self.assert_refused(self.evaluate(), 1, "model.safetensors has the digest", "but the hub lists")
        self.assertFalse((self.cached() / "refs/main").exists())
        self.assert_refused(self.evaluate(download=False), 2, 'model.path = "org/model": neither a directory nor in the hub\'s cache')
        self.hub.damage = False
        self.assert_done(self.evaluate())

    def test_ranks_fetch_it_once(self):
        self.assert_done(self.evaluate(ranks=2))
        self.assertEqual(len([path for path, _, _ in self.hub.requests if path.startswith("/large/")]), 1)

    def test_the_token_goes_to_the_hub_alone_and_nowhere_else(self):
        self.hub.private = True
        self.assert_refused(self.evaluate(), 2, "the hub answers 401", "HF_TOKEN is not set")
        self.assert_refused(self.evaluate(HF_TOKEN="hf_Wrong"), 2, "the hub answers 401", "HF_TOKEN's may not")
        result = self.evaluate(HF_TOKEN=TOKEN)
        self.assert_done(result)
        for path, token, _ in self.hub.requests:
            if path.startswith("/large/"):
                self.assertIsNone(token, path)
        self.assertNotIn(TOKEN, result.stdout + result.stderr)
        recipe = self.write_recipe("hub.toml", model={"path": "org/model", "init": "pretrained", "dtype": "fp32", "download": True}, train={"steps": 1})
        environment = ENVIRONMENT | {"HF_HOME": str(self.home), "HF_ENDPOINT": self.hub.endpoint, "HF_TOKEN": TOKEN}
        trained = subprocess.run([PROGRAM, "train", str(recipe), "run.name=private"], cwd=self.directory, env=environment, capture_output=True)
        self.assertEqual(trained.returncode, 0, trained.stderr)
        for file in self.directory.rglob("*"):
            if file.is_file():
                self.assertNotIn(TOKEN.encode(), file.read_bytes(), file)

    def test_what_cannot_be_fetched_is_told_in_one_line(self):
        self.assert_refused(self.evaluate("org/nothing"), 2, 'model.path = "org/nothing@main"', "404", "no such repository")
        self.assert_refused(self.evaluate("org/model@v9"), 2, "404", "revision")
        self.assert_refused(self.evaluate(HF_ENDPOINT=""), 2, "HF_ENDPOINT is not set")
        self.assert_refused(self.evaluate(HF_HUB_OFFLINE="1"), 2, "HF_HUB_OFFLINE")
        self.assert_refused(self.evaluate("not/a/name"), 2, "no such directory")
        self.assert_refused(self.evaluate(HF_ENDPOINT="http://127.0.0.1:9"), 1, "127.0.0.1", "tried 5 times")

    def test_an_adapter_names_its_base_and_finds_it_again(self):
        recipe = self.write_recipe(
            "lora.toml",
            model={"path": f"org/model@{COMMIT}", "init": "pretrained", "dtype": "fp32", "download": True},
            peft={"method": "lora", "r": 2},
            train={"steps": 2},
        )
        environment = ENVIRONMENT | {"HF_HOME": str(self.home), "HF_ENDPOINT": self.hub.endpoint}

        def temper(*words):
            done = subprocess.run([PROGRAM, *words], cwd=self.directory, env=environment, input="int", capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stderr)
            return done.stdout

        temper("train", str(recipe), "run.name=lora")
        config = json.loads((self.directory / "runs/lora/export/adapter_config.json").read_text())
        self.assertEqual((config["base_model_name_or_path"], config["revision"]), ("org/model", COMMIT))
        self.assertIn("base_model: org/model\n", (self.directory / "runs/lora/export/README.md").read_text())
        temper("generate", "runs/lora/export", "--prompt", "int", "--max-new-tokens", "2")
        self.assertEqual(temper("tokenize", f"org/model@{COMMIT}"), temper("tokenize", str(self.export)))


if __name__ == "__main__":
    unittest.main(verbosity=2)
