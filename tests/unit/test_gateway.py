"""Names, origins and addresses of the gateway, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.mlflow.plugins.filter import checks, plan
from ansible_collections.mlops.mlflow.plugins.module_utils import server
from test_preflight import facts, host, inputs, listener, report, write_certificate

PLAN = plan.FilterModule().filters()


def test_names_as_nginx_compares_them() -> None:
    """In lower case, as it lowers the Host header; each once; an IPv6 address in brackets."""
    assert server.server_names(["MLflow.Example.org", "", "mlflow.example.org", "fd00::7", "[fd00::7]", "10.0.0.7"]) == [
        "mlflow.example.org",
        "[fd00::7]",
        "10.0.0.7",
    ]


@pytest.mark.parametrize(
    ("scheme", "port", "expected"),
    [("https", 443, "https://a"), ("https", 8443, "https://a:8443"), ("http", 80, "http://a"), ("http", 443, "http://a:443")],
)
def test_origins_have_a_port_where_it_is_not_the_scheme_s_own(scheme: str, port: int, expected: str) -> None:
    """A browser sends them so, and MLflow compares whole strings."""
    assert server.origins(["A"], scheme, port) == [expected]


def known(**variables: Any) -> dict[str, Any]:
    """Return a host with an address."""
    about = facts(default_ipv4={"address": "10.0.0.7"}, hostname="m1")
    return {"inventory_hostname": "m1.example.org", "ansible_host": "10.0.0.7", "ansible_facts": about, **variables}


def test_names_of_a_host() -> None:
    """Those of its gateway come first; nothing twice; a host that nobody looked at has what the inventory says."""
    assert PLAN["names_of_host"](known()) == ["m1.example.org", "10.0.0.7", "m1"]
    assert PLAN["names_of_host"](known(gateway_server_names=["mlflow.example.org"], mlops_address="10.9.9.9")) == [
        "mlflow.example.org",
        "m1.example.org",
        "10.0.0.7",
        "m1",
        "10.9.9.9",
    ]
    assert PLAN["names_of_host"]({"inventory_hostname": "m1", "gateway_server_names": "wrong"}) == ["m1"]


@pytest.mark.parametrize(
    ("variables", "local", "address", "port"),
    [
        ({}, True, "127.0.0.1", 5000),
        ({"mlflow_port": "5001"}, True, "127.0.0.1", 5001),
        ({"mlflow_listen_address": "::"}, True, "::1", 5000),
        ({"mlflow_listen_address": "10.1.1.1"}, True, "10.1.1.1", 5000),
        ({}, False, "10.0.0.7", 5000),
        ({"mlops_address": "10.9.9.9"}, False, "10.9.9.9", 5000),
    ],
)
def test_where_the_server_is(variables: dict[str, Any], local: bool, address: str, port: int) -> None:
    """Beside the gateway at the loopback address, elsewhere at the one that the hosts share."""
    assert PLAN["backend"](known(**variables), local) == {"address": address, "port": port}


@pytest.mark.parametrize(
    ("variables", "url"),
    [
        ({}, "https://10.0.0.7"),
        ({"gateway_server_names": ["mlflow.example.org"]}, "https://10.0.0.7"),
        ({"gateway_server_names": ["mlflow.example.org"], "gateway_certificate_file": "/a"}, "https://mlflow.example.org"),
        ({"gateway_server_names": ["mlflow.example.org"], "pki_certificate_file": "/a"}, "https://mlflow.example.org"),
        ({"gateway_https_port": 8443}, "https://10.0.0.7:8443"),
        ({"mlops_address": "fd00::7"}, "https://[fd00::7]"),
    ],
)
def test_the_url(variables: dict[str, Any], url: str) -> None:
    """By the address, which the private CA certifies, or by the name that the user's own certificate is for."""
    assert PLAN["gateway_url"](known(**variables)) == url


NO_NAME = "use a host name or an IP address, without scheme, port, path or star"


@pytest.mark.parametrize("name", ["https://a", "a:443", "a/b", "*.example.org", "~^a$", "a b", "-a", "", "a;", "x" * 64])
def test_a_name_that_is_none(name: str) -> None:
    """nginx would take some of them for a pattern, and some for the end of the line."""
    assert inputs(gateway_server_names=[name]) == [f"gateway_server_names = {name!r}: {NO_NAME}"]


@pytest.mark.parametrize("name", ["mlflow", "mlflow.example.org", "10.0.0.7", "fd00::7", "MLflow_1.example.org"])
def test_a_name_that_is_one(name: str) -> None:
    """Names and addresses."""
    assert inputs(gateway_server_names=[name]) == []


def test_a_certificate_of_its_own(tmp_path: Path) -> None:
    """With its key, and for the names that clients use; the CA above it is the clients' affair."""
    files = write_certificate(tmp_path, ["mlflow.example.org"])
    certificate, key = files["pki_certificate_file"], files["pki_key_file"]
    pair = {"gateway_certificate_file": certificate, "gateway_key_file": key, "gateway_server_names": ["mlflow.example.org"]}
    assert inputs(**pair) == [] and checks.certificate_problems(pair, [], ["server"]) == []
    assert inputs(gateway_certificate_file=certificate, gateway_server_names=["a"]) == [
        "gateway_key_file is missing: a certificate needs its private key; set it, or leave out gateway_certificate_file too"
    ]
    (line,) = inputs(gateway_certificate_file=certificate, gateway_key_file=key)
    assert line.startswith("gateway_server_names is missing: ")
    (line,) = checks.certificate_problems(pair | {"gateway_server_names": ["other.example.org"]}, [], ["server"])
    reached = "it is for mlflow.example.org, and this host is reached as other.example.org;"
    assert line.startswith(f"gateway_certificate_file = 'pki_certificate_file.pem': {reached}")
    (expired,) = checks.certificate_problems(pair | write_expired(tmp_path), [], ["server"])
    assert expired.startswith("gateway_certificate_file = 'pki_certificate_file.pem': it expired on ")
    (tmp_path / "other").mkdir()
    foreign = write_certificate(tmp_path / "other", ["mlflow.example.org"])["pki_certificate_file"]
    (line,) = checks.certificate_problems(pair | {"gateway_certificate_file": foreign}, [], ["server"])
    assert line.startswith("gateway_key_file = 'pki_key_file.pem': it does not belong to the certificate in gateway_certificate_file;")


def write_expired(folder: Path) -> dict[str, str]:
    """Write a certificate that has expired; return the gateway's variables for it."""
    files = write_certificate(folder, ["mlflow.example.org"], -1)
    return {"gateway_certificate_file": files["pki_certificate_file"], "gateway_key_file": files["pki_key_file"]}


def test_ports_that_overlap() -> None:
    """Two services of one host cannot have one port, and somebody else's is not taken."""
    assert host(["mlflow", "gateway"], gateway_https_port=5000) == [
        "gateway_https_port = 5000: mlflow_port has the same port on this host; choose another"
    ]
    assert host(["gateway"], gateway_https_port=443, gateway_http_port=443) == [
        "gateway_http_port = 443: gateway_https_port has the same port on this host; choose another"
    ]
    assert host(["gateway"], gateway_http_port=0) == []
    taken = report(listeners=[listener(80, "nginx.service", "nginx")])
    assert host(["gateway"], taken) == ["gateway_http_port = 80: the port is in use by nginx.service; stop that, or choose another port"]
    assert host(["gateway"], report(listeners=[listener(443, "mlflow-gateway.service", "nginx")])) == []


def test_where_there_is_a_gateway_nothing_is_said_about_plain_http() -> None:
    """The notice is about sites without one."""
    assert checks.input_notices({}, ["mlflow"], "s3://b", True) == []
    (line,) = checks.input_notices({}, ["mlflow"], "s3://b", False)
    assert line.startswith("MLflow answers plain HTTP")


LOOPBACK = "who somebody is must not cross the network unchecked; run the service on the gateway's host, and use a URL such as http://127.0.0.1:4180"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"mlflow_auth": "proxy", "gateway_auth_url": "http://127.0.0.1:4180"}, None),
        ({"mlflow_auth": "proxy", "gateway_auth_url": "http://[::1]"}, None),
        ({"mlflow_auth": "proxy", "gateway_auth_url": "http://10.0.0.9:4180"}, f"gateway_auth_url = 'http://10.0.0.9:4180': {LOOPBACK}"),
        ({"mlflow_auth": "proxy", "gateway_auth_url": "http://127.0.0.1:4180/oauth2"}, f"gateway_auth_url = 'http://127.0.0.1:4180/oauth2': {LOOPBACK}"),
        (
            {"mlflow_auth": "proxy"},
            "gateway_auth_url is missing: with mlflow_auth proxy the gateway asks there who somebody is; name the forward-auth service",
        ),
        (
            {"gateway_auth_url": "http://127.0.0.1:4180"},
            "gateway_auth_url = 'http://127.0.0.1:4180': it is not asked unless mlflow_auth is proxy; set that too, or leave it out",
        ),
        ({"mlflow_auth": "ldap"}, "mlflow_auth = 'ldap': use basic, proxy or none"),
        (
            {"mlflow_auth": "proxy", "gateway_auth_url": "http://localhost", "mlflow_users": [{"name": "alice"}]},
            "mlflow_users: with mlflow_auth proxy users are made when they sign in for the first time; leave them out",
        ),
        (
            {"mlflow_auth": "none", "mlflow_users": [{"name": "alice"}]},
            "mlflow_users: with mlflow_auth none there are no users; set mlflow_auth to basic, or leave them out",
        ),
        (
            {"mlflow_gateway_secret": 'x"; deny all;'},
            "mlflow_gateway_secret = (not shown): use 32 or more letters, digits, _ and -, or leave it out to have one made",
        ),
        (
            {"mlflow_admin_user": "a:b"},
            "mlflow_admin_user = 'a:b': the name 'a:b' has a colon, which ends the name in HTTP's basic authentication; choose another",
        ),
    ],
)
def test_who_may_use_it(variables: dict[str, Any], expected: str | None) -> None:
    """What does not fit together is told in one line."""
    assert inputs(**variables) == ([expected] if expected else [])


def test_ways_around_the_gateway_are_noticed() -> None:
    """They may be meant so."""
    (line,) = checks.input_notices({"mlflow_listen_address": "0.0.0.0"}, ["mlflow"], "s3://b", True)
    assert line.startswith("mlflow_listen_address lets others go around the gateway")
    (line,) = checks.input_notices({"mlflow_auth": "none"}, ["mlflow"], "s3://b", True)
    assert line.startswith("mlflow_auth is none: everybody who reaches the port may ")


def test_the_path_of_mlflow() -> None:
    """It stands in nginx's configuration."""
    (line,) = inputs(mlflow_environment={"MLFLOW_STATIC_PREFIX": "/mlflow/"})
    assert line.startswith("mlflow_environment.MLFLOW_STATIC_PREFIX = '/mlflow/': ")
    assert inputs(mlflow_environment={"MLFLOW_STATIC_PREFIX": "/team/mlflow"}) == []
