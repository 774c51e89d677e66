"""The real clients of the Hub against a server on this machine, in processes of their own: the address is read once.

The server knows as much of the Hub's protocol as the clients need to fetch files and to push them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

import pytest

import grmp_hf
from grmp_hf.embedded import EMBEDDED_PROMPTS

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class _Handler(BaseHTTPRequestHandler):
    """Files lie below `root/owner/name` and what was asked to be made in `created`."""

    root: Path
    address: str
    created: list[dict[str, Any]]
    asked: list[str]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.asked.append(unquote(self.path))
        path = unquote(self.path.partition("?")[0])
        parts = path.strip("/").removeprefix("datasets/").split("/")
        if parts[:2] in (["api", "models"], ["api", "datasets"]) and (self.root / "/".join(parts[2:4])).is_dir():
            self._model_info(parts[2:])
        elif len(parts) >= 5 and parts[2] == "resolve" and (self.root / "/".join(parts[:2])).is_dir():
            self._file(self.root.joinpath(*parts[:2], *parts[4:]))
        else:
            self._answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def _model_info(self, parts: list[str]) -> None:
        folder = self.root / "/".join(parts[:2])
        files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
        if len(parts) > 2 and parts[2] == "tree":
            below = "/".join(parts[4:])
            found = [entry for entry in self._entries(folder) if entry["path"].startswith(below)]
            if found or not below:
                self._answer(200, json.dumps(found).encode())
            else:
                self._answer(404, b"{}", {"X-Error-Code": "EntryNotFound"})
            return
        private = any(repo["name"] == parts[1] and repo.get("visibility") == "private" for repo in self.created)
        info = {
            "id": "/".join(parts[:2]),
            "sha": COMMIT,
            "private": private,
            "siblings": [{"rfilename": f} for f in files],
        }
        self._answer(200, json.dumps(info).encode())

    @staticmethod
    def _entries(folder: Path) -> list[dict[str, Any]]:
        found = sorted(path for path in folder.rglob("*"))
        return [
            {
                "type": "file" if path.is_file() else "directory",
                "path": str(path.relative_to(folder)),
                "oid": "0",
                "size": path.stat().st_size,
            }
            for path in found
        ]

    def _file(self, path: Path) -> None:
        if not path.is_file():
            self._answer(404, b"{}", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
            return
        content = path.read_bytes()
        etag = f'"{hashlib.sha256(content).hexdigest()[:40]}"'
        self._answer(200, content, {"ETag": etag, "X-Repo-Commit": COMMIT})

    def do_POST(self) -> None:
        self.asked.append(unquote(self.path))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = unquote(self.path.partition("?")[0])
        parts = path.strip("/").split("/")
        if path == "/api/repos/create":
            wanted = json.loads(body)
            self.created.append(wanted)
            name = f"{wanted.get('organization') or 'owner'}/{wanted['name']}"
            (self.root / name).mkdir(parents=True, exist_ok=True)
            self._answer(200, json.dumps({"url": f"{self.address}/{name}", "id": name}).encode())
        elif "paths-info" in parts:
            wanted = parse_qs(body.decode())["paths"] if b"paths=" in body else json.loads(body)["paths"]
            entries = self._entries(self.root / "/".join(parts[2:4]))
            self._answer(200, json.dumps([entry for entry in entries if entry["path"] in wanted]).encode())
        elif "preupload" in parts:
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            self._answer(200, json.dumps({"files": files}).encode())
        elif "commit" in parts:
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    target = self.root / "/".join(parts[2:4]) / entry["value"]["path"]
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(base64.b64decode(entry["value"]["content"]))
            url = f"{self.address}/{'/'.join(parts[2:4])}/commit/{COMMIT}"
            self._answer(200, json.dumps({"commitUrl": url, "commitOid": COMMIT}).encode())
        else:
            self._answer(200, b"{}")

    def _answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def fake_hub(root: Path) -> Iterator[tuple[str, type[_Handler]]]:
    """Serve `root` while the block lasts; gives the address, and the handler."""
    handler = type("Handler", (_Handler,), {"root": root, "created": [], "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    handler.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield handler.address, handler
    finally:
        server.shutdown()
        server.server_close()


ONLINE = """
import sys, json, grmp_hf, grmp_hf.hub
from grmp_hf.cli.main import main
picture, folder = sys.argv[1:]

def tell(name):
    scorer = grmp_hf.load(name)
    print(json.dumps({**scorer.identity, "scores": scorer.score(picture).score.tolist()}))

tell("owner/stars")
print(grmp_hf.hub.push(folder, "owner/mine"))
tell("owner/mine")
assert main(["score", picture, "--model", "owner/none"]) == 2
"""
OFFLINE = ONLINE.replace("print(grmp_hf.hub.push(", "(lambda *_: None)((").replace("owner/mine", "owner/stars")


def start(code: str, home: Path, endpoint: str, *arguments: Path | str, offline: bool) -> subprocess.Popen[str]:
    """A process at work, for which the server is the Hub."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": str(int(offline)),
        "HF_DATASETS_OFFLINE": str(int(offline)),
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": "hf_of_nobody",
        "NO_PROXY": "127.0.0.1",
    }
    command = [sys.executable, "-c", code, *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, env=environment, cwd=Path(__file__).parent.parent, **pipes)


def finish(process: subprocess.Popen[str]) -> tuple[list[str], str]:
    """Lines of stdout, and the last line of stderr."""
    said, errors = process.communicate()
    assert process.returncode == 0, errors[-2000:]
    return said.splitlines(), errors.splitlines()[-1]


def run(*given: Any, offline: bool) -> tuple[list[str], str]:
    """What a process says until it has ended."""
    return finish(start(*given, offline=offline))


@pytest.fixture
def hub_root(clip_folder: Path, adapter_folder: Path, tmp_path: Path) -> Path:
    """What the server holds: owner/clip and owner/stars, an adapter of owner/clip."""
    root = tmp_path / "hub"
    shutil.copytree(clip_folder, root / "owner" / "clip")
    shutil.copytree(adapter_folder, root / "owner" / "stars")
    path = root / "owner" / "stars" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": "owner/clip"}))
    (root / "owner" / "stars" / "scores.csv").write_text("path\nprivate.jpg\n")
    return root


def test_load_and_push_with_the_real_clients_then_load_from_their_cache(
    hub_root: Path, adapter_folder: Path, photos: list[Path], tmp_path: Path
) -> None:
    expected = grmp_hf.load(adapter=adapter_folder).score(photos[0]).score
    home, stars = tmp_path / "home", hub_root / "owner" / "stars"
    with fake_hub(hub_root) as (endpoint, handler):
        (first, address, second), error = run(ONLINE, home, endpoint, photos[0], stars, offline=False)
    assert address.endswith(f"/owner/mine/commit/{COMMIT}")
    assert handler.created[0]["visibility"] == "private"
    assert not (hub_root / "owner" / "mine" / "scores.csv").exists()
    (cached, again), offline_error = run(OFFLINE, home, endpoint, photos[0], stars, offline=True)
    for line, adapter in ((first, "stars"), (second, "mine"), (cached, "stars"), (again, "stars")):
        found = json.loads(line)
        assert (found["model"], found["revision"]) == ("owner/clip", COMMIT)
        assert (found["adapter"], found["adapter_revision"]) == (f"owner/{adapter}", COMMIT)
        assert found["scores"] == pytest.approx(expected, abs=1e-5)
    for message in (error, offline_error):
        assert message.startswith(
            "grmp-iqa: error: 'owner/none' is no folder here and could not be loaded from the Hub"
        )


DOORS = """
import sys, json
if sys.argv[-1] == "transformers first":
    import transformers.pipelines, transformers.models.auto, peft
import grmp_hf, grmp_hf.data.images, torch
from peft import AutoPeftModel, PeftModel
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification, pipeline
picture, *folders = sys.argv[1:-1]
picture_pixels = grmp_hf.data.images.decode_image(picture)

def quality(model, of):
    with torch.inference_mode():
        pixels = grmp_hf.load(of).processor(picture_pixels)["pixel_values"]
        return model.eval()(pixel_values=pixels).quality.item()

found, allowed = {}, ["grmp_hf.modeling.modeling_grmp"]
for folder in folders:
    for name in (folder, "owner/" + folder.split("/")[-1]):
        found["load", name] = grmp_hf.load(name).score(picture).quality.item()
        found["any", name] = quality(AutoModel.from_pretrained(name), folder)
        found["pipeline", name] = pipeline("image-quality-assessment", model=name)(picture)["quality"]
        found["auto", name] = quality(AutoModelForImageClassification.from_pretrained(name), folder)
        found["ours", name] = quality(grmp_hf.GRMPForImageQualityAssessment.from_pretrained(name), folder)
        found["peft", name] = quality(PeftModel.from_pretrained(grmp_hf.load().model, name), folder)
        found["auto peft", name] = quality(AutoPeftModel.from_pretrained(name, import_allowlist=allowed), folder)
base = grmp_hf.load().score(picture).quality.item()
plain = [pipeline("image-quality-assessment", model="grmp_hf/tiny")(picture)["quality"]]
plain.append(quality(AutoModelForImageClassification.from_pretrained("grmp_hf/tiny"), "default"))
assert AutoConfig.from_pretrained("grmp_hf/tiny").model_type == "grmp"
AutoImageProcessor.from_pretrained("grmp_hf/tiny")
print(json.dumps([base, plain, [[*key, value] for key, value in found.items()]]))
"""


def test_the_embedded_base_is_found_by_every_door_and_no_hub_hears_of_it(
    points_adapter: Path, photos: list[Path], tmp_path: Path
) -> None:
    """By an adapter of prompts, and by one whose base has a side network."""
    hub, expected = tmp_path / "hub", {}
    for kind, adapter in (("prompts", EMBEDDED_PROMPTS), ("sided", points_adapter)):
        shutil.copytree(adapter, tmp_path / kind)
        shutil.copytree(adapter, hub / "owner" / kind)
        expected[kind] = grmp_hf.load(adapter).score(photos[0]).quality.item()
    with fake_hub(hub) as (endpoint, first), fake_hub(hub) as (other, second):
        given = (photos[0], *(tmp_path / kind for kind in expected))
        both = [
            start(DOORS, tmp_path / "one", endpoint, *given, "transformers first", offline=False),
            start(DOORS, tmp_path / "two", other, *given, "grmp_hf first", offline=False),
        ]
        lines = [finish(process)[0] for process in both]
    for (line,), handler in zip(lines, (first, second), strict=True):
        base, plain, found = json.loads(line)
        assert plain == pytest.approx([base] * 2, abs=1e-6)
        assert all(abs(value - base) > 1e-4 for value in expected.values())
        assert len(found) == 2 * 2 * 7
        for door, name, value in found:
            assert value == pytest.approx(expected[Path(name).name], abs=1e-6), (door, name)
        assert all(any(f"owner/{kind}" in path for path in handler.asked) for kind in expected)
        assert not [path for path in handler.asked if "tiny" in path]


NOBODY = """
import sys
from grmp_hf.cli.main import main
picture, output = sys.argv[1:]
for place in (["--model", "owner/clip"], ["--adapter", "owner/stars"]):
    assert main(["score", picture, "--offline", *place]) == 2
assert main(["adapt", "--data", "owner/ratings", "--shots", "5", "--output", output, "--offline"]) == 2
for name in ("./owner/clip", "owner", "a/owner/clip", "owner/clip.pt"):
    assert main(["score", picture, "--model", name]) == 2
    assert main(["adapt", "--data", name, "--shots", "5", "--output", output]) == 2
"""


def test_offline_and_with_names_of_paths_nobody_is_asked(hub_root: Path, photos: list[Path], tmp_path: Path) -> None:
    with fake_hub(hub_root) as (endpoint, handler):
        run(NOBODY, tmp_path / "home", endpoint, photos[0], tmp_path / "out", offline=False)
    assert handler.asked == []


def test_the_example_of_a_push_runs_and_a_bare_name_gets_its_owner(tmp_path: Path) -> None:
    hub = tmp_path / "hub"
    hub.mkdir()
    code = (Path(__file__).parent.parent / "examples" / "push.py").read_text(encoding="utf-8")
    code += '\nprint(push(folder, "bare"))\n'
    with fake_hub(hub) as (endpoint, handler):
        (address, commit, bare), _ = run(
            code, tmp_path / "home", endpoint, EMBEDDED_PROMPTS, "owner/mine", offline=False
        )
    assert address.endswith(f"/owner/mine/commit/{COMMIT}") and commit == COMMIT
    assert bare.endswith(f"/owner/bare/commit/{COMMIT}")
    assert [repo["name"] for repo in handler.created] == ["mine", "bare"]
    assert (hub / "owner" / "bare" / "adapter_model.safetensors").is_file()


DATA = """
import sys, json, datasets
from grmp_hf.cli.main import main
folder, = sys.argv[1:]
assert main(["data", "push", "biq2021", folder, "owner/biq", "--yes"]) == 0
loaded = datasets.load_dataset("owner/biq")
rows = [row for part in loaded.values() for row in part]
print(json.dumps([[*row["image"].size, row["name"], row["mos"], row["split"]] for row in rows]))
"""


def test_a_data_set_is_pushed_and_then_loaded_with_datasets_alone(tmp_path: Path) -> None:
    from PIL import Image

    folder, hub = tmp_path / "BIQ2021", tmp_path / "hub"
    (folder / "Images").mkdir(parents=True)
    names = [f"ss01 ({number}).jpg" for number in range(6)]
    for number, name in enumerate(names):
        Image.new("RGB", (8 + number, 5)).save(folder / "Images" / name)
    for part, chosen in (("Train", range(4)), ("Test", range(4, 6))):
        lines = ["Image Name,MOS", *(f"{names[number]},0.{number}" for number in chosen)]
        (folder / f"{part} (Images and MOS).csv").write_text("\n".join(lines))
    hub.mkdir()
    with fake_hub(hub) as (endpoint, handler):
        (address, rows), _ = run(DATA, tmp_path / "home", endpoint, folder, offline=False)
    assert address.endswith(f"/owner/biq/commit/{COMMIT}")
    (created,) = handler.created
    assert (created["type"], created["visibility"]) == ("dataset", "private")
    parts = ["train"] * 4 + ["test"] * 2
    assert json.loads(rows) == [[8 + i, 5, names[i], i / 10, parts[i]] for i in range(6)]
