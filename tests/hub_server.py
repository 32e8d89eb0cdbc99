"""A small server that speaks the part of the Hugging Face Hub's protocol that pushing and pulling use, with LFS.

Paths and fields are those that huggingface_hub 2.4 sends: /api/repos/create, /api/models/...,
.git/info/lfs/objects/batch and .../resolve/REVISION/FILE.
"""

import base64
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = 'hf_' + 'abcdefghijklmnop'


class Repo:
    """A repository: commits, each with all its files, and branches."""

    def __init__(self, private: bool) -> None:
        self.private = private
        self.commits: dict[str, dict[str, bytes]] = {}
        self.branches: dict[str, str] = {}
        self.commit('main', {'.gitattributes': b'*.safetensors filter=lfs\n'})

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        """Adds files to a branch, and returns the commit."""
        old = self.commits.get(self.branches.get(branch), {})
        digest = hashlib.sha1(repr((len(self.commits), branch, sorted(files))).encode()).hexdigest()
        self.commits[digest], self.branches[branch] = {**old, **files}, digest
        return digest

    def resolve(self, revision: str) -> str | None:
        """Returns the commit of a branch, or of a commit."""
        return self.branches.get(revision) or (revision if revision in self.commits else None)


class HubServer(ThreadingHTTPServer):
    """The server.

    Attributes:
        repos: By owner and name.
        lfs: Large files by their SHA-256.
        asked: Method and path of each request.
        fail: By part of a path, the status to answer with.
        cut: How many of the next downloads break off in the middle.
        swap: Bytes to send for the adapter file, of the same length, in the place of the right ones.
    """
    daemon_threads = True

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.lfs: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.fail: dict[str, int] = {}
        self.cut = 0
        self.swap: bytes | None = None
        super().__init__(('127.0.0.1', 0), Handler)

    @property
    def endpoint(self) -> str:
        return f'http://127.0.0.1:{self.server_port}'


class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    server: HubServer

    def answer(self, status: int, content: object = b'', **headers: str) -> None:
        """Sends an answer; content that is not bytes is sent as JSON."""
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace('_', '-'), value)
        if 'Content_Length' not in headers:
            self.send_header('Content-Length', str(len(data)))
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(data)

    def refuse(self, status: int, code: str, message: str) -> None:
        self.answer(status, dict(error=message), X_Error_Code=code, X_Error_Message=message)

    def handle_one(self) -> None:
        """Answers a request."""
        self.body = self.rfile.read(int(self.headers.get('Content-Length') or 0))
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(f'{self.command} {path}')
        if status := next((status for part, status in self.server.fail.items() if part in path), None):
            return self.refuse(status, '', f'made to fail, with {TOKEN} in it')
        for method, pattern, needs_token, action in ROUTES:
            if method == self.command and (found := re.fullmatch(pattern, path)):
                if needs_token and self.headers.get('Authorization') != f'Bearer {TOKEN}':
                    return self.refuse(401, '', 'Invalid credentials in Authorization header')
                return action(self, **found.groupdict())
        return self.refuse(404, '', f'no route for {self.command} {path}')

    do_GET = do_POST = do_PUT = do_HEAD = handle_one

    def repo(self, name: str) -> Repo | None:
        """Returns a repository that this user may see, or answers that there is none."""
        found = self.server.repos.get(name)
        if found is None or (found.private and self.headers.get('Authorization') != f'Bearer {TOKEN}'):
            self.refuse(404 if self.headers.get('Authorization') else 401, 'RepoNotFound', 'Repository not found')
            return None
        return found

    def whoami(self) -> None:
        self.answer(200, dict(type='user', name='me', orgs=[]))

    def create(self) -> None:
        asked = json.loads(self.body)
        name = f'{asked.get("organization") or "me"}/{asked["name"]}'
        if not name.startswith('me/'):
            return self.refuse(403, '', 'You do not have the rights to create a model there')
        self.server.repos[name] = Repo(asked.get('private') or asked.get('visibility') == 'private')
        return self.answer(200, dict(url=f'{self.server.endpoint}/{name}', name=name))

    def info(self, name: str, revision: str = 'main') -> None:
        if repo := self.repo(name):
            files = repo.commits[repo.resolve(revision)]
            self.answer(200, dict(id=name, modelId=name, private=repo.private, sha=repo.resolve(revision), tags=[],
                                  siblings=[dict(rfilename=file) for file in files]))

    def refs(self, name: str) -> None:
        if repo := self.repo(name):
            self.answer(200, dict(converts=[], tags=[], pullRequests=[], branches=[
                dict(name=branch, ref=f'refs/heads/{branch}', targetCommit=commit)
                for branch, commit in repo.branches.items()]))

    def branch(self, name: str, revision: str) -> None:
        if repo := self.repo(name):
            repo.branches[revision] = repo.branches['main']
            self.answer(200)

    def preupload(self, name: str, revision: str) -> None:
        if self.repo(name):
            self.answer(200, dict(files=[dict(
                path=file['path'], shouldIgnore=False,
                uploadMode='lfs' if file['path'].endswith('.safetensors') else 'regular')
                for file in json.loads(self.body)['files']]))

    def batch(self, name: str) -> None:
        self.answer(200, dict(transfer='basic', objects=[dict(
            each, authenticated=True, **({} if each['oid'] in self.server.lfs else dict(actions=dict(
                upload=dict(href=f'{self.server.endpoint}/lfs/{each["oid"]}')))))
            for each in json.loads(self.body)['objects']]))

    def put(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            return self.refuse(400, '', 'another SHA-256')
        self.server.lfs[oid] = self.body
        return self.answer(200)

    def commit(self, name: str, revision: str) -> None:
        repo = self.repo(name)
        header, *operations = (json.loads(line) for line in self.body.splitlines())
        parent = header['value'].get('parentCommit')
        if parent and parent != repo.branches[revision]:
            return self.refuse(412, '', 'A commit has happened since')
        files = {}
        for operation in operations:
            value = operation['value']
            files[value['path']] = (self.server.lfs[value['oid']] if operation['key'] == 'lfsFile' else
                                    base64.b64decode(value['content']))
        digest = repo.commit(revision, files)
        return self.answer(200, dict(commitUrl=f'{self.server.endpoint}/{name}/commit/{digest}', commitOid=digest))

    def resolve(self, name: str, revision: str, file: str) -> None:
        repo = self.repo(name)
        if repo is None:
            return None
        commit = repo.resolve(revision)
        if commit is None:
            return self.refuse(404, 'RevisionNotFound', 'Invalid rev id')
        if file not in repo.commits[commit]:
            return self.answer(404, dict(error='Entry not found'), X_Error_Code='EntryNotFound', X_Repo_Commit=commit)
        content = repo.commits[commit][file]
        etag = hashlib.sha256(content).hexdigest()
        size = str(len(content))
        if self.server.swap and file.endswith('.safetensors'):
            content = self.server.swap
        start = int((self.headers.get('Range') or 'bytes=0-').partition('=')[2].partition('-')[0])
        content = content[start:]
        if self.server.cut and self.command == 'GET':
            self.server.cut -= 1
            self.close_connection = True
            content = content[:len(content) // 2]
        return self.answer(206 if start else 200, content, ETag=f'"{etag}"', X_Repo_Commit=commit,
                           X_Linked_Etag=f'"{etag}"', X_Linked_Size=size, Content_Length=str(int(size) - start))

    def yaml(self) -> None:
        text = json.loads(self.body)['content']
        self.answer(200, dict(errors=[] if text.startswith('---\n') else [dict(message='no YAML')], warnings=[]))

    def log_message(self, *args) -> None:
        pass


REPO = r'(?P<name>[^/]+/[^/]+)'
ROUTES = [
    ('GET', '/api/whoami-v2', True, Handler.whoami),
    ('POST', '/api/repos/create', True, Handler.create),
    ('POST', '/api/validate-yaml', False, Handler.yaml),
    ('GET', f'/api/models/{REPO}', False, Handler.info),
    ('GET', f'/api/models/{REPO}/revision/(?P<revision>.+)', False, Handler.info),
    ('GET', f'/api/models/{REPO}/refs', False, Handler.refs),
    ('POST', f'/api/models/{REPO}/branch/(?P<revision>.+)', True, Handler.branch),
    ('POST', f'/api/models/{REPO}/preupload/(?P<revision>.+)', True, Handler.preupload),
    ('POST', f'/api/models/{REPO}/commit/(?P<revision>.+)', True, Handler.commit),
    ('POST', fr'/{REPO}\.git/info/lfs/objects/batch', True, Handler.batch),
    ('PUT', '/lfs/(?P<oid>[0-9a-f]+)', False, Handler.put),
    *((method, f'/{REPO}/resolve/(?P<revision>[^/]+)/(?P<file>.+)', False, Handler.resolve)
      for method in ('GET', 'HEAD')),
]
