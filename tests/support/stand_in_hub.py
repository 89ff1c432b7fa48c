"""A model hub in this process: as much of the protocol of Hugging Face as pushing and pulling take."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote


class StandInHub:
    """Repositories as lists of commits, each with the content of its files."""

    def __init__(self) -> None:
        self.repos: dict[str, list[tuple[str, dict[str, bytes]]]] = {}
        self.private: set[str] = set()
        self.requests: list[str] = []
        self.refuses = 0
        self.endpoint = ""

    def commit(self, repo: str, files: dict[str, bytes]) -> str:
        """Add a commit that changes `files` and return its id."""
        commits = self.repos.setdefault(repo, [])
        content = (commits[-1][1] if commits else {}) | files
        name = hashlib.sha1(repr((len(commits), sorted(content))).encode()).hexdigest()
        commits.append((name, content))
        return name

    def files(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Return a commit's id and files; None where there is no such revision."""
        commits = self.repos[repo]
        return commits[-1] if revision == "main" else next((one for one in commits if one[0] == revision), None)


@contextmanager
def running_hub() -> Iterator[StandInHub]:
    """Serve a hub on a port of this machine."""
    hub = StandInHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: StandInHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.hub.requests.append(f"POST {self.path}")
        if self.hub.refuses:
            self._answer({"error": "no"}, status=self.hub.refuses)
            return
        parts = unquote(self.path.partition("?")[0]).split("/")[1:]
        if parts == ["api", "repos", "create"]:
            self._create(json.loads(body))
        elif parts == ["api", "validate-yaml"]:
            self._answer({"warnings": [], "errors": []})
        elif parts[:2] == ["api", "models"] and parts[4] == "preupload":
            files = [
                {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                for one in json.loads(body)["files"]
            ]
            self._answer({"files": files})
        elif parts[:2] == ["api", "models"] and parts[4] == "commit":
            self._commit("/".join(parts[2:4]), body)
        else:
            self._answer({"error": "not served"}, status=404)

    def do_HEAD(self) -> None:
        self._get(with_body=False)

    def do_GET(self) -> None:
        self._get(with_body=True)

    def _create(self, asked: dict[str, Any]) -> None:
        repo = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
        url = {"url": f"{self.hub.endpoint}/{repo}", "name": repo}
        if repo in self.hub.repos:
            self._answer(url | {"error": "You already created this model repo"}, status=409)
            return
        self.hub.repos[repo] = []
        if asked.get("private") or asked.get("visibility") == "private":
            self.hub.private.add(repo)
        self._answer(url)

    def _commit(self, repo: str, body: bytes) -> None:
        lines = [json.loads(line) for line in body.splitlines()]
        files = {
            line["value"]["path"]: base64.b64decode(line["value"]["content"]) for line in lines if line["key"] == "file"
        }
        name = self.hub.commit(repo, files)
        url = f"{self.hub.endpoint}/{repo}/commit/{name}"
        self._answer({"success": True, "commitOid": name, "commitUrl": url, "hookOutput": ""})

    def _get(self, with_body: bool) -> None:
        self.hub.requests.append(f"{self.command} {self.path}")
        parts = unquote(self.path.partition("?")[0]).split("/")[1:]
        is_api = parts[:2] == ["api", "models"]
        repo = "/".join(parts[2:4] if is_api else parts[:2])
        revision = (parts[5] if len(parts) > 5 else "main") if is_api else parts[3]
        if repo not in self.hub.repos or not self.hub.repos[repo]:
            self._answer({"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}, 404, with_body)
            return
        found = self.hub.files(repo, revision)
        if found is None:
            self._answer({"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"}, 404, with_body)
        elif is_api:
            sizes = "blobs=" in self.path  # as `files_metadata=True` asks
            files = [
                {"rfilename": name} | ({"size": len(content), "blobId": "0" * 40} if sizes else {})
                for name, content in found[1].items()
            ]
            self._answer(
                {"id": repo, "sha": found[0], "siblings": files, "private": repo in self.hub.private, "tags": []}
            )
        elif parts[4] not in found[1]:
            self._answer({"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"}, 404, with_body)
        else:
            content = found[1][parts[4]]
            headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": found[0]}
            self._send(content, headers | {"Content-Type": "application/octet-stream"}, 200, with_body)

    def _answer(
        self, content: object, headers: dict[str, str] | None = None, status: int = 200, with_body: bool = True
    ) -> None:
        self._send(
            json.dumps(content).encode(), {"Content-Type": "application/json"} | (headers or {}), status, with_body
        )

    def _send(self, content: bytes, headers: dict[str, str], status: int, with_body: bool) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(content)
