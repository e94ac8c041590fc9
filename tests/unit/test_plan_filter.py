"""The plan of a site, through the filters that roles and playbooks use."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.mlops.mlflow.plugins.filter.plan import FilterModule
from ansible_collections.mlops.mlflow.plugins.module_utils import postgresql, sizing

FILTERS = FilterModule().filters()


def host(cpus: int = 4, memory_mib: int = 16 * 1024, **variables: Any) -> dict[str, Any]:
    """Return the variables of a host with its facts."""
    facts = {
        "processor_vcpus": cpus,
        "memtotal_mb": memory_mib,
        "default_ipv4": {"address": "10.0.0.7"},
        "all_ipv4_addresses": ["192.168.1.7", "10.0.0.7"],
        "all_ipv6_addresses": ["fd00::7"],
    }
    return {"ansible_facts": facts, **variables}


def connections(*hosts: dict[str, Any]) -> int:
    """Return what the hosts need, without the reserve."""
    total: int = FILTERS["site_connections"](list(hosts))
    return total - sizing.RESERVED_CONNECTIONS


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, 4 * 41 * 3),
        ({"mlflow_auth": "basic"}, 4 * 41 * 3),
        ({"mlflow_auth": "none"}, 4 * 41 * 2),
        ({"mlflow_workers": 2}, 2 * 41 * 3),
        ({"mlflow_workers": "2"}, 2 * 41 * 3),
        ({"mlflow_database_pool_size": 30}, 4 * 51 * 3),
        ({"mlflow_database_max_overflow": "30"}, 4 * 50 * 3),
        ({"mlflow_workers": 1, "mlflow_database_pool_size": 40, "mlflow_database_max_overflow": 1, "mlflow_auth": "none"}, 41 * 2),
    ],
)
def test_connections_of_one_host(variables: dict[str, Any], expected: int) -> None:
    """From its facts, and from the inventory where it says something; numbers may be strings."""
    assert connections(host(**variables)) == expected


def test_connections_of_a_site_add_up() -> None:
    """Each host by its own size, and the reserve once."""
    small, large = host(cpus=1), host(cpus=8, memory_mib=64 * 1024)
    assert connections(small, large) == connections(small) + connections(large) == (1 + 8) * 41 * 3
    assert FILTERS["site_connections"]([]) == sizing.RESERVED_CONNECTIONS


@pytest.mark.parametrize(
    ("variables", "facts", "address"),
    [
        ({"mlops_address": "10.9.9.9"}, {}, "10.9.9.9"),
        ({"mlops_address": "FD00:0::9"}, {}, "fd00::9"),
        ({"mlops_address": ""}, {}, "10.0.0.7"),
        ({}, {}, "10.0.0.7"),
        ({}, {"default_ipv4": {}}, "192.168.1.7"),
        ({}, {"default_ipv4": {}, "default_ipv6": {"address": "fd00::8"}}, "fd00::8"),
        ({}, {"default_ipv4": {}, "all_ipv4_addresses": []}, "fd00::7"),
    ],
)
def test_the_address_of_a_host(variables: dict[str, Any], facts: dict[str, Any], address: str) -> None:
    """The inventory's word, the address of the default route, any: an isolated network has no default route."""
    variables = host(**variables)
    variables["ansible_facts"] |= facts
    assert FILTERS["host_address"](variables) == address


@pytest.mark.parametrize("address", ["mlflow-1.example.org", "10.0.0.0/8", "10.0.0"])
def test_the_address_of_a_host_is_no_name(address: str) -> None:
    """PostgreSQL's access list and certificates need an address; the line says where the other thing came from."""
    with pytest.raises(AnsibleFilterError, match=f"^mlops_address = '{address}' of one.example.org: use an IP address of the host\\b"):
        FILTERS["host_address"](host(mlops_address=address, inventory_hostname="one.example.org"))


def test_a_host_without_any_address() -> None:
    """The same line; a traceback would help nobody."""
    bare = host(inventory_hostname="one")
    bare["ansible_facts"] |= {"default_ipv4": {}, "all_ipv4_addresses": [], "all_ipv6_addresses": []}
    with pytest.raises(AnsibleFilterError, match="^mlops_address = '' of one: "):
        FILTERS["host_address"](bare)


def test_the_address_of_a_host_without_a_route_that_never_had_the_fact() -> None:
    """The fact is missing, not empty, when nothing was found."""
    variables = host()
    del variables["ansible_facts"]["default_ipv4"]
    assert FILTERS["host_address"](variables) == "192.168.1.7"


def test_clients_come_over_tls_unless_they_are_the_host_itself() -> None:
    """One entry for each, for its address alone."""
    entries = FILTERS["client_hba"](["127.0.0.1", "10.0.0.8"], ["mlflow", "mlflow_auth"], ["mlflow", "mlflow_owner"])
    assert [(entry["type"], entry["address"], entry["method"]) for entry in entries] == [
        ("host", "127.0.0.1", "scram-sha-256"),
        ("hostssl", "10.0.0.8", "scram-sha-256"),
    ]
    written = FILTERS["postgresql_hba"](entries)
    assert " 127.0.0.1/32 scram" in written and " 10.0.0.8/32 scram" in written
    for entry in entries:
        assert postgresql.hba_problem(entry) is None
        assert (entry["databases"], entry["users"]) == (["mlflow", "mlflow_auth"], ["mlflow", "mlflow_owner"])
    assert FILTERS["client_hba"]([], ["mlflow"], ["mlflow"]) == []


def test_entries_do_not_share_their_lists() -> None:
    """A caller that changes one must not open the other."""
    databases = ["mlflow"]
    first, second = FILTERS["client_hba"](["10.0.0.8", "10.0.0.9"], databases, ["mlflow"])
    first["databases"].append("all")
    assert second["databases"] == databases == ["mlflow"]


def test_memory_that_does_not_suffice_is_ansibles_error() -> None:
    """The user sees the sentence, not a traceback; a share of the memory is no whole number."""
    assert FILTERS["postgresql_memory"](2048.7, "100") == sizing.postgresql_memory(2048, 100)
    with pytest.raises(AnsibleFilterError, match="are too few for 5000 connections"):
        FILTERS["postgresql_memory"](512.0, 5000)


def test_workers_take_facts_as_they_come() -> None:
    """Facts may be strings after a cache."""
    assert FILTERS["mlflow_workers"]("4", "16384") == 4


def test_a_database_url_from_a_mapping() -> None:
    """The roles hand over a mapping; the names of its keys are those of the function."""
    target = {"host": "db", "port": 5432, "name": "mlflow", "user": "u", "password": "p@", "parameters": {"connect_timeout": 10}}
    assert FILTERS["database_url"](target) == "postgresql+psycopg2://u:p%40@db:5432/mlflow?connect_timeout=10"


@pytest.mark.parametrize(("total", "expected"), [(4096, "1GB"), (1000, "248MB")])
def test_the_share_that_site_yml_gives(total: int, expected: str) -> None:
    """The path of one value: facts, filter, setting."""
    assert FILTERS["postgresql_memory"](total * 1.0, 100)["shared_buffers"] == expected
