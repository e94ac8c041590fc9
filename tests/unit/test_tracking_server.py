"""The client of MLflow's REST API and the modules that use it, against a server of this process that keeps users as MLflow does."""

from __future__ import annotations

import base64
import contextlib
import datetime
import http.client
import ipaddress
import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from ansible_collections.mlops.mlflow.plugins.module_utils import tracking_server
from ansible_collections.mlops.mlflow.plugins.modules import admin_password, permission, user
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

ADMIN = "p@s:s/w%o'r\"d $x\\"
ALICE = "alice's: passw%rd"
HASH = "scrypt:32768:8:1$olL6iKqm"


class State:
    """What MLflow would keep, and what was asked of it."""

    def __init__(self) -> None:
        self.users: dict[str, dict[str, Any]] = {"admin": {"id": 1, "is_admin": True, "password": ADMIN, "grants": {}}}
        self.experiments = {"Default": ("0", "active"), "old": ("8", "deleted")}
        self.asked: list[tuple[str, str]] = []
        self.answer: tuple[int, str, dict[str, str]] | None = None
        self.number = 100

    def writes(self) -> list[str]:
        """Return the last parts of what was asked with another method than GET."""
        return [path.rpartition("/")[2] for method, path in self.asked if method != "GET"]

    def add(self, name: str, password: str, **more: Any) -> None:
        """Put a user there."""
        self.number += 1
        self.users[name] = {"id": self.number, "is_admin": False, "password": password, "grants": {}} | more


class Refusal(Exception):
    """An answer with MLflow's code for an error."""


def missing() -> Refusal:
    """Return what MLflow says of something that is not there."""
    return Refusal(404, "RESOURCE_DOES_NOT_EXIST", "not found")


def act(state: State, who: str, method: str, path: str, values: dict[str, Any]) -> dict[str, Any]:
    """Do what a path of the API does."""
    kind, verb = path.split("/mlflow/")[1].rsplit("/", 1)
    name = values.get("username", "")
    if (kind, verb) == ("users", "create"):
        if name in state.users:
            raise Refusal(400, "RESOURCE_ALREADY_EXISTS", f"User (username={name}) already exists. Error: (IntegrityError)\n[parameters: ('{HASH}')]")
        state.add(name, values["password"])
        return {"user": {"id": state.users[name]["id"], "username": name, "is_admin": False}}
    if kind == "experiments":
        if verb == "create":
            state.number += 1
            state.experiments[values["name"]] = (str(state.number), "active")
            return {"experiment_id": str(state.number)}
        if values["experiment_name"] not in state.experiments:
            raise missing()
        number, stage = state.experiments[values["experiment_name"]]
        return {"experiment": {"experiment_id": number, "lifecycle_stage": stage}}
    if (kind, verb) == ("roles/permissions", "update"):
        for each in state.users.values():
            for key, (number, dummy) in each["grants"].items():
                if number == values["role_permission_id"]:
                    each["grants"][key] = (number, values["permission"])
                    return {}
        raise missing()
    if name not in state.users:
        raise missing()
    found = state.users[name]
    key = (values.get("resource_type"), values.get("resource_id"))
    if verb == "get":
        return {"user": {"id": found["id"], "username": name, "is_admin": found["is_admin"]}}
    if verb == "list":
        rows = [{"id": n, "permission": p, "resource_type": t, "resource_pattern": r} for (t, r), (n, p) in found["grants"].items()]
        group = {"name": "team", "workspace": "default", "permissions": [rows[0] | {"permission": "READ"}] if rows else []}
        return {"roles": [group, {"name": f"__user_{found['id']}__", "workspace": "default", "permissions": rows}]}
    if verb == "update-password":
        if who == name and values.get("current_password") != found["password"]:
            raise Refusal(400, "INVALID_PARAMETER_VALUE", "Current password is required when changing your own password.")
        found["password"] = values["password"]
    elif verb == "update-admin":
        found["is_admin"] = values["is_admin"]
    elif verb == "delete":
        del state.users[name]
    elif verb == "grant":
        if key in found["grants"]:
            raise Refusal(400, "RESOURCE_ALREADY_EXISTS", "Permission already exists.")
        state.number += 1
        found["grants"][key] = (state.number, values["permission"])
    elif verb == "revoke":
        if found["grants"].pop(key, None) is None:
            raise missing()
    return {}


class Handler(BaseHTTPRequestHandler):
    """MLflow's way to answer."""

    state: State

    def log_message(self, *arguments: Any) -> None:
        """Keep quiet."""

    def handle_all(self) -> None:
        """Answer one request."""
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        values = dict(parse_qsl(parts.query)) if self.command == "GET" else json.loads(body)
        self.state.asked.append((self.command, parts.path))
        status, text, headers = self.state.answer or (*self.decide(parts.path, values), {})
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def decide(self, path: str, values: dict[str, Any]) -> tuple[int, str]:
        """Say who may, and do it."""
        login = base64.b64decode(self.headers["Authorization"].split()[1]).decode()
        who, dummy, password = login.partition(":")
        if who not in self.state.users or self.state.users[who]["password"] != password:
            return 401, "You are not authenticated."
        own = path.endswith(("users/get", "update-password")) and values.get("username") == who
        if not self.state.users[who]["is_admin"] and not own:
            return 403, "Permission denied"
        try:
            return 200, json.dumps(act(self.state, who, self.command, path, values))
        except Refusal as error:
            status, code, message = error.args
            return status, json.dumps({"error_code": code, "message": message})

    do_GET = do_POST = do_PATCH = do_DELETE = handle_all


@contextlib.contextmanager
def served(state: State, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Run the server, and return its port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"state": state}))
    server.handle_error = lambda *arguments: None  # type: ignore[method-assign]
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(name="state")
def fixture_state() -> State:
    """Return a server's state with one user."""
    state = State()
    state.add("alice", ALICE)
    return state


@pytest.fixture(name="url")
def fixture_url(state: State) -> Iterator[str]:
    """Return the URL of a server with that state."""
    with served(state) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(name="server")
def fixture_server(url: str) -> tracking_server.Server:
    """Return the administrator's client."""
    return tracking_server.Server(url, "admin", ADMIN)


# The client


def test_users_and_their_passwords(server: tracking_server.Server, state: State) -> None:
    """Found, not found, let in and not, whatever characters the password has."""
    assert server.user("alice") == {"id": state.users["alice"]["id"], "username": "alice", "is_admin": False}
    assert server.user("bob & co") is None
    assert server.lets_in("alice", ALICE)
    assert not server.lets_in("alice", ALICE + "x")
    assert server.lets_in("admin", ADMIN)


def test_own_password(server: tracking_server.Server) -> None:
    """MLflow wants the old one with the new one, and the new one counts from then on."""
    server.set_password("admin", "another-password")
    assert server.password == "another-password"
    assert server.user("alice")


def test_grants_are_those_of_the_user_alone(server: tracking_server.Server, state: State) -> None:
    """A group's are not taken for his; a change keeps the row."""
    number = state.users["alice"]["id"]
    assert server.grants("alice", number) == {}
    server.grant("alice", "experiment", "0", "READ", None)
    found = server.grants("alice", number)[("experiment", "0")]
    server.grant("alice", "experiment", "0", "EDIT", found)
    assert server.grants("alice", number) == {("experiment", "0"): tracking_server.Grant(found.number, "EDIT")}
    assert state.writes() == ["grant", "update"]
    server.revoke("alice", "experiment", "0")
    assert server.grants("alice", number) == {}


def test_experiments_by_name(server: tracking_server.Server) -> None:
    """A deleted one keeps its name, and is no place for a permission."""
    assert (server.experiment("Default"), server.experiment("none")) == ("0", None)
    assert (server.resource("experiment", "*"), server.resource("registered_model", "none")) == ("*", "none")
    with pytest.raises(tracking_server.Failure, match="'old' is deleted: restore it"):
        server.experiment("old")
    assert server.experiment("new") is None and server.experiment("Default") != server.create_experiment("new")


def test_no_proxy_of_the_environment(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those are for the way out."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert tracking_server.Server(url, "admin", ADMIN).user("alice")


def test_the_password_does_not_follow_a_redirect(server: tracking_server.Server, state: State) -> None:
    """The other server is not even asked."""
    other = State()
    with served(other) as port:
        state.answer = (302, "", {"Location": f"http://127.0.0.1:{port}/api/2.0/mlflow/users/get?username=alice"})
        with pytest.raises(tracking_server.Failure, match="sends elsewhere"):
            server.user("alice")
    assert other.asked == []


def test_the_text_of_the_server_stops_before_the_hash(server: tracking_server.Server) -> None:
    """MLflow quotes its statement with the hash of the password."""
    with pytest.raises(tracking_server.Failure, match=r"User \(username=alice\) already exists\.?$") as caught:
        server.create_user("alice", "new-password-1")
    assert HASH not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, "You are not authenticated.", "login_password is not the password of login_username"),
        (403, "Permission denied", "login_username must be an administrator"),
        (403, "Invalid Host header - possible DNS rebinding attack detected", "mlflow_allowed_hosts"),
        (404, "<!doctype html>", "must be an MLflow with basic-auth and permissions by role"),
        (400, "<h1>No required SSL certificate was sent</h1>", "set client_cert and client_key"),
        (502, "<h1>Bad Gateway</h1>", "See the log of the server"),
        (500, '{"error_code": "INTERNAL_ERROR"}', "INTERNAL_ERROR"),
        (500, "[]", "See the log of the server"),
        (200, "<html>", "no JSON"),
        (200, "[]", "no JSON"),
    ],
)
def test_answers_that_are_no_success(server: tracking_server.Server, state: State, status: int, body: str, words: str) -> None:
    """Each says what to do about it, and none shows the password."""
    state.answer = (status, body, {})
    with pytest.raises(tracking_server.Failure) as caught:
        server.user("alice")
    assert words in str(caught.value)
    assert ADMIN not in str(caught.value)


@pytest.mark.parametrize(
    "uri", ["", "mlflow.example.org", "ftp://a", "http://", "http://a:x", "http://a:0", "http://a b", "http://ä", "http://a?b=c", "http://a\n"]
)
def test_no_url(uri: str) -> None:
    """It is shown, as there is no password in it."""
    with pytest.raises(tracking_server.Failure, match="tracking_uri is .*; use a URL such as"):
        tracking_server.Server(uri, "admin", ADMIN)


def test_a_url_with_a_password() -> None:
    """It is not shown."""
    with pytest.raises(tracking_server.Failure) as caught:
        tracking_server.Server("http://admin:tokenUrl@a", "admin", ADMIN)
    assert "tokenUrl" not in str(caught.value) and "login_password" in str(caught.value)


def test_a_url_with_a_prefix(state: State, url: str) -> None:
    """What the server is told as its prefix stands before every path."""
    tracking_server.Server(url + "/ml/", "admin", ADMIN).user("alice")
    assert state.asked == [("GET", "/ml/api/2.0/mlflow/users/get")]


def test_nobody_listens() -> None:
    """The port was free a moment ago."""
    with served(State()) as port:
        pass
    with pytest.raises(tracking_server.Failure, match="Cannot reach .*: Connection refused"):
        tracking_server.Server(f"http://127.0.0.1:{port}", "admin", ADMIN).user("alice")


@pytest.mark.parametrize(
    "error",
    [ConnectionResetError(104, "reset"), BrokenPipeError(32, "pipe"), http.client.RemoteDisconnected("closed"), ssl.SSLEOFError(8, "EOF occurred")],
)
def test_a_connection_that_ends(error: Exception) -> None:
    """With TLS it may be the client's certificate that is missing, without it the TLS."""
    assert "set client_cert and client_key" in str(tracking_server.unreachable("https://a", error, None))
    assert "The port may speak TLS" in str(tracking_server.unreachable("http://a", error, None))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (TimeoutError("timed out"), "does not answer in time"),
        (OSError(-2, "Name or service not known"), "Cannot reach http://a: Name or service not known"),
    ],
)
def test_no_answer(error: OSError, words: str) -> None:
    """By the kind of what the system says."""
    assert words in str(tracking_server.unreachable("http://a", error, None))


# TLS


class Authority:
    """A CA that writes certificates into a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "CA")])
        self.file = self.write("ca", self.certificate(self.name, self.key, x509.BasicConstraints(ca=True, path_length=None)))

    def certificate(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *extensions: x509.ExtensionType) -> bytes:
        """Return a certificate in PEM."""
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self.name).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
        builder = builder.not_valid_after(now + datetime.timedelta(days=1))
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def write(self, name: str, content: bytes) -> str:
        """Write a file and return its path."""
        path = self.folder / f"{name}.pem"
        path.write_bytes(content)
        return str(path)

    def issue(self, name: str, passphrase: bytes = b"") -> tuple[str, str]:
        """Return the files of a certificate for an address or a name, and of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        general = x509.IPAddress(ipaddress.ip_address(name)) if name[0].isdigit() else x509.DNSName(name)
        secret = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret)
        alternative = x509.SubjectAlternativeName([general])
        return self.write(f"{name}-crt", self.certificate(subject, key, alternative)), self.write(f"{name}-key", pem)


@pytest.fixture(scope="module", name="authority")
def fixture_authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return a CA of the tests."""
    return Authority(tmp_path_factory.mktemp("ca"))


def tls(files: tuple[str, str], client_ca: str = "") -> ssl.SSLContext:
    """Return the settings of a server that may ask for certificates of clients."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=client_ca or None)
    context.load_cert_chain(*files)
    context.verify_mode = ssl.CERT_REQUIRED if client_ca else ssl.CERT_NONE
    return context


def test_tls_is_checked(authority: Authority, state: State) -> None:
    """Trusted by the CA of ca_file, by no other, and only for its own name."""
    with served(state, tls(authority.issue("127.0.0.1"))) as port:
        url = f"https://127.0.0.1:{port}"
        assert tracking_server.Server(url, "admin", ADMIN, ca_file=authority.file).user("alice")
        asked = len(state.asked)
        with pytest.raises(tracking_server.Failure, match=r"not trusted by the CAs of the system \(no ca_file\).*Set ca_file"):
            tracking_server.Server(url, "admin", ADMIN).user("alice")
        with pytest.raises(tracking_server.Failure, match="ended the connection|reset|may speak TLS"):
            tracking_server.Server(f"http://127.0.0.1:{port}", "admin", ADMIN).user("alice")
    with served(state, tls(authority.issue("other.example.org"))) as port, pytest.raises(tracking_server.Failure, match="is for another name"):
        tracking_server.Server(f"https://127.0.0.1:{port}", "admin", ADMIN, ca_file=authority.file).user("alice")
    assert len(state.asked) == asked


def test_tls_where_there_is_none(url: str) -> None:
    """The remedy is another scheme."""
    with pytest.raises(tracking_server.Failure, match="try http://"):
        tracking_server.Server(url.replace("http:", "https:"), "admin", ADMIN).user("alice")


def test_certificates_of_clients(authority: Authority, state: State) -> None:
    """In without a doubt with one, and told what is missing without."""
    certificate, key = authority.issue("client")
    with served(state, tls(authority.issue("127.0.0.1"), authority.file)) as port:
        url = f"https://127.0.0.1:{port}"
        assert tracking_server.Server(url, "admin", ADMIN, authority.file, certificate, key).user("alice")
        with pytest.raises(tracking_server.Failure, match="set client_cert and client_key"):
            tracking_server.Server(url, "admin", ADMIN, authority.file).user("alice")


def test_files_that_cannot_be_used(authority: Authority, tmp_path: Path) -> None:
    """Each names its option; a key with a passphrase does not wait for one at a terminal."""
    certificate, key = authority.issue("client2")
    other, locked = authority.issue("client3", b"passphrase")
    (tmp_path / "empty").write_text("", encoding="utf-8")
    cases: list[tuple[tuple[str, str, str], str]] = [
        (("/nowhere", "", ""), "ca_file is /nowhere, which cannot be used: No such file"),
        ((str(tmp_path / "empty"), "", ""), "ca_file is .*empty, which cannot be used"),
        (("", "", key), "client_key needs client_cert"),
        (("", "/nowhere", ""), "client_cert /nowhere cannot be used: No such file"),
        (("", certificate, locked), "client_cert .* and client_key .* cannot be used"),
        (("", other, locked), "without a passphrase"),
    ]
    for (ca_file, cert, key_file), words in cases:
        with pytest.raises(tracking_server.Failure, match=words):
            tracking_server.Server("https://a", "admin", ADMIN, ca_file, cert, key_file)
    with pytest.raises(tracking_server.Failure, match="nobody asks for client_cert"):
        tracking_server.Server("http://a", "admin", ADMIN, client_cert=certificate)


# The modules


def options(url: str, **more: Any) -> dict[str, Any]:
    """Return the parameters of module user, with their defaults."""
    login = {"tracking_uri": url, "login_username": "admin", "login_password": ADMIN, "ca_file": None, "client_cert": None, "client_key": None, "timeout": 30}
    own = {"password": None, "update_password": "always", "admin": None, "state": "present", "create": False, "exact_permissions": False}
    return login | own | {"experiments": {}, "registered_models": {}, "prompts": {}} | more


def run(url: str, check: bool = False, **more: Any) -> user.Work:
    """Run module user."""
    work = user.Work(SimpleNamespace(params=options(url, **more), check_mode=check))
    work.run()
    return work


BOB = {
    "name": "bob",
    "password": "tokenBob-12345",
    "admin": True,
    "create": True,
    "experiments": {"churn": "EDIT", "*": "READ"},
    "registered_models": {"later": "DENY"},
}


def test_a_user_is_made_once(url: str, state: State) -> None:
    """Check mode tells the same and writes nothing; the second run finds it done."""
    expected = [
        "made the user",
        "made the user an administrator",
        "made the experiment churn",
        "gave EDIT on experiment churn",
        "gave READ on experiment *",
        "gave DENY on registered_model later",
    ]
    checked = run(url, check=True, **BOB)
    assert (checked.changes, state.writes()) == (expected, [])
    done = run(url, **BOB)
    assert (done.changes, done.diff) == (expected, checked.diff)
    assert state.users["bob"]["is_admin"]
    given = {resource: given for (dummy, resource), (dummy2, given) in state.users["bob"]["grants"].items()}
    assert given == {state.experiments["churn"][0]: "EDIT", "*": "READ", "later": "DENY"}
    count = len(state.writes())
    again = run(url, **BOB)
    assert (again.changes, again.diff, len(state.writes())) == ([], {"before": {}, "after": {}}, count)


def test_changes_of_permissions(url: str, state: State) -> None:
    """What is not listed stays, unless the set is exact; then owners keep theirs."""
    state.users["alice"]["grants"] = {("experiment", "0"): (1, "READ"), ("registered_model", "m"): (2, "USE"), ("prompt", "own"): (3, "MANAGE")}
    first = run(url, name="alice", experiments={"Default": "EDIT"})
    assert first.diff == {"before": {"experiment Default": "READ"}, "after": {"experiment Default": "EDIT"}}
    assert run(url, name="alice", experiments={"Default": "EDIT"}).changes == []
    exact = run(url, name="alice", experiments={"Default": "EDIT"}, exact_permissions=True)
    assert exact.changes == ["took USE on registered_model m"]
    none = run(url, name="alice", exact_permissions=True)
    assert none.changes == ["took EDIT on experiment with id 0"]
    assert state.users["alice"]["grants"] == {("prompt", "own"): (3, "MANAGE")}


def test_passwords(url: str, state: State) -> None:
    """Set when the user does not have it, and in no output."""
    assert run(url, name="alice", password=ALICE).changes == []
    assert run(url, name="alice", password="tokenNew-12345", update_password="on_create").changes == []
    assert run(url, name="alice", password="tokenNew-12345", check=True).changes == ["set the password"]
    assert state.writes() == []
    work = run(url, name="alice", password="tokenNew-12345")
    assert work.changes == ["set the password"]
    assert "token" not in json.dumps(work.diff)
    assert state.users["alice"]["password"] == "tokenNew-12345"


def test_the_password_of_whoever_logs_in(url: str, state: State) -> None:
    """The old one in login_password does, before and after."""
    for expected in (["set the password"], []):
        assert run(url, name="admin", password="tokenNew-12345").changes == expected
    assert state.users["admin"]["password"] == "tokenNew-12345"


def test_deletion(url: str, state: State) -> None:
    """Once; and never of whoever logs in."""
    assert run(url, name="alice", state="absent", check=True).changes == ["deleted the user"]
    assert "alice" in state.users
    assert run(url, name="alice", state="absent").changes == ["deleted the user"]
    assert run(url, name="alice", state="absent").changes == []
    for more in ({"state": "absent"}, {"admin": False}):
        with pytest.raises(tracking_server.Failure, match="name is login_username"):
            run(url, name="admin", **more)
    assert state.users["admin"]["is_admin"]


@pytest.mark.parametrize("more", [{"experiments": {"none": "READ"}}, {"experiments": {"old": "READ"}, "create": True}, {"password": None}])
def test_what_cannot_be_done_leaves_nothing_half_done(url: str, state: State, more: dict[str, Any]) -> None:
    """An experiment that is not there, one that is deleted, a password that is missing."""
    with pytest.raises(tracking_server.Failure):
        run(url, **({"name": "bob", "password": "tokenBob-12345"} | more))
    assert state.writes() == []


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"name": "a:b"}, "name: the name 'a:b' has a colon"),
        ({"name": "a", "password": "short"}, "password: MLflow wants 12"),
        ({"name": "a", "password": ""}, "password: the password is empty"),
        ({"name": "a", "prompts": {"p": "ALL"}}, "prompts.p: the permission 'ALL' is unknown"),
    ],
)
def test_options_of_user(more: dict[str, Any], words: str) -> None:
    """Refused before the server is asked."""
    assert words in str(user.option_problem(options("http://a", **more)))


def test_good_options_of_user() -> None:
    """Who is to be deleted needs none that are right."""
    assert user.option_problem(options("http://a", name="a", password=ALICE, experiments={"x": "DENY"})) is None
    assert user.option_problem(options("http://a", name="a", password="short", state="absent")) is None


def give(url: str, check: bool = False, **more: Any) -> tuple[bool, str]:
    """Run module permission."""
    own = {"user": "alice", "resource_type": "experiment", "name": "Default", "permission": "READ", "state": "present", "create": False}
    return permission.apply(SimpleNamespace(params=options(url) | own | more, check_mode=check))


def test_one_permission(url: str, state: State) -> None:
    """Given, changed and taken, each once; what was there before is told."""
    assert give(url, check=True) == (True, "")
    assert state.writes() == []
    assert [give(url), give(url), give(url, permission="EDIT")] == [(True, ""), (False, "READ"), (True, "READ")]
    assert give(url, state="absent", check=True) == (True, "EDIT")
    assert [give(url, state="absent"), give(url, state="absent")] == [(True, "EDIT"), (False, "")]
    assert state.writes() == ["grant", "update", "revoke"]


def test_a_permission_for_what_is_not_there(url: str, state: State) -> None:
    """A user must be there, an experiment may be made, and there is nothing to take away."""
    with pytest.raises(tracking_server.Failure, match="There is no user 'bob'"):
        give(url, user="bob")
    assert give(url, user="bob", check=True) == (True, "")
    with pytest.raises(tracking_server.Failure, match="There is no experiment 'new'"):
        give(url, name="new")
    assert [give(url, user="bob", state="absent"), give(url, name="new", state="absent")] == [(False, ""), (False, "")]
    assert state.writes() == []
    assert give(url, name="new", create=True, check=True) == (True, "")
    assert give(url, name="new", create=True) == (True, "")
    assert give(url, name="new") == (False, "READ")


# The administrator's password


class Store:
    """MLflow's own store, as far as the module asks it."""

    def __init__(self, password: str, is_admin: bool) -> None:
        self.password = password
        self.is_admin = is_admin

    def has_user(self, name: str) -> bool:
        """Only one is there."""
        return name == "admin"

    def authenticate_user(self, name: str, password: str) -> bool:
        """Compare."""
        return password == self.password

    def get_user(self, name: str) -> Any:
        """Return his row."""
        return SimpleNamespace(is_admin=self.is_admin)


def test_what_the_administrator_needs() -> None:
    """Nothing, a password, the rights, or all of it."""
    assert admin_password.changes_for(Store(ADMIN, True), "admin", ADMIN) == []
    assert admin_password.changes_for(Store(ADMIN, True), "admin", ALICE) == ["set the password"]
    assert admin_password.changes_for(Store(ADMIN, False), "admin", ALICE) == ["set the password", "made the user an administrator"]
    assert admin_password.changes_for(Store(ADMIN, True), "boss", ADMIN) == ["made the administrator"]


def test_the_url_of_the_database_of_users(tmp_path: Path) -> None:
    """As MLflow reads it, with its percent signs; what is wrong with the file does not show a line of it."""
    path = tmp_path / "basic_auth.ini"
    path.write_text("[mlflow]\ndatabase_uri = postgresql://u:p%%40@h/x\n", encoding="utf-8")
    assert admin_password.database_uri(str(path)) == "postgresql://u:p%40@h/x"
    for content in ("database_uri = tokenDb\n", "[mlflow]\n[mlflow] tokenDb\n", "[mlflow]\nx = tokenDb\n", "[mlflow]\ndatabase_uri = %(tokenDb)s\n"):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match="has no database_uri") as caught:
            admin_password.database_uri(str(path))
        assert "tokenDb" not in str(caught.value)
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        admin_password.database_uri(str(tmp_path / "none"))


def test_errors_of_the_database_show_no_password() -> None:
    """Neither as it is nor as the URL has it."""
    uri = "postgresql://u:p%40tokenDb@h/x"
    for text in (uri, "p%40tokenDb", "p@tokenDb", f"x {ADMIN} y"):
        shown = admin_password.without_secrets(f"error: {text}", uri, ADMIN)
        assert "tokenDb" not in shown and ADMIN not in shown and "(not shown)" in shown
