"""A Hugging Face Hub on 127.0.0.1: repositories in memory, served over real HTTP to the real huggingface_hub.

It knows what the client asks of models: create, commit (one step, all or nothing), branches and tags, listings, pull
requests, downloads with ETag and Range, weights in LFS on demand; of Spaces, downloads; collections. Every request is
noted in `requests`, the bytes of files that were sent in `sent`, and each request can be made to fail.
"""

import base64
import hashlib
import io
import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from yaml import safe_load as parse_yaml

Files = dict[str, bytes]


class Repository:
    """Commits by sha, each a whole set of files, and names for some of them."""

    def __init__(self) -> None:
        self.commits: dict[str, Files] = {}
        self.history: list[str] = []
        self.refs: dict[str, str] = {}
        self.private = False
        self.discussions: list[dict[str, object]] = []
        self.commit({}, "initial commit", "main")

    def commit(self, files: Files, message: str, ref: str) -> str:
        sha = hashlib.sha1(f"{len(self.history)} {message} {sorted(files)}".encode()).hexdigest()
        self.commits[sha] = files
        self.history.append(sha)
        self.refs[ref] = sha
        return sha

    def at(self, revision: str) -> str | None:
        return self.refs.get(revision) or (revision if revision in self.commits else None)


class LocalHub:
    """The server, its address and what it holds: `with LocalHub() as hub: os.environ["HF_ENDPOINT"] = hub.url`."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.collections: dict[str, dict[str, Any]] = {}  # by slug, as the Hub answers
        self.requests: list[tuple[str, str]] = []
        self.faults: Iterator[str] = iter(())  # for each request to come: "", a status, or how the answer is lost
        self.patience = threading.Event()  # set it to end the requests that are stalled
        self.ranges = True  # whether parts of files are sent as such
        self.sent: Counter[str] = Counter()  # bytes of bodies, by path
        self.lfs = False  # whether weights go to LFS
        self.objects: dict[str, bytes] = {}  # of LFS, by SHA-256
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def files(self, repo_id: str, revision: str = "main") -> Files:
        repository = self.repositories[repo_id]
        return repository.commits[repository.refs[revision]]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two writes: the second would wait 40 ms for an ACK
    hub: LocalHub

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._route()

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def _route(self) -> None:
        url = urlsplit(self.path)
        path, self.query = unquote(url.path), parse_qs(url.query)
        self.hub.requests.append((self.command, path))
        self.body = self._read_body()
        self.fault = fault = next(self.hub.faults, "")
        if fault.isdigit():
            said = f"no, {self.headers.get('Authorization')}"  # a server may say what it was asked with
            self._error(int(fault), "", said, **({"Retry-After": "7"} if fault == "429" else {}))
        elif fault == "portal":
            self._send(200, b"<html>Log in to the network</html>", {"Content-Type": "text/html"})
        elif fault == "redirects":
            self._send(302, b"", {"Location": self.path})
        elif fault == "lost before":
            self.close_connection = True
        elif fault == "lost after":
            answers, self.wfile = self.wfile, io.BytesIO()
            self._answer(path)
            self.wfile, self.close_connection = answers, True
        else:
            self._answer(path)

    def _answer(self, path: str) -> None:
        for method, pattern, action in _ROUTES:
            match = re.fullmatch(pattern, path)
            if match and self.command in method:
                action(self, **match.groupdict())
                return
        self._error(404, "EntryNotFound", f"no route for {self.command} {path}")

    def _read_body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _send(self, code: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.fault in ("cut", "stalled") and "/resolve/" in self.path:
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            if self.fault == "stalled":
                self.hub.patience.wait(10)
            self.close_connection = True
            return
        with suppress(ConnectionError):  # the client may close the connection once it has enough
            for start in range(0, len(content), 65536):
                self.wfile.write(content[start : start + 65536])
                self.hub.sent[urlsplit(self.path).path] += len(content[start : start + 65536])

    def _json(self, value: object, code: int = 200) -> None:
        self._send(code, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _error(self, code: int, name: str, message: str, **headers: str) -> None:
        headers = {"X-Error-Code": name, "X-Error-Message": message, **headers}
        self._send(code, json.dumps({"error": message}).encode(), headers)

    def _commit(self, id: str, rev: str) -> tuple[Repository, str] | None:
        repository = self.hub.repositories.get(id)
        if repository is None:
            self._error(404, "RepoNotFound", f"no repository {id}")
        elif repository.at(rev) is None:
            self._error(404, "RevisionNotFound", f"no revision {rev}")
        else:
            return repository, str(repository.at(rev))
        return None

    def create(self) -> None:
        fields = json.loads(self.body)
        id = f"{fields.get('organization') or 'user'}/{fields['name']}"
        exists = id in self.hub.repositories
        if not exists:
            self.hub.repositories[id] = Repository()
            self.hub.repositories[id].private = fields.get("private") is True or fields.get("visibility") == "private"
        self._json(
            {"url": f"{self.hub.url}/{id}", "error": "exists"} if exists else {"url": f"{self.hub.url}/{id}"},
            409 if exists else 200,
        )

    def whoami(self) -> None:
        self._json({"type": "user", "name": "user", "orgs": [], "auth": {"accessToken": {"role": "write"}}})

    def validate(self) -> None:
        self._json({"errors": [], "warnings": []})

    def preupload(self, id: str, rev: str) -> None:
        if found := self._commit(id, rev):
            files = json.loads(self.body)["files"]
            ignored = found[0].commits[found[1]].get(".gitignore", b"").decode().split()
            rows = [
                {
                    "path": f["path"],
                    "uploadMode": self._mode(f["path"]),
                    "shouldIgnore": f["path"] in ignored,
                    "oid": None,
                }
                for f in files
            ]
            self._json({"files": rows})

    def _mode(self, path: str) -> str:
        return "lfs" if self.hub.lfs and path.endswith(".safetensors") else "regular"

    def lfs_batch(self, id: str) -> None:
        rows = []
        for wanted in json.loads(self.body)["objects"]:
            upload = {"upload": {"href": f"{self.hub.url}/lfs/{wanted['oid']}"}}
            rows.append({**wanted, **({} if wanted["oid"] in self.hub.objects else {"actions": upload})})
        self._json({"transfer": "basic", "objects": rows})

    def lfs_upload(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() == oid:
            self.hub.objects[oid] = self.body
            self._json({})
        else:
            self._error(422, "", "the object is not what its name says")

    def commit(self, id: str, rev: str) -> None:
        if not (found := self._commit(id, rev)):
            return
        repository, parent = found
        files, message = dict(repository.commits[parent]), ""
        for line in self.body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header":
                message = value["summary"]
                if value.get("parentCommit") not in (None, parent):
                    self._error(412, "PreconditionFailed", "the branch has moved on")
                    return
            elif item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif item["key"] == "deletedFile":
                files.pop(value["path"])
        request = f"refs/pr/{len(repository.refs)}" if "create_pr" in self.query else None
        sha = repository.commit(files, message, request or rev)
        urls = {"commitUrl": f"{self.hub.url}/{id}/commit/{sha}"}
        urls |= {"pullRequestUrl": f"{self.hub.url}/{id}/discussions/1"} if request else {}
        self._json({"success": True, "commitOid": sha, **urls})

    def name(self, id: str, kind: str, name: str) -> None:
        fields = json.loads(self.body or b"{}")
        start = fields.get("startingPoint") or "main"
        start, name = (name, fields["tag"]) if kind == "tag" else (start, name)
        if found := self._commit(id, start):
            found[0].refs[name] = found[1]
            self._json({})

    def info(self, id: str, rev: str = "main") -> None:
        if found := self._commit(id, rev):
            files = found[0].commits[found[1]]
            rows = [{"rfilename": name, "size": len(content)} for name, content in files.items()]
            rows = self._malformed(rows, {"rfilename": _OUTSIDE})
            fields = {"_id": id, "id": id, "sha": found[1], "private": found[0].private, "siblings": rows, "tags": []}
            card = re.match(r"---\n(.*?)\n---", files.get("README.md", b"").decode(), re.DOTALL)
            self._json({**fields, "cardData": parse_yaml(card[1])} if card else fields)

    def collections(self) -> None:
        """Those of an owner, each with its first four items, and without its position."""
        rows = [dict(c) for c in self.hub.collections.values() if c["owner"]["name"] in self.query.get("owner", [])]
        for row in rows:
            row["items"] = row["items"][:4]
            del row["position"]
        self._json(rows)

    def create_collection(self) -> None:
        fields = json.loads(self.body)
        owner, title = fields["namespace"], fields["title"]
        for slug, row in self.hub.collections.items():
            if (row["owner"]["name"], row["title"]) == (owner, title):
                self._json({"error": "exists", "slug": slug}, 409)
                return
        number = f"{len(self.hub.collections):024x}"
        slug = f"{owner}/{re.sub('[^a-z0-9]+', '-', title.lower())}-{number}"
        self.hub.collections[slug] = {
            "slug": slug,
            "title": title,
            "description": fields.get("description"),
            "owner": {"name": owner},
            "items": [],
            "lastUpdated": "2026-01-01T00:00:00.000Z",
            "position": 0,
            "private": fields["private"],
            "theme": "green",
            "upvotes": 0,
        }
        self._json(self.hub.collections[slug])

    def collection(self, slug: str) -> None:
        row = self.hub.collections.get(slug)
        if row is None:
            self._error(404, "", f"no collection {slug}")
        elif self.command == "PATCH":
            row.update(json.loads(self.body))
            self._json({"data": row})
        else:
            self._json(row)

    def add_item(self, slug: str) -> None:
        row, item = self.hub.collections[slug], json.loads(self.body)["item"]
        exists = any((entry["id"], entry["type"]) == (item["id"], item["type"]) for entry in row["items"])
        if item["id"] not in self.hub.repositories:
            self._error(404, "", f"no {item['type']} {item['id']}")
            return
        if not exists:
            row["items"].append({**item, "_id": f"{len(row['items']):024x}", "position": len(row["items"])})
        self._json({"error": "exists"} if exists else row, 409 if exists else 200)

    def discussions(self, id: str) -> None:
        if found := self._commit(id, "main"):
            rows = found[0].discussions
            self._json({"discussions": rows, "count": len(rows), "start": 0})

    def paths(self, id: str, rev: str) -> None:
        if found := self._commit(id, rev):
            fields = parse_qs(self.body.decode())
            files = found[0].commits[found[1]]
            named = [(name, files[name]) for name in fields["paths"] if name in files]
            self._json([{"type": "file", "path": n, "size": len(c), **self._digests(n, c)} for n, c in named])

    def tree(self, id: str, rev: str) -> None:
        if found := self._commit(id, rev):
            files = found[0].commits[found[1]].items()
            rows = [{"type": "file", "path": n, "size": len(c), **self._digests(n, c)} for n, c in files]
            self._json(self._malformed(rows, {"type": "file", "path": _OUTSIDE, "size": 1, "oid": "b" * 40}))

    def _malformed(self, rows: list, outside: dict[str, object]) -> object:
        """A listing, or what stands in its place."""
        return {"numbers": [1], "null": None, "texts": ["config.json"], "outside": [outside]}.get(self.fault, rows)

    def _digests(self, name: str, content: bytes) -> dict[str, object]:
        if self._mode(name) == "regular":
            return {"oid": _oid(content)}
        lfs = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
        return {"oid": _oid(json.dumps(lfs).encode()), "lfs": lfs}

    def resolve(self, id: str, rev: str, path: str) -> None:
        if not (found := self._commit(id, rev)):
            return
        sha, content = found[1], found[0].commits[found[1]].get(path)
        if content is None:
            self._error(404, "EntryNotFound", f"no file {path}", **{"X-Repo-Commit": sha})
            return
        headers = {"X-Repo-Commit": sha, "ETag": f'"{_oid(content)}"', "Accept-Ranges": "bytes"}
        if self.hub.ranges and (span := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))):
            first, last = int(span[1]), int(span[2] or len(content) - 1)
            total = 10**14 if self.fault == "larger" else len(content)
            headers["Content-Range"] = f"bytes {first + (self.fault == 'shifted')}-{last}/{total}"
            self._send(206, content[first : last + 1], headers)
        else:
            self._send(200, content, headers)


_OUTSIDE = "model-1/../../../x-of-1.safetensors"


def _oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


_ID, _REV, _SLUG = r"(?P<id>[^/]+/[^/]+)", r"(?P<rev>refs/pr/\d+|[^/]+)", r"(?P<slug>[^/]+/[^/]+)"
_ROUTES = [
    ("POST", "/api/repos/create", _Handler.create),
    ("GET", "/api/whoami-v2", _Handler.whoami),
    ("POST", "/api/validate-yaml", _Handler.validate),
    ("POST", f"/api/models/{_ID}/preupload/{_REV}", _Handler.preupload),
    ("POST", f"/{_ID}\\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    ("PUT", "/lfs/(?P<oid>[0-9a-f]+)", _Handler.lfs_upload),
    ("POST", f"/api/models/{_ID}/commit/{_REV}", _Handler.commit),
    ("POST", f"/api/models/{_ID}/(?P<kind>branch|tag)/(?P<name>[^/]+)", _Handler.name),
    ("GET", f"/api/models/{_ID}", _Handler.info),
    ("GET", f"/api/models/{_ID}/discussions", _Handler.discussions),
    ("POST", f"/api/models/{_ID}/paths-info/{_REV}", _Handler.paths),
    ("GET", f"/api/models/{_ID}/revision/{_REV}", _Handler.info),
    ("GET", f"/api/models/{_ID}/tree/{_REV}", _Handler.tree),
    ("GET", "/api/collections", _Handler.collections),
    ("POST", "/api/collections", _Handler.create_collection),
    ("GET PATCH", f"/api/collections/{_SLUG}", _Handler.collection),
    ("POST", f"/api/collections/{_SLUG}/items", _Handler.add_item),
    ("GET HEAD", f"/spaces/{_ID}/resolve/{_REV}/(?P<path>.+)", _Handler.resolve),
    ("GET HEAD", f"/{_ID}/resolve/{_REV}/(?P<path>.+)", _Handler.resolve),
]
