# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""A small client for PostgreSQL's protocol, version 3. Standard library only.

The checks before an installation run on hosts that have Python and nothing else, so no driver either. Nothing but these checks uses
it: it knows simple queries, text results and logins by password. MLflow itself connects with a driver.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import re
import secrets
import socket
import ssl
import stringprep
import struct
import unicodedata

SSLMODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
PROTOCOL_VERSION, SSL_REQUEST = 196608, 80877103
# As server_version_num has it; the checks' statements are not for older ones.
OLDEST_VERSION = 120000
# Far above what the checks ask for; what says more is another protocol, or means ill.
MAX_MESSAGE, MAX_ITERATIONS = 16 * 1024 * 1024, 5_000_000
# Bundles have comments in between, in any language, and Python takes ASCII only.
CERTIFICATE = re.compile("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
# How OpenSSL names what is wrong with a certificate (X509_V_ERR_*).
CERTIFICATE_KINDS = {9: "expired", 10: "expired", 62: "wrong_name", 64: "wrong_name"}


class PgError(Exception):
    """A connection or a query that failed.

    Args:
        kind: name (does not resolve), folder (of a socket: only TCP is spoken here), refused, timeout, unreachable, no_tls (the server has
            none), tls (the handshake failed), ca and ca_text (the file or the text with the CAs has none), untrusted, wrong_name, expired
            (the certificate), login (refused; also when the server's own proof is wrong), method (it wants something other than a
            password, or the password readable), server (any other error that it reports), protocol (it does not speak as PostgreSQL does).
        message: what happened, or the server's own words. A password is not among them.
        sqlstate: the server's error code, empty without one.
    """

    def __init__(self, kind: str, message: str, sqlstate: str = "") -> None:
        super().__init__(f"{message} ({sqlstate})" if sqlstate else message)
        self.kind, self.message, self.sqlstate = kind, message, sqlstate


def saslprep(password: str) -> str:
    """Normalize a password as PostgreSQL does (RFC 4013); one that the RFC forbids is used as it is."""
    if password.isascii():
        return password
    kept = "".join(" " if stringprep.in_table_c12(each) else each for each in password if not stringprep.in_table_b1(each))
    found = unicodedata.normalize("NFKC", kept)
    forbidden = (
        stringprep.in_table_a1, stringprep.in_table_c12, stringprep.in_table_c21_c22, stringprep.in_table_c3, stringprep.in_table_c4,
        stringprep.in_table_c5, stringprep.in_table_c6, stringprep.in_table_c7, stringprep.in_table_c8, stringprep.in_table_c9,
    )  # fmt: skip
    right_to_left = any(map(stringprep.in_table_d1, found))
    if not found or any(test(each) for test in forbidden for each in found):
        return password
    if right_to_left and (any(map(stringprep.in_table_d2, found)) or not all(map(stringprep.in_table_d1, (found[0], found[-1])))):
        return password
    return found


def scram_answer(password: str, client_first: str, server_first: str) -> tuple[str, str]:
    """Answer the challenge of SCRAM-SHA-256 (RFC 5802, section 3), without channel binding.

    Args:
        password: as the user typed it.
        client_first: the client's first message, without its header ``n,,``.
        server_first: the server's answer to it.

    Returns:
        The client's final message, and what the server's final message must be.

    Raises:
        PgError: the challenge is malformed, or not for this client.
    """
    parts = dict(part.split("=", 1) for part in server_first.split(",") if "=" in part)
    iterations = int(parts["i"])
    if not parts["r"].startswith(client_first.rpartition("r=")[2]) or not 0 < iterations <= MAX_ITERATIONS:
        raise PgError("protocol", "the server's challenge (SCRAM) is not an answer to this client, or wants too many rounds")
    salted = hashlib.pbkdf2_hmac("sha256", saslprep(password).encode(), base64.b64decode(parts["s"]), iterations)
    unsigned = f"c=biws,r={parts['r']}"
    signed = f"{client_first},{server_first},{unsigned}".encode()
    client_key, server_key = (hmac.digest(salted, name, "sha256") for name in (b"Client Key", b"Server Key"))
    signature = hmac.digest(hashlib.sha256(client_key).digest(), signed, "sha256")
    proof = bytes(left ^ right for left, right in zip(client_key, signature))
    verifier = base64.b64encode(hmac.digest(server_key, signed, "sha256")).decode()
    return f"{unsigned},p={base64.b64encode(proof).decode()}", f"v={verifier}"


def md5_answer(user: str, password: str, salt: bytes) -> str:
    """Answer PostgreSQL's older challenge."""
    inner = hashlib.md5((password + user).encode(), usedforsecurity=False).hexdigest()
    return "md5" + hashlib.md5(inner.encode() + salt, usedforsecurity=False).hexdigest()


def error_of(body: bytes) -> PgError:
    """Read an ErrorResponse."""
    fields = {part[:1]: part[1:].decode("utf-8", "replace") for part in body.split(b"\0") if part}
    sqlstate = fields.get(b"C", "")
    return PgError("login" if sqlstate.startswith("28") else "server", fields.get(b"M", "an error without a message"), sqlstate)


def tls_context(sslmode: str, cafile: str = "", cadata: str = "") -> ssl.SSLContext:
    """Say whom to trust, as libpq does.

    Args:
        sslmode: verify-full checks the certificate and its name, verify-ca the certificate, the others nothing.
        cafile: PEM file with CAs; empty, or a file that does not exist: the system's.
        cadata: PEM text with further ones.

    Raises:
        PgError: one of them holds no certificates.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = sslmode == "verify-full"
    context.verify_mode = ssl.CERT_REQUIRED if sslmode.startswith("verify-") else ssl.CERT_NONE
    if context.verify_mode == ssl.CERT_NONE:
        return context
    kind = "ca"
    try:
        if cafile and os.path.exists(cafile):
            context.load_verify_locations(cafile=cafile)
        else:
            context.load_default_certs()
        if cadata.strip():
            kind = "ca_text"
            context.load_verify_locations(cadata="\n".join(CERTIFICATE.findall(cadata)))
    except (OSError, ValueError, TypeError) as error:
        raise PgError(kind, str(error).partition(" (_ssl")[0]) from None
    return context


class Connection:
    """A connection that is logged in. It reads and writes whole messages: a type of one letter, and a body."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    @property
    def tls(self) -> bool:
        return isinstance(self.sock, ssl.SSLSocket)

    def send(self, kind: bytes, body: bytes) -> None:
        self.sock.sendall(kind + struct.pack("!i", len(body) + 4) + body)

    def exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.sock.recv(size - len(data))
            if not part:
                raise PgError("protocol", "the server closed the connection")
            data += part
        return data

    def body(self) -> bytes:
        (size,) = struct.unpack("!i", self.exactly(4))
        if not 4 <= size <= MAX_MESSAGE:
            raise ValueError("size")
        return self.exactly(size - 4)

    def receive(self) -> tuple[bytes, bytes]:
        return self.exactly(1), self.body()

    def start_tls(self, host: str, context: ssl.SSLContext) -> bool:
        """Ask for TLS. False when the server has none."""
        self.send(b"", struct.pack("!i", SSL_REQUEST))
        answer = self.exactly(1)
        if answer == b"E":
            raise error_of(self.body())
        if answer not in (b"S", b"N"):
            raise ValueError("answer")
        if answer == b"S":
            self.sock = context.wrap_socket(self.sock, server_hostname=host)
        return answer == b"S"

    def log_in(self, user: str, password: str, database: str) -> None:
        """Start the session. Returns once the server is ready for a query."""
        parameters = {"user": user, "database": database, "client_encoding": "UTF8", "application_name": "mlops.mlflow preflight"}
        body = b"".join(f"{name}\0{value}\0".encode() for name, value in parameters.items())
        self.send(b"", struct.pack("!i", PROTOCOL_VERSION) + body + b"\0")
        while True:
            kind, body = self.receive()
            if kind == b"E":
                raise error_of(body)
            if kind == b"R":
                self.authenticate(user, password, struct.unpack("!i", body[:4])[0], body[4:])
            if kind == b"Z":
                return

    def authenticate(self, user: str, password: str, method: int, body: bytes) -> None:
        if method == 0:
            return
        if method == 3 and self.tls:
            self.send(b"p", password.encode() + b"\0")
        elif method == 3:
            raise PgError("method", "the server wants the password readable over a connection without TLS")
        elif method == 5:
            self.send(b"p", md5_answer(user, password, body[:4]).encode() + b"\0")
        elif method == 10 and b"SCRAM-SHA-256" in body.split(b"\0"):
            self.scram(password)
        else:
            raise PgError("method", f"the server wants another proof than a password (method {method})")

    def scram(self, password: str) -> None:
        first = f"n=,r={secrets.token_urlsafe(24)}"
        self.send(b"p", b"SCRAM-SHA-256\0" + struct.pack("!i", len(first) + 3) + b"n,," + first.encode())
        final, expected = scram_answer(password, first, self.sasl(11))
        self.send(b"p", final.encode())
        if not hmac.compare_digest(self.sasl(12).encode(), expected.encode()):
            raise PgError("login", "the server does not know the password either: its proof (SCRAM) is wrong")

    def sasl(self, step: int) -> str:
        kind, body = self.receive()
        if kind == b"E":
            raise error_of(body)
        if kind != b"R" or struct.unpack("!i", body[:4])[0] != step:
            raise PgError("protocol", "the server left the login (SCRAM) half-way")
        return body[4:].decode()

    def query(self, sql: str) -> list[list[str | None]]:
        """Run statements and return the rows, each value as text.

        Raises:
            PgError: of kind server when the server refused, otherwise as for connect.
        """
        with translated():
            self.send(b"Q", sql.encode() + b"\0")
            rows: list[list[str | None]] = []
            errors: list[PgError] = []
            while True:
                try:
                    kind, body = self.receive()
                except PgError as lost:
                    # What the server said before it hung up says more.
                    raise [*errors, lost][0] from None
                if kind == b"E":
                    errors.append(error_of(body))
                elif kind == b"D":
                    rows.append(values_of(body))
                elif kind == b"Z" and errors:
                    raise errors[0]
                elif kind == b"Z":
                    return rows

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.send(b"X", b"")
        self.sock.close()


def values_of(body: bytes) -> list[str | None]:
    """Read a DataRow."""
    values: list[str | None] = []
    place = 2
    for _unused in range(struct.unpack("!h", body[:2])[0]):
        size = struct.unpack("!i", body[place : place + 4])[0]
        place += 4
        values.append(None if size < 0 else body[place : place + size].decode("utf-8", "replace"))
        place += max(size, 0)
    return values


@contextlib.contextmanager
def translated():
    """Turn every error of sockets, TLS and parsing into a PgError."""
    try:
        yield
    except PgError:
        raise
    except ssl.SSLCertVerificationError as error:
        raise PgError(CERTIFICATE_KINDS.get(error.verify_code, "untrusted"), error.verify_message) from None
    except ssl.SSLError as error:
        # Not even TLS of another version: a server of another kind, whose greeting was taken for PostgreSQL's yes.
        reason = error.reason or "the handshake failed"
        raise PgError("protocol" if reason.startswith(("WRONG_VERSION_NUMBER", "Closed before")) else "tls", reason) from None
    except socket.gaierror as error:
        raise PgError("name", error.strerror) from None
    except (socket.timeout, TimeoutError):
        raise PgError("timeout", "no answer in time") from None
    except ConnectionRefusedError:
        raise PgError("refused", "connection refused") from None
    except (ConnectionResetError, BrokenPipeError):
        raise PgError("protocol", "the server closed the connection") from None
    except OSError as error:
        raise PgError("unreachable", error.strerror or "the network failed") from None
    except (ValueError, LookupError, OverflowError, struct.error):
        # Without the error's own text: it may quote what was to be sent.
        raise PgError("protocol", "the answer is not in PostgreSQL's protocol") from None


def open_socket(host: str, port: int, timeout: float) -> socket.socket:
    """Connect to the first address of the host that answers."""
    if host.startswith("/"):
        raise PgError("folder", "no host name")
    try:
        return socket.create_connection((host, port), timeout)
    except ValueError:
        # A label of the name is empty or too long to ask for, or has a NUL.
        raise PgError("name", "no valid host name") from None


def certificate_names(host: str, port: int, context: ssl.SSLContext, timeout: float) -> str:
    """Return the names in a certificate that is trusted, but for another name."""
    context.check_hostname = False
    with translated(), open_socket(host, port, timeout) as sock:
        connection = Connection(sock)
        connection.start_tls(host, context)
        with connection.sock as wrapped:
            certificate = wrapped.getpeercert() or {}
    names = [value for _kind, value in certificate.get("subjectAltName", ())]
    names = names or [value for part in certificate.get("subject", ()) for kind, value in part if kind == "commonName"]
    return ", ".join(names) or "no name at all"


def attempt(where: tuple, user: str, password: str, database: str, sslmode: str, context: ssl.SSLContext | None) -> Connection:
    """Connect once: with TLS if there is a context, and without it where the mode allows and the server has none."""
    host, port, timeout = where
    with translated():
        connection = Connection(open_socket(host, port, timeout))
        try:
            if context and not connection.start_tls(host, context) and sslmode != "prefer":
                raise PgError("no_tls", "the server does not speak TLS")
            connection.log_in(user, password, database)
        except BaseException as error:
            connection.sock.close()
            if isinstance(error, PgError) and password and password in str(error):
                raise PgError(error.kind, "the server's own words are not shown: they repeat the password", error.sqlstate) from None
            raise
    return connection


def connect(
    host: str, port: int, user: str, password: str, database: str, sslmode: str = "prefer", cafile: str = "", cadata: str = "", timeout: float = 10
) -> Connection:
    """Connect and log in.

    Args:
        host: name or address.
        port: TCP port.
        user: role.
        password: sent in clear only within TLS.
        database: database.
        sslmode: as in libpq, but require never looks at the certificate.
        cafile: see tls_context.
        cadata: see tls_context.
        timeout: seconds to wait for each answer.

    Raises:
        PgError: whatever went wrong.
    """
    where, context = (host, port, timeout), tls_context(sslmode, cafile, cadata)
    ways = {"disable": [None], "allow": [None, context], "prefer": [context, None]}.get(sslmode, [context])
    try:
        return attempt(where, user, password, database, sslmode, ways[0])
    except PgError as error:
        if error.kind == "wrong_name":
            raise PgError("wrong_name", certificate_names(host, port, context, timeout)) from None
        if len(ways) == 1 or not (error.sqlstate == "28000" or error.kind in ("tls", "protocol", "method")):
            raise
    return attempt(where, user, password, database, sslmode, ways[1])
