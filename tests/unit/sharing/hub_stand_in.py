"""A small Hub on this machine: the requests that huggingface_hub makes to send a model, by HTTP, and what has arrived.

It keeps large files under the hash of their content, as the Hub does, and says which of them it has.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".model", ".png")
"""Files that the Hub wants apart from the commit."""
TOKEN = "hf_" + "x" * 34


@dataclass
class Repository:
    private: bool
    branches: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"main": {}})
    commits: list[str] = field(default_factory=lambda: ["0" * 40])
    messages: list[str] = field(default_factory=list)


@dataclass
class Hub:
    """What the stand-in has, what it was asked, and how it is to fail."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)
    """Large files by their hashes."""
    sent: list[str] = field(default_factory=list)
    """Hashes of the large files that arrived, in order, once for each time."""
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Method and path of every request."""
    fail: Callable[[str, str], int | None] = lambda method, path: None
    """Status with which a request fails, by its method and path; 0 closes the connection without an answer."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def number(self, method: str, part: str) -> int:
        """How many requests of a method had this text in their path."""
        return sum(each == method and part in path for each, path in self.asked)


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """A stand-in that answers until the block ends."""
    hub = Hub()

    class Handler(_Handler):
        served = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    served: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PUT(self) -> None:
        self._answer("PUT")

    def _answer(self, method: str) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self._read_body()
        with self.served.lock:
            self.served.asked.append((method, path))
        status = self.served.fail(method, path)
        if status == 0:
            self.close_connection = True
            self.connection.close()
        elif status is not None:
            self._send({"error": f"the stand-in says {status}"}, status=status)
        elif path.startswith("/lfs/"):
            self._store(path.removeprefix("/lfs/"), body)
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._send({"error": "Invalid credentials in Authorization header"}, status=401)
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif path == "/api/validate-yaml":
            self._send({"errors": [], "warnings": []})
        elif path.endswith(".git/info/lfs/objects/batch"):
            self._list_missing(json.loads(body))
        elif path.startswith("/api/models/"):
            self._on_repository(path.removeprefix("/api/models/"), body)
        else:
            self._send({"error": f"unknown: {path}"}, status=404)

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(self, value: Any, *, status: int = 200, code: str | None = None) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if code is not None:
            self.send_header("X-Error-Code", code)
        self.end_headers()
        self.wfile.write(content)

    def _create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted['organization']}/{wanted['name']}"
        is_private = wanted.get("private", wanted.get("visibility") == "private")
        self.served.repositories[name] = Repository(private=bool(is_private))
        self._send({"url": f"{self.served.url}/{name}"})

    def _store(self, oid: str, body: bytes) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        with self.served.lock:
            self.served.stored[oid] = body
            self.served.sent.append(oid)
        self._send({})

    def _list_missing(self, wanted: dict[str, Any]) -> None:
        objects = []
        for each in wanted["objects"]:
            upload = {"upload": {"href": f"{self.served.url}/lfs/{each['oid']}"}}
            objects.append({**each, **({} if each["oid"] in self.served.stored else {"actions": upload})})
        self._send({"transfer": "basic", "objects": objects})

    def _on_repository(self, path: str, body: bytes) -> None:
        owner, name, *rest = path.split("/")
        repository = self.served.repositories.get(f"{owner}/{name}")
        if repository is None:
            self._send({"error": "Repository not found"}, status=404, code="RepoNotFound")
        elif not rest or rest[0] == "revision":
            self._send({"id": f"{owner}/{name}", "private": repository.private, "sha": repository.commits[-1]})
        elif rest[0] == "branch":
            is_there = rest[1] in repository.branches
            repository.branches.setdefault(rest[1], dict(repository.branches["main"]))
            self._send({}, status=409 if is_there else 200)
        elif rest[0] == "preupload":
            self._choose_ways(json.loads(body), repository.branches[rest[1]])
        elif rest[0] == "commit":
            self._commit(body, repository, branch=rest[1], name=f"{owner}/{name}")

    def _choose_ways(self, wanted: dict[str, Any], there: dict[str, bytes]) -> None:
        files = []
        for each in wanted["files"]:
            mode = "lfs" if each["path"].endswith(LARGE) else "regular"
            content = there.get(each["path"])
            oid = None
            if content is not None:
                blob = b"blob %d\0" % len(content) + content
                oid = hashlib.sha256(content).hexdigest() if mode == "lfs" else hashlib.sha1(blob).hexdigest()
            files.append({"path": each["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._send({"files": files})

    def _commit(self, body: bytes, repository: Repository, *, branch: str, name: str) -> None:
        files = repository.branches[branch]
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                repository.messages.append(value["summary"])
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            else:
                assert line["key"] == "lfsFile"
                files[value["path"]] = self.served.stored[value["oid"]]
        oid = hashlib.sha1(body).hexdigest()
        repository.commits.append(oid)
        self._send({"commitUrl": f"{self.served.url}/{name}/commit/{oid}", "commitOid": oid, "success": True})
