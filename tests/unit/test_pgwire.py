"""PostgreSQL's protocol where a real server does not go by itself: test vectors, wrong proofs, other programs, broken answers."""

from __future__ import annotations

import base64
import contextlib
import datetime
import hashlib
import hmac
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ansible_collections.mlops.mlflow.plugins.module_utils import pgwire
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

PASSWORD = "p@s:s/w%o'r\"d $x\\"
Script = Callable[[socket.socket], None]


def message(kind: bytes, body: bytes = b"") -> bytes:
    """Write a message of the server."""
    return kind + struct.pack("!i", len(body) + 4) + body


def error(sqlstate: str, text: str) -> bytes:
    """Write an ErrorResponse."""
    return message(b"E", f"SFATAL\0VFATAL\0C{sqlstate}\0M{text}\0Fauth.c\0L1\0\0".encode())


def row(*values: str | None) -> bytes:
    """Write a DataRow."""
    parts = [struct.pack("!i", -1) if value is None else struct.pack("!i", len(value.encode())) + value.encode() for value in values]
    return message(b"D", struct.pack("!h", len(values)) + b"".join(parts))


def authentication(method: int, body: bytes = b"") -> bytes:
    """Write a request for a proof."""
    return message(b"R", struct.pack("!i", method) + body)


SASL = authentication(10, b"SCRAM-SHA-256\0\0")
READY = authentication(0) + message(b"S", b"server_version\x0017.4\0") + message(b"K", b"\0" * 8) + message(b"Z", b"I")


def take(sock: socket.socket, start: bool = False) -> bytes:
    """Read one message of the client; the first has no type."""
    head = sock.recv(4 if start else 5, socket.MSG_WAITALL)
    return sock.recv(struct.unpack("!i", head[-4:])[0] - 4, socket.MSG_WAITALL)


@contextlib.contextmanager
def served(*scripts: Script) -> Iterator[int]:
    """Run a server that plays one script for each connection, and return its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def play() -> None:
            for script in scripts:
                with listening.accept()[0] as sock, contextlib.suppress(OSError, struct.error):
                    script(sock)

        thread = threading.Thread(target=play, daemon=True)
        thread.start()
        yield listening.getsockname()[1]


def connect(port: int, sslmode: str = "disable", **further: Any) -> pgwire.Connection:
    """Connect to such a server."""
    return pgwire.connect("127.0.0.1", port, "user", PASSWORD, "db", sslmode, timeout=5, **further)


def refused(*scripts: Script, sslmode: str = "disable") -> pgwire.PgError:
    """Return the error of a login; it does not have the password in it."""
    with served(*scripts) as port, pytest.raises(pgwire.PgError) as caught:
        connect(port, sslmode)
    assert PASSWORD not in f"{caught.value} {caught.value!r} {caught.value.message}"
    return caught.value


def says(*answers: bytes, tls: bytes = b"") -> Script:
    """Return a script that sends one answer to each message of the client; tls answers its request for TLS."""

    def script(sock: socket.socket) -> None:
        if tls:
            take(sock, start=True)
            sock.sendall(tls)
        for index, answer in enumerate(answers):
            take(sock, start=index == 0)
            sock.sendall(answer)
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_WR)
            sock.recv(4096)

    return script


def scram(password: str, honest: bool = True) -> Script:
    """Return a script that asks for SCRAM-SHA-256, checks the client's proof, and proves (or fakes) its own."""

    def script(sock: socket.socket) -> None:
        take(sock, start=True)
        sock.sendall(SASL)
        first = take(sock).split(b"\0", 1)[1][4:].decode().removeprefix("n,,")
        challenge = f"{first.replace('n=,', '')}server,s={base64.b64encode(b'salt').decode()},i=4096"
        sock.sendall(authentication(11, challenge.encode()))
        final = take(sock).decode()
        expected, proof = pgwire.scram_answer(password, first, challenge)
        if final != expected:
            sock.sendall(error("28P01", "password authentication failed"))
            return
        sock.sendall(authentication(12, proof.encode() if honest else b"v=AAAA"))
        if honest:
            sock.sendall(READY)
            sock.recv(1)

    return script


# --- Proofs ---


def test_the_vector_of_rfc_7677() -> None:
    """Section 3: user, pencil."""
    first = "n=user,r=rOprNGfwEbeRWgbNEkqO"
    challenge = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    assert pgwire.scram_answer("pencil", first, challenge) == (
        "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
    )


@pytest.mark.parametrize("challenge", ["r=other,s=c2FsdA==,i=4096", "r=minePLUS,s=c2FsdA==,i=0", "r=minePLUS,s=c2FsdA==,i=999999999"])
def test_a_challenge_that_is_no_answer(challenge: str) -> None:
    """Another's nonce, and rounds that would keep the host busy for ever or prove nothing."""
    with pytest.raises(pgwire.PgError, match="SCRAM"):
        pgwire.scram_answer(PASSWORD, "n=,r=mine", challenge)


@pytest.mark.parametrize(
    ("password", "prepared"),
    [
        ("pencil", "pencil"),
        ("a\tb", "a\tb"),
        ("I\u00adX", "IX"),
        ("\u00aa", "a"),
        ("\u2168", "IX"),
        ("a\u00a0b", "a b"),
        ("\ufb01", "fi"),
        ("e\u0301", "\u00e9"),
        # Forbidden: a control character, an emoji that Unicode 3.2 did not have, mixed directions, nothing left.
        ("\u00e9\u0007", "\u00e9\u0007"),
        ("\u2168\U0001f600", "\u2168\U0001f600"),
        ("\u0627\u0031", "\u0627\u0031"),
        ("\u0627a\u0628", "\u0627a\u0628"),
        ("\u00ad", "\u00ad"),
        ("\u06271\u0628", "\u06271\u0628"),
    ],
)
def test_passwords_as_postgresql_prepares_them(password: str, prepared: str) -> None:
    """RFC 4013, section 3, and what PostgreSQL does where it forbids."""
    assert pgwire.saslprep(password) == prepared


@given(st.text(st.characters(codec="ascii")))
def test_ascii_stays(password: str) -> None:
    """Every character of it."""
    assert pgwire.saslprep(password) == password


def test_scram_both_ways() -> None:
    """A server that knows the password gets in, and proves that it does."""
    with served(scram(PASSWORD)) as port:
        connection = connect(port)
        assert not connection.tls
        connection.close()


def test_the_server_has_to_prove_itself_too() -> None:
    """One that takes any password is not the database."""
    found = refused(scram(PASSWORD, honest=False))
    assert (found.kind, found.sqlstate) == ("login", "") and "proof" in found.message


def test_a_server_that_skips_its_proof() -> None:
    """Straight to the end of the login."""
    assert refused(says(SASL, READY)).kind == "protocol"


def test_another_password() -> None:
    """The server's own words and code."""
    found = refused(scram("other"))
    assert (found.kind, found.sqlstate, str(found)) == ("login", "28P01", "password authentication failed (28P01)")


def test_md5() -> None:
    """As the manual has it: md5(md5(password + user) + salt)."""
    inner = hashlib.md5((PASSWORD + "user").encode()).hexdigest()
    expected = b"md5" + hashlib.md5(inner.encode() + b"salt").hexdigest().encode() + b"\0"
    got: list[bytes] = []

    def script(sock: socket.socket) -> None:
        take(sock, start=True)
        sock.sendall(authentication(5, b"salt"))
        got.append(take(sock))
        sock.sendall(READY)

    with served(script) as port:
        connect(port).close()
    assert got and hmac.compare_digest(got[0], expected)


@pytest.mark.parametrize("method", [authentication(3), authentication(7), authentication(10, b"SCRAM-SHA-256-PLUS\0\0")])
def test_proofs_that_are_not_given(method: bytes) -> None:
    """The password readable without TLS, GSS, and what needs TLS."""
    got: list[bytes] = []

    def script(sock: socket.socket) -> None:
        take(sock, start=True)
        sock.sendall(method)
        got.append(sock.recv(100))

    assert refused(script).kind == "method"
    assert got in ([], [b""])


# --- TLS ---


@pytest.mark.parametrize("sslmode", ["require", "verify-ca", "verify-full"])
def test_a_server_without_tls(sslmode: str) -> None:
    """Nothing is sent to it."""
    assert refused(says(tls=b"N"), sslmode=sslmode).kind == "no_tls"


def test_prefer_does_without_tls() -> None:
    """In the same connection."""
    with served(says(READY, tls=b"N")) as port:
        connect(port, "prefer").close()


def test_prefer_tries_again_without_tls() -> None:
    """Where the handshake fails; and the error is that of the last attempt."""
    with served(says(tls=b"S"), says(READY)) as port:
        connect(port, "prefer").close()
    assert refused(says(tls=b"S"), says(error("28000", "no entry")), sslmode="prefer").sqlstate == "28000"


def test_allow_asks_for_tls_when_it_must() -> None:
    """The server lets nobody in without; a wrong password is no reason."""
    assert refused(says(error("28000", "no entry")), says(tls=b"N"), sslmode="allow").kind == "no_tls"
    assert refused(says(error("28P01", "wrong")), sslmode="allow").sqlstate == "28P01"


def test_an_error_in_place_of_tls() -> None:
    """What a server without a process to spare answers."""
    found = refused(says(tls=error("53300", "sorry, too many clients already")), sslmode="require")
    assert (found.kind, found.message, found.sqlstate) == ("server", "sorry, too many clients already", "53300")


def certificate(name: str) -> str:
    """Make a CA's certificate in PEM form."""
    key, subject = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), 7, start, start + datetime.timedelta(days=9999))
    signed = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode()


def test_files_that_are_no_cas(tmp_path: Any) -> None:
    """A file, and a text; one that is not there counts as none, and nothing is read where nothing is checked."""
    wrong = tmp_path / "ca.pem"
    wrong.write_text("hello", encoding="utf-8")
    broken = "-----BEGIN CERTIFICATE-----\né\n-----END CERTIFICATE-----\n"
    for kind, options in (("ca", {"cafile": str(wrong)}), ("ca_text", {"cadata": "hello"}), ("ca_text", {"cadata": broken})):
        with pytest.raises(pgwire.PgError) as caught:
            pgwire.tls_context("verify-full", **options)
        assert caught.value.kind == kind and "_ssl" not in caught.value.message
        pgwire.tls_context("require", **options)
    pgwire.tls_context("verify-full", str(tmp_path / "none.pem"))


def test_a_bundle_with_comments() -> None:
    """In any language, before, between and after its certificates."""
    blocks = [certificate(name) for name in ("One CA", "Two CA")]
    context = pgwire.tls_context("verify-full", os.devnull + "/none", f"# Zürich – \ufeff\n{blocks[0]}Größe\r\n{blocks[1]}é")
    names = {value for each in context.get_ca_certs() for part in each["subject"] for kind, value in part}
    assert {"One CA", "Two CA"} <= names


# --- Answers ---


@pytest.mark.parametrize(
    ("script", "sslmode", "kind"),
    [
        (lambda sock: sock.sendall(b"SSH-2.0-OpenSSH_9.2\r\n"), "disable", "protocol"),
        (says(b"", tls=b"SSH-2.0-OpenSSH_9.2\r\n"), "require", "protocol"),
        (says(tls=b"HTTP/1.1 400 Bad Request\r\n\r\n"), "require", "protocol"),
        (says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "disable", "protocol"),
        (says(b""), "disable", "protocol"),
        (says(message(b"R")), "disable", "protocol"),
        (says(b"R\x7f\xff\xff\xff"), "disable", "protocol"),
        (says(b"R\x00\x00\x00\x01"), "disable", "protocol"),
        (says(SASL, authentication(11, b"nonsense")), "disable", "protocol"),
        (says(SASL, authentication(11, b"r=\xff\xfe")), "disable", "protocol"),
        (says(error("57P03", "the database system is starting up")), "disable", "server"),
        (says(message(b"E", b"\0")), "disable", "server"),
    ],
)
def test_what_is_not_a_login(script: Script, sslmode: str, kind: str) -> None:
    """Other programs, broken answers, and servers with something to say."""
    assert refused(script, sslmode=sslmode).kind == kind


def test_the_server_repeats_the_password() -> None:
    """Its words are not passed on."""
    found = refused(says(error("28P01", f"not {PASSWORD}")))
    assert (found.kind, found.sqlstate) == ("login", "28P01")


def test_names_and_ports() -> None:
    """Before anything answers."""
    for host in ("no-such-host.invalid", "a..b", "x" * 70 + ".test"):
        with pytest.raises(pgwire.PgError) as caught:
            pgwire.connect(host, 5432, "user", PASSWORD, "db", "disable")
        assert caught.value.kind == "name"
    with pytest.raises(pgwire.PgError) as caught:
        pgwire.connect("/var/run/postgresql", 5432, "user", PASSWORD, "db", "disable")
    assert caught.value.kind == "folder"
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(pgwire.PgError) as caught:
            pgwire.connect("127.0.0.1", port, "user", PASSWORD, "db", "disable", timeout=0.2)
        assert caught.value.kind == "timeout"
    with pytest.raises(pgwire.PgError) as caught:
        connect(port)
    assert caught.value.kind == "refused"


def test_rows() -> None:
    """Text and NULL; what is not asked for is passed over, and after an error the next query goes on."""
    rows = message(b"N", b"\0") + message(b"T", b"\0\0") + row("a", None, "") + row("\u00e9", "1", "\\") + message(b"C", b"SELECT 2\0")
    failing = row("half") + error("22012", "division by zero") + message(b"Z", b"I")
    with served(says(READY, rows + message(b"Z", b"I"), failing, message(b"Z", b"I"), error("57P01", "terminating connection"))) as port:
        connection = connect(port)
        assert connection.query("SELECT") == [["a", None, ""], ["\u00e9", "1", "\\"]]
        with pytest.raises(pgwire.PgError, match=r"division by zero \(22012\)"):
            connection.query("SELECT")
        assert connection.query("") == []
        # It says why, and hangs up.
        with pytest.raises(pgwire.PgError) as caught:
            connection.query("SELECT")
        assert caught.value.sqlstate == "57P01"
        connection.close()


def test_the_fields_of_an_error() -> None:
    """The code is C and the message M, in any order and any language."""
    found = pgwire.error_of("M\u00bbx\u00ab existiert nicht\0C3D000\0SFATAL\0\0".encode())
    assert (found.kind, found.message, found.sqlstate) == ("server", "\u00bbx\u00ab existiert nicht", "3D000")
    assert pgwire.error_of(b"").message == "an error without a message"
