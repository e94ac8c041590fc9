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
    from cryptography.x509.oid import ExtendedKeyUsageOID

    if not hasattr(x509.Certificate, "not_valid_after_utc"):
        raise ImportError("older than 42: its times have no zone")
    CRYPTOGRAPHY_ERROR = None
    PURPOSES = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}
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


def _purposes(certificate: x509.Certificate) -> set[str]:
    """Return what a certificate may be used for; one that does not say may be used for both."""
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return set(PURPOSES)
    return {purpose for purpose, usage in PURPOSES.items() if usage in usages or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in usages}


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


def problems(files: dict[str, bytes], names: list[str], purposes: list[str], now: datetime.datetime) -> dict[str, str]:
    """Check the files of a certificate together.

    Args:
        files: PEM by the names of their variables: the certificate with the chain behind it, its key without passphrase, and the CAs that clients
            trust, where the inventory names them.
        names: by which clients of this site reach the host.
        purposes: what the host uses it as, ``server`` or ``client``.
        now: with a time zone.

    Returns:
        A sentence for each variable with something wrong.
    """
    certificate, key, ca = [*files, ""][:3]
    if CRYPTOGRAPHY_ERROR is not None:
        return {certificate: "it cannot be checked without the Python package cryptography, 42 or newer, on the control node; install it there"}
    try:
        chain = x509.load_pem_x509_certificates(files[certificate])
    except ValueError:
        return {certificate: "it is no certificate in PEM form; use one, with the chain behind it"}
    try:
        private = serialization.load_pem_private_key(files[key], None)
    except (ValueError, TypeError):
        return {key: "it is no private key in PEM form without a passphrase; use one"}
    try:
        roots = x509.load_pem_x509_certificates(files[ca]) if ca else []
    except ValueError:
        return {ca: "it is no certificate in PEM form; use the one of the CA that clients must trust"}
    first, found = chain[0], {}
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if first.public_key().public_bytes(*form) != private.public_key().public_bytes(*form):
        found[key] = f"it does not belong to the certificate in {certificate}; use the key that the certificate was made with"
    missing = [name for name in names if not is_for(first, name)]
    if first.not_valid_after_utc < now:
        found[certificate] = f"it expired on {first.not_valid_after_utc:%Y-%m-%d}; use a current one"
    elif first.not_valid_before_utc > now:
        found[certificate] = f"it is not valid before {first.not_valid_before_utc:%Y-%m-%d}; use one that is"
    elif missing:
        remedy = "use a certificate for that too, or reach it by one of its names (mlflow_database_host, gateway_server_names)"
        found[certificate] = f"it is for {', '.join(names_of(first)) or 'no name'}, and this host is reached as {', '.join(missing)}; {remedy}"
    elif forbidden := [purpose for purpose in purposes if purpose not in _purposes(first)]:
        found[certificate] = f"it may not be used as that of a TLS {forbidden[0]} (extendedKeyUsage), as this host does; use one that allows {forbidden[0]}Auth"
    others = chain[1:] + roots
    if not ca:
        return found
    if not _issued(first, others, roots):
        found[ca] = f"it did not sign the certificate in {certificate}, nor the last one of the chain there; use the CA that did"
    elif not _issued(first, others, [root for root in roots if _signed(root, root)]):
        found[ca] = f"it is not the root of the certificate in {certificate}, where clients want the chain to end; add the CA above it"
    return found
