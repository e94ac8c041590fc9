# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a certificate of the user's own: pure functions, no Ansible. They run on the control node, which has ``cryptography``."""

from __future__ import annotations

import datetime
import ipaddress

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import serialization

    if not hasattr(x509.Certificate, "not_valid_after_utc"):
        raise ImportError("older than 42: its times have no zone")
    CRYPTOGRAPHY_ERROR = None
except ImportError as error:
    CRYPTOGRAPHY_ERROR = error


def names_of(certificate: x509.Certificate) -> list[str]:
    """Return the DNS names and IP addresses that a certificate is for."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return extension.get_values_for_type(x509.DNSName) + [str(address) for address in extension.get_values_for_type(x509.IPAddress)]


def is_for(certificate: x509.Certificate, name: str) -> bool:
    """Tell whether a client that connects to a name or an address accepts the certificate for it (RFC 6125: a star is a whole first label)."""
    try:
        wanted = [str(ipaddress.ip_address(name))]
    except ValueError:
        wanted = [name.lower(), "*." + name.lower().partition(".")[2]]
    return any(each.lower() in wanted for each in names_of(certificate))


def _signed(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Tell whether one certificate is signed by another."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        # The last: two CAs have one name.
        return False
    return True


def _issued(certificate: x509.Certificate, others: list[x509.Certificate], anchors: list[x509.Certificate]) -> bool:
    """Tell whether a certificate is one of the anchors, or others lead from it to one; their order does not matter, as in OpenSSL."""
    if certificate in anchors:
        return True
    left = [each for each in others if each != certificate]
    return any(_issued(issuer, left, anchors) for issuer in left if _signed(certificate, issuer))


def problems(certificate: bytes, key: bytes, ca: bytes, names: list[str], now: datetime.datetime) -> dict[str, str]:
    """Check the files of a certificate together.

    Args:
        certificate: PEM, with the chain behind it.
        key: PEM, without passphrase.
        ca: PEM with the CAs that clients trust.
        names: by which clients of this site reach the host.
        now: with a time zone.

    Returns:
        A sentence for each variable with something wrong (pki_certificate_file, pki_key_file, pki_ca_file).
    """
    if CRYPTOGRAPHY_ERROR is not None:
        return {"pki_certificate_file": "it cannot be checked without the Python package cryptography, 42 or newer, on the control node; install it there"}
    try:
        chain = x509.load_pem_x509_certificates(certificate)
    except ValueError:
        return {"pki_certificate_file": "it is no certificate in PEM form; use one, with the chain behind it"}
    try:
        private = serialization.load_pem_private_key(key, None)
    except (ValueError, TypeError):
        return {"pki_key_file": "it is no private key in PEM form without a passphrase; use one"}
    try:
        roots = x509.load_pem_x509_certificates(ca)
    except ValueError:
        return {"pki_ca_file": "it is no certificate in PEM form; use the one of the CA that clients must trust"}
    first, found = chain[0], {}
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if first.public_key().public_bytes(*form) != private.public_key().public_bytes(*form):
        found["pki_key_file"] = "it does not belong to the certificate in pki_certificate_file; use the key that the certificate was made with"
    missing = [name for name in names if not is_for(first, name)]
    if first.not_valid_after_utc < now:
        found["pki_certificate_file"] = f"it expired on {first.not_valid_after_utc:%Y-%m-%d}; use a current one"
    elif first.not_valid_before_utc > now:
        found["pki_certificate_file"] = f"it is not valid before {first.not_valid_before_utc:%Y-%m-%d}; use one that is"
    elif missing:
        remedy = "use a certificate for that too, or set mlflow_database_host to one of its names"
        found["pki_certificate_file"] = f"it is for {', '.join(names_of(first)) or 'no name'}, and MLflow reaches this host as {', '.join(missing)}; {remedy}"
    others = chain[1:] + roots
    if not _issued(first, others, roots):
        found["pki_ca_file"] = "it did not sign the certificate in pki_certificate_file, nor the last one of the chain there; use the CA that did"
    elif not _issued(first, others, [root for root in roots if _signed(root, root)]):
        found["pki_ca_file"] = "it is not the root of the certificate in pki_certificate_file, where clients want the chain to end; add the CA above it"
    return found
