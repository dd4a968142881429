"""A server that answers W&B's client as far as it needs to begin, continue and end a run, and keeps the rows of each run.

Written from what the client asks; nobody has compared it with W&B's own server.
"""

import gzip
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ENTITY = {"id": "E1", "name": "me"}


class WandBServer(ThreadingHTTPServer):
    """Keeps the rows of runs by their ids."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.histories: dict[str, list[str]] = {}

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed is no fault of the server."""

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Those of the only run."""
        (history,) = self.histories.values()
        return [json.loads(row) for row in history]

    def ask(self, question: str, given: dict[str, Any]) -> dict[str, Any]:
        """The answer to a question of GraphQL."""
        if question == "Viewer":
            return {"viewer": {"id": "U1", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}}
        if question == "RunResumeStatus":
            history = self.histories.get(given["name"])
            return {
                "model": {"id": "P1", "name": "p", "entity": ENTITY, "bucket": history and _describe(given, history)}
            }
        if question == "UpsertBucket":
            self.histories.setdefault(given["name"], [])
            project = {"id": "P1", "name": "p", "entity": ENTITY}
            bucket = {"id": "B1", "name": given["name"], "displayName": "x", "config": "{}", "project": project}
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if question == "CreateRunFiles":
            files = [{"name": name, "uploadUrl": f"{self.uri}/{name}"} for name in given["files"]]
            return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}
        return {}

    def stream(self, run: str, files: dict[str, Any]) -> None:
        """Take rows; each file says from which line on."""
        for name, part in files.items():
            if name == "wandb-history.jsonl":
                self.histories[run][part["offset"] :] = part["content"]


def _describe(given: dict[str, Any], history: list[str]) -> dict[str, Any]:
    return {
        "id": "B1",
        "name": given["name"],
        "displayName": "x",
        "state": "finished",
        "config": "{}",
        "tags": [],
        "summaryMetrics": history[-1],
        "historyTail": json.dumps(history[-1:]),
        "historyLineCount": len(history),
        "eventsTail": "[]",
        "eventsLineCount": 0,
        "logLineCount": 0,
        "wandbConfig": json.dumps({"t": 1}),
    }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: WandBServer

    def log_message(self, *arguments: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        asked = json.loads(body)
        if self.path.endswith("/graphql"):
            found = re.search(r"(?:query|mutation)\s+(\w+)", asked["query"])
            self._answer({"data": self.server.ask(found[1] if found else "", asked.get("variables") or {})})
        else:
            self.server.stream(self.path.split("/")[-2], asked.get("files") or {})
            self._answer({"exitcode": None, "limits": {}})

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._answer({})

    def _answer(self, value: dict[str, Any]) -> None:
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def wandb_server() -> Iterator[WandBServer]:
    """A server that runs meanwhile."""
    with WandBServer() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
