# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""A small client of MLflow's REST API for users and permissions: the standard library alone, so that it runs with any host's Python."""

from __future__ import annotations

import base64
import http.client
import json
import re
import ssl
import urllib.error
import urllib.request
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from ansible_collections.mlops.mlflow.plugins.module_utils.accounts import EVERYTHING

API = "/api/2.0/mlflow"
API_3 = "/api/3.0/mlflow"
LONGEST_MESSAGE = 300

# The ways in which a connection ends that nobody answers on.
ENDED = (http.client.HTTPException, ConnectionResetError, ConnectionAbortedError, BrokenPipeError, ssl.SSLEOFError, ssl.SSLZeroReturnError)

# The options of every module that talks to the server.
OPTIONS: dict[str, dict[str, Any]] = {
    "tracking_uri": {"type": "str", "required": True},
    "login_username": {"type": "str", "default": "admin"},
    "login_password": {"type": "str", "required": True, "no_log": True},
    "ca_file": {"type": "path"},
    "client_cert": {"type": "path"},
    "client_key": {"type": "path", "no_log": False},
    "timeout": {"type": "int", "default": 30},
}


class Failure(Exception):
    """A request that did not do what it should; the text names the option to change, and holds no secret."""

    def __init__(self, message: str, status: int = 0, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Grant(NamedTuple):
    """A permission that a user has by himself, not by a role of several: the number of its row, and its name."""

    number: int
    permission: str


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The password stays with the server that was named."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        """Follow nothing, which leaves the answer as it is."""
        return None


def base_url(tracking_uri: str) -> str:
    """Return the URL that paths of the API are added to.

    Args:
        tracking_uri: ``http`` or ``https``, a host, a port and a prefix if need be.

    Raises:
        Failure: it is another kind of URL, or holds a password.
    """
    try:
        parts = urlsplit(tracking_uri)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and re.fullmatch("[!-~]+", tracking_uri) is not None
    except ValueError:
        usable = False
    if "@" in tracking_uri:
        raise Failure("tracking_uri holds a user or a password; put them into login_username and login_password, and leave them out there.")
    if not usable or parts.query or parts.fragment:
        raise Failure(f"tracking_uri is {tracking_uri!r}; use a URL such as https://mlflow.example.org.")
    return tracking_uri.rstrip("/")


def tls_context(ca_file: str | None, client_cert: str | None, client_key: str | None) -> ssl.SSLContext:
    """Make the TLS settings of the client.

    Args:
        ca_file: PEM file with the CAs to trust; None or empty for those of the system.
        client_cert: PEM file with the client's own certificate, and its key unless that has a file of its own.
        client_key: PEM file with the key, without a passphrase.

    Raises:
        Failure: a file cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ValueError) as error:
        raise Failure(f"ca_file is {ca_file}, which cannot be used: {_reason(error)}; name a PEM file with the CA of the server.") from error
    if client_key and not client_cert:
        raise Failure("client_key needs client_cert, the certificate that it belongs to.")
    if client_cert:
        try:
            # With an empty passphrase an encrypted key is an error, not a question at a terminal that nobody sees.
            context.load_cert_chain(client_cert, client_key or None, password="")
        except (OSError, ValueError) as error:
            files = f"{client_cert} and client_key {client_key}" if client_key else client_cert
            raise Failure(
                f"client_cert {files} cannot be used: {_reason(error)}; name PEM files, a certificate and the key that belongs to it, without a passphrase."
            ) from error
    return context


def _reason(error: BaseException) -> str:
    """Say shortly what an error of the system or of OpenSSL means."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError) and getattr(error, "reason", None):
        return error.reason.lower().replace("_", " ")
    return str(getattr(error, "strerror", None) or error or type(error).__name__)


def unreachable(url: str, error: BaseException, ca_file: str | None) -> Failure:
    """Say why there was no answer at all.

    Args:
        url: the tracking URI.
        error: of urllib, of a socket, of TLS, or of http.client.
        ca_file: the option.
    """
    cause = error.reason if isinstance(error, urllib.error.URLError) and isinstance(error.reason, BaseException) else error
    reason = _reason(cause)
    if isinstance(cause, ssl.SSLCertVerificationError):
        # 62 and 64: the name, or the address, is another.
        if cause.verify_code in (62, 64):
            return Failure(f"The certificate of {url} is for another name: {reason}. Use a name in tracking_uri that is in the certificate.")
        trusted = ca_file or "the CAs of the system (no ca_file)"
        return Failure(f"The certificate of {url} is not trusted by {trusted}: {reason}. Set ca_file to a PEM file with the CA of the server.")
    if isinstance(cause, ENDED):
        # A TLS 1.3 server that misses the client's certificate says so only after the handshake, and the end may come before its word.
        hint = "If it asks for a certificate of the client, set client_cert and client_key" if url.startswith("https:") else "The port may speak TLS"
        return Failure(f"{url} ended the connection without an answer ({type(cause).__name__}). {hint}; or the port is another program's.")
    if isinstance(cause, ssl.SSLError):
        if "certificate required" in reason or "handshake failure" in reason:
            return Failure(f"{url} ends the TLS handshake: {reason}. If it asks for a certificate of the client, set client_cert and client_key.")
        hint = "The port may speak plain HTTP: try http:// in tracking_uri." if "wrong version" in reason or "record layer" in reason else "See its log."
        return Failure(f"{url} does not speak TLS as it should: {reason}. {hint}")
    if isinstance(cause, TimeoutError):
        return Failure(f"{url} does not answer in time. See whether a firewall is between, whether the server works, and raise timeout if it is only slow.")
    return Failure(f"Cannot reach {url}: {reason}. See whether tracking_uri is right and the server runs.")


def explain(url: str, status: int, body: str, username: str) -> Failure:
    """Say what an answer means that is not a success.

    Of the server's own text one line is passed on, as the rest may be a statement of SQL with the hash of a password in it.

    Args:
        url: the tracking URI.
        status: of HTTP.
        body: the answer.
        username: who asked.
    """
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        answer = {}
    code = str(answer.get("error_code", ""))
    said = re.split(r" Error: |\n", str(answer.get("message", "")), maxsplit=1)[0][:LONGEST_MESSAGE]
    if status == 401:
        return Failure(f"{url} does not let {username!r} in: login_password is not the password of login_username, or there is no such user.", status, code)
    if status == 403 and "Host header" in body:
        return Failure(f"{url} does not know itself by that name: use another one in tracking_uri, or add it to mlflow_allowed_hosts.", status, code)
    if status == 403:
        return Failure(f"{url} does not allow it to {username!r}: login_username must be an administrator of MLflow.", status, code)
    if 300 <= status < 400:
        return Failure(f"{url} sends elsewhere (HTTP {status}), where the password does not follow; use the final address in tracking_uri.", status, code)
    if code:
        return Failure(f"{url}: {said or code}", status, code)
    if status == 404:
        return Failure(
            f"{url} has no such API (HTTP 404). It must be an MLflow with basic-auth and permissions by role (3.17 is); see also the path in tracking_uri.",
            status,
        )
    if status in (400, 495, 496) and "certificate" in body.lower():
        return Failure(f"{url} wants a certificate of the client (HTTP {status}): set client_cert and client_key.", status)
    return Failure(f"{url} does not answer as MLflow does (HTTP {status}). See the log of the server, and of a proxy before it.", status)


class Server:
    """MLflow's server, as an administrator uses it."""

    def __init__(
        self,
        tracking_uri: str,
        login_username: str,
        login_password: str,
        ca_file: str | None = None,
        client_cert: str | None = None,
        client_key: str | None = None,
        timeout: int = 30,
    ) -> None:
        """See the options of the modules.

        Raises:
            Failure: an option cannot be used.
        """
        self.url = base_url(tracking_uri)
        self.username = login_username
        self.password = login_password
        self._ca_file = ca_file
        self._timeout = timeout
        handlers: list[Any] = [urllib.request.ProxyHandler({}), _NoRedirect()]
        if self.url.startswith("https:"):
            handlers.append(urllib.request.HTTPSHandler(context=tls_context(ca_file, client_cert, client_key)))
        elif client_cert or client_key:
            raise Failure(f"tracking_uri is {self.url}, where nobody asks for client_cert; use https://.")
        self._opener = urllib.request.build_opener(*handlers)

    def call(self, method: str, path: str, values: dict[str, Any], login: tuple[str, str] | None = None) -> dict[str, Any]:
        """Send one request.

        Args:
            method: of HTTP.
            path: of the API.
            values: the parameters; GET has them in its query, the others have them as JSON.
            login: user and password, if not the administrator's.

        Returns:
            The answer.

        Raises:
            Failure: with the status and MLflow's code for the error, if it got that far.
        """
        username, password = login or (self.username, self.password)
        query = f"?{urlencode(values, quote_via=quote)}" if method == "GET" else ""
        request = urllib.request.Request(f"{self.url}{path}{query}", method=method)
        if method != "GET":
            request.data = json.dumps(values).encode()
            request.add_header("Content-Type", "application/json")
        request.add_header("Authorization", "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode())
        try:
            try:
                reply = self._opener.open(request, timeout=self._timeout)
            except urllib.error.HTTPError as error:
                reply = error
            with reply:
                status, body = reply.status, reply.read().decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as error:
            raise unreachable(self.url, error, self._ca_file) from None
        if not 200 <= status < 300:
            raise explain(self.url, status, body, username)
        try:
            answer = json.loads(body)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise Failure(f"{self.url} does not answer as MLflow does (HTTP {status}, and no JSON); see whether tracking_uri is right.", status)
        return answer

    def _find(self, path: str, values: dict[str, Any]) -> dict[str, Any] | None:
        """Get something that need not be there."""
        try:
            return self.call("GET", path, values)
        except Failure as error:
            if error.code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise

    def user(self, name: str) -> dict[str, Any] | None:
        """Return ``id`` and ``is_admin`` of a user, None when there is none by that name."""
        found = self._find(f"{API}/users/get", {"username": name})
        return None if found is None else found["user"]

    def lets_in(self, name: str, password: str) -> bool:
        """Tell whether a user logs in with a password; what he asks for then is his own row, which everybody may see."""
        try:
            self.call("GET", f"{API}/users/get", {"username": name}, (name, password))
        except Failure as error:
            if error.status == 401:
                return False
            raise
        return True

    def create_user(self, name: str, password: str) -> dict[str, Any]:
        """Make a user, who is no administrator and has no permissions."""
        return self.call("POST", f"{API}/users/create", {"username": name, "password": password})["user"]

    def set_password(self, name: str, password: str) -> None:
        """Give a user another password."""
        values = {"username": name, "password": password}
        if name == self.username:
            values["current_password"] = self.password
        self.call("PATCH", f"{API}/users/update-password", values)
        if name == self.username:
            self.password = password

    def set_admin(self, name: str, admin: bool) -> None:
        """Make a user an administrator, or no longer."""
        self.call("PATCH", f"{API}/users/update-admin", {"username": name, "is_admin": admin})

    def delete_user(self, name: str) -> None:
        """Delete a user with his permissions; what he made stays."""
        self.call("DELETE", f"{API}/users/delete", {"username": name})

    def grants(self, name: str, number: int) -> dict[tuple[str, str], Grant]:
        """Return what a user has by himself.

        MLflow keeps it in a role of that user alone, which has his number in its name.

        Args:
            name: the user.
            number: his ``id``.

        Returns:
            Grants by kind of resource, and id (of an experiment) or name.
        """
        roles = self.call("GET", f"{API_3}/users/roles/list", {"username": name})["roles"]
        own = [role for role in roles if role["name"] == f"__user_{number}__" and role.get("workspace", "default") == "default"]
        rows = [row for role in own for row in role["permissions"]]
        return {(row["resource_type"], row["resource_pattern"]): Grant(row["id"], row["permission"]) for row in rows}

    def grant(self, user: str, kind: str, resource: str, permission: str, present: Grant | None) -> None:
        """Give a user a permission; one that he has is changed in its place, so that he never is without any."""
        if present is not None:
            self.call("PATCH", f"{API_3}/roles/permissions/update", {"role_permission_id": present.number, "permission": permission})
            return
        values = {"username": user, "resource_type": kind, "resource_id": resource, "permission": permission}
        self.call("POST", f"{API_3}/users/permissions/grant", values)

    def revoke(self, user: str, kind: str, resource: str) -> None:
        """Take a permission from a user."""
        self.call("POST", f"{API_3}/users/permissions/revoke", {"username": user, "resource_type": kind, "resource_id": resource})

    def experiment(self, name: str) -> str | None:
        """Return the id of an experiment, None when there is none by that name.

        Raises:
            Failure: it is there as a deleted one, which keeps its name.
        """
        found = self._find(f"{API}/experiments/get-by-name", {"experiment_name": name})
        if found is None:
            return None
        if found["experiment"].get("lifecycle_stage") == "deleted":
            raise Failure(f"The experiment {name!r} is deleted: restore it (mlflow experiments restore), remove it for good (mlflow gc), or leave it out.")
        return str(found["experiment"]["experiment_id"])

    def resource(self, kind: str, name: str) -> str | None:
        """Return what a permission is given on: the id of an experiment, or None when there is none by that name; otherwise the name.

        MLflow keeps permissions on models and prompts by name, and takes them before there is one.
        """
        return self.experiment(name) if kind == "experiment" and name != EVERYTHING else name

    def create_experiment(self, name: str) -> str:
        """Make an experiment with its artifacts where the server puts them, and return its id."""
        return str(self.call("POST", f"{API}/experiments/create", {"name": name})["experiment_id"])


def connect(options: dict[str, Any]) -> Server:
    """Make a server of a module's options (``OPTIONS``)."""
    return Server(**{name: options[name] for name in OPTIONS})
