"""What is wrong with a certificate of the user's own, told by certificates that are made here."""

from __future__ import annotations

import datetime
import ipaddress
from typing import Any

import pytest
from ansible_collections.mlops.mlflow.plugins.module_utils import certificates
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

NOW = datetime.datetime(2030, 6, 15, 12, tzinfo=datetime.timezone.utc)
DAY = datetime.timedelta(days=1)
NAMES = ["db.example.org", "10.0.0.7"]


class Made:
    """A certificate with its key, signed by another one or by itself."""

    def __init__(
        self,
        name: str,
        issuer: Made | None = None,
        names: list[str] | None = None,
        days: tuple[int, int] = (-1, 30),
        key: Any = None,
        usages: tuple[x509.ObjectIdentifier, ...] = (),
    ) -> None:
        self.key: Any = key or ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.issuer = issuer or self
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(self.issuer.name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW + days[0] * DAY)
            .not_valid_after(NOW + days[1] * DAY)
        )
        if names is None:
            builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        elif names:
            builder = builder.add_extension(x509.SubjectAlternativeName(list(map(general_name, names))), critical=False)
        if usages:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        digest = None if isinstance(self.issuer.key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
        self.certificate = builder.sign(self.issuer.key, digest)

    @property
    def pem(self) -> bytes:
        """The certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def key_pem(self, passphrase: bytes = b"") -> bytes:
        """The key."""
        how = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
        return bytes(self.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how))


def general_name(name: str) -> x509.GeneralName:
    """Return a name as a certificate has it."""
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


ROOT = Made("Root")
MIDDLE = Made("Middle", ROOT)
OTHER = Made("Other")
# Another company's, of the same name.
TWIN = Made("Root")
HOST = Made("db", ROOT, NAMES)
DEEP = Made("deep", MIDDLE, NAMES)
LOWER = Made("Lower", MIDDLE)
LOWEST = Made("lowest", LOWER, NAMES)


def found(
    certificate: bytes = HOST.pem,
    key: bytes = HOST.key_pem(),
    ca: bytes = ROOT.pem,
    names: list[str] | None = None,
    purposes: tuple[str, ...] = ("server", "client"),
    now: datetime.datetime = NOW,
) -> dict[str, str]:
    """Return what is wrong; without arguments there is nothing."""
    files = {"pki_certificate_file": certificate, "pki_key_file": key, "pki_ca_file": ca}
    return certificates.problems(files, NAMES if names is None else names, list(purposes), now)


@pytest.mark.parametrize(
    ("certificate", "key", "ca"),
    [
        (HOST.pem, HOST.key_pem(), ROOT.pem),
        (HOST.pem, HOST.key_pem(), OTHER.pem + TWIN.pem + ROOT.pem),
        (b"# comment\n" + HOST.pem + ROOT.pem, HOST.key_pem(), ROOT.pem),
        (DEEP.pem + MIDDLE.pem, DEEP.key_pem(), ROOT.pem),
        (DEEP.pem + MIDDLE.pem + ROOT.pem, DEEP.key_pem(), ROOT.pem),
        (DEEP.pem, DEEP.key_pem(), MIDDLE.pem + ROOT.pem),
        (LOWEST.pem + OTHER.pem + MIDDLE.pem + LOWER.pem, LOWEST.key_pem(), ROOT.pem),
        (LOWEST.pem + LOWER.pem, LOWEST.key_pem(), ROOT.pem + MIDDLE.pem),
    ],
)
def test_files_that_go_together(certificate: bytes, key: bytes, ca: bytes) -> None:
    """Signed by the CA itself, or through others in either file, in whatever order; what has nothing to do with it does no harm."""
    assert found(certificate, key, ca) == {}


@pytest.mark.parametrize("key", [rsa.generate_private_key(65537, 2048), ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP384R1())])
def test_kinds_of_keys(key: Any) -> None:
    """RSA, Ed25519 and elliptic curves, for the host as for the CA; the key may be in an older form of PEM too."""
    root = Made("Root", key=key)
    host = Made("db", root, NAMES, key=key)
    assert found(host.pem, host.key_pem(), root.pem) == {}
    if isinstance(key, rsa.RSAPrivateKey):
        old = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
        assert found(host.pem, old, root.pem) == {}


SELF_SIGNED = Made("db", None, NAMES)


def test_a_certificate_that_is_its_own_ca() -> None:
    """Clients that trust it need no other."""
    assert found(SELF_SIGNED.pem, SELF_SIGNED.key_pem(), SELF_SIGNED.pem) == {}
    assert set(found(SELF_SIGNED.pem, SELF_SIGNED.key_pem(), ROOT.pem)) == {"pki_ca_file"}
    assert set(found(SELF_SIGNED.pem * 2, SELF_SIGNED.key_pem(), ROOT.pem)) == {"pki_ca_file"}, "it leads to itself, and to nothing else"


FOREIGN_KEY = "it does not belong to the certificate in pki_certificate_file; use the key that the certificate was made with"
FOREIGN_CA = "it did not sign the certificate in pki_certificate_file, nor the last one of the chain there; use the CA that did"
NO_ROOT = "it is not the root of the certificate in pki_certificate_file, where clients want the chain to end; add the CA above it"
NO_KEY = "it is no private key in PEM form without a passphrase; use one"
NO_CERTIFICATE = "it is no certificate in PEM form; use one, with the chain behind it"
NO_CA = "it is no certificate in PEM form; use the one of the CA that clients must trust"
DER = HOST.certificate.public_bytes(serialization.Encoding.DER)
CUT = b"\n".join(HOST.pem.splitlines()[:4] + HOST.pem.splitlines()[-1:]) + b"\n"


@pytest.mark.parametrize(
    ("changes", "variable", "sentence"),
    [
        ({"key": ROOT.key_pem()}, "pki_key_file", FOREIGN_KEY),
        ({"key": rsa.generate_private_key(65537, 2048)}, "pki_key_file", FOREIGN_KEY),
        ({"key": HOST.key_pem(b"secret")}, "pki_key_file", NO_KEY),
        ({"key": HOST.pem}, "pki_key_file", NO_KEY),
        ({"key": b""}, "pki_key_file", NO_KEY),
        ({"certificate": b""}, "pki_certificate_file", NO_CERTIFICATE),
        ({"certificate": b"\xff\x00"}, "pki_certificate_file", NO_CERTIFICATE),
        ({"certificate": DER}, "pki_certificate_file", NO_CERTIFICATE),
        ({"certificate": CUT}, "pki_certificate_file", NO_CERTIFICATE),
        ({"certificate": HOST.key_pem()}, "pki_certificate_file", NO_CERTIFICATE),
        ({"ca": b"x"}, "pki_ca_file", NO_CA),
        ({"ca": HOST.key_pem()}, "pki_ca_file", NO_CA),
        ({"ca": OTHER.pem}, "pki_ca_file", FOREIGN_CA),
        ({"ca": TWIN.pem}, "pki_ca_file", FOREIGN_CA),
        ({"certificate": DEEP.pem, "key": DEEP.key_pem()}, "pki_ca_file", FOREIGN_CA),
        ({"certificate": DEEP.pem, "key": DEEP.key_pem(), "ca": MIDDLE.pem}, "pki_ca_file", NO_ROOT),
        ({"certificate": DEEP.pem + MIDDLE.pem, "key": DEEP.key_pem(), "ca": MIDDLE.pem}, "pki_ca_file", NO_ROOT),
        ({"ca": HOST.pem}, "pki_ca_file", NO_ROOT),
        ({"certificate": DEEP.pem + OTHER.pem, "key": DEEP.key_pem()}, "pki_ca_file", FOREIGN_CA),
        ({"certificate": DEEP.pem + MIDDLE.pem, "key": DEEP.key_pem(), "ca": OTHER.pem}, "pki_ca_file", FOREIGN_CA),
        ({"now": NOW + 31 * DAY}, "pki_certificate_file", "it expired on 2030-07-15; use a current one"),
        ({"now": NOW - 2 * DAY}, "pki_certificate_file", "it is not valid before 2030-06-14; use one that is"),
        (
            {"names": ["db.example.org", "10.0.0.8", "mlflow"]},
            "pki_certificate_file",
            "it is for db.example.org, 10.0.0.7, and this host is reached as 10.0.0.8, mlflow; use a certificate for that too, or reach "
            "it by one of its names (mlflow_database_host, gateway_server_names)",
        ),
    ],
)
def test_what_is_wrong_is_one_sentence(changes: dict[str, Any], variable: str, sentence: str) -> None:
    """With the variable that it is about, and nothing about the others."""
    if isinstance(changes.get("key"), rsa.RSAPrivateKey):
        changes = changes | {"key": Made("x", key=changes["key"]).key_pem()}
    assert found(**changes) == {variable: sentence}


def test_independent_problems_are_told_together() -> None:
    """An expired certificate with another one's key and a CA of somebody else."""
    assert set(found(key=ROOT.key_pem(), ca=OTHER.pem, now=NOW + 31 * DAY)) == {"pki_certificate_file", "pki_key_file", "pki_ca_file"}


def test_a_certificate_without_names() -> None:
    """Clients stopped to read the common name."""
    bare = Made("db.example.org", ROOT, [])
    assert found(bare.pem, bare.key_pem())["pki_certificate_file"].startswith("it is for no name, and this host is reached as db.example.org, 10.0.0.7;")
    assert found(bare.pem, bare.key_pem(), names=[]) == {}


@pytest.mark.parametrize(
    ("has", "name", "expected"),
    [
        ("db.example.org", "db.example.org", True),
        ("DB.example.ORG", "db.Example.org", True),
        ("db.example.org", "db.example.org.example.com", False),
        ("db.example.org", "example.org", False),
        ("*.example.org", "db.example.org", True),
        ("*.example.org", "DB.EXAMPLE.ORG", True),
        ("*.example.org", "a.db.example.org", False),
        ("*.example.org", "example.org", False),
        ("d*.example.org", "db.example.org", False),
        ("db.*.org", "db.example.org", False),
        ("10.0.0.7", "10.0.0.7", True),
        ("10.0.0.7", "10.0.0.70", False),
        ("fd00::7", "FD00:0::7", True),
        ("fd00::7", "fd00::8", False),
        ("localhost", "localhost", True),
        ("*", "localhost", False),
        ("*.0.0.7", "10.0.0.7", False),
    ],
)
def test_names_as_clients_compare_them(has: str, name: str, expected: bool) -> None:
    """In any case and spelling; a star is one whole label, the first, of a name."""
    assert certificates.is_for(Made("x", ROOT, [has]).certificate, name) is expected


SERVER, CLIENT, ANY = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE


@pytest.mark.parametrize(
    ("usages", "purposes", "forbidden"),
    [
        ((), ("server", "client"), ""),
        ((SERVER, CLIENT), ("server", "client"), ""),
        ((ANY,), ("server", "client"), ""),
        ((SERVER,), ("server",), ""),
        ((SERVER,), ("server", "client"), "client"),
        ((CLIENT,), ("server",), "server"),
        ((ExtendedKeyUsageOID.CODE_SIGNING,), ("server", "client"), "server"),
    ],
)
def test_what_a_certificate_may_be_used_for(usages: tuple[x509.ObjectIdentifier, ...], purposes: tuple[str, ...], forbidden: str) -> None:
    """Many public CAs sign for servers only, and the other side of mutual TLS refuses that."""
    made = Made("db", ROOT, NAMES, usages=usages)
    lines = found(made.pem, made.key_pem(), purposes=purposes)
    sentence = f"it may not be used as that of a TLS {forbidden} (extendedKeyUsage), as this host does; use one that allows {forbidden}Auth"
    assert lines == ({"pki_certificate_file": sentence} if forbidden else {})


@given(certificate=st.binary(), key=st.binary(), ca=st.binary())
def test_garbage_is_a_sentence(certificate: bytes, key: bytes, ca: bytes) -> None:
    """Whatever the files hold, alone or in PEM's frame."""

    def framed(what: str, content: bytes) -> bytes:
        return f"-----BEGIN {what}-----\n{content.hex()}\n-----END {what}-----\n".encode()

    for wrap in (lambda what, content: content, framed):
        assert set(found(certificate=wrap("CERTIFICATE", certificate))) == {"pki_certificate_file"}
        assert set(found(key=wrap("PRIVATE KEY", key))) == {"pki_key_file"}
        assert set(found(ca=wrap("CERTIFICATE", ca))) == {"pki_ca_file"}


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not checked is not the same as well."""
    monkeypatch.setattr(certificates, "CRYPTOGRAPHY_ERROR", ImportError("x"))
    assert "install it there" in found()["pki_certificate_file"]
