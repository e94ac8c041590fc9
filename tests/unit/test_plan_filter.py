"""The plan of a site, through the filters that roles and playbooks use."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.mlops.mlflow.plugins.filter.plan import FilterModule
from ansible_collections.mlops.mlflow.plugins.module_utils import postgresql, sizing, tuning
from hypothesis import given
from hypothesis import strategies as st

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


def connections(*hosts: dict[str, Any], **others: Any) -> dict[str, Any]:
    """Return what a site needs whose hosts all run MLflow, and nothing else."""
    named = [{"inventory_hostname": f"m{number}"} | each for number, each in enumerate(hosts)]
    found: dict[str, Any] = FILTERS["site_connections"](named, {"mlflow": [each["inventory_hostname"] for each in named]}, **others)
    return found


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, 4 * 41 * 3),
        ({"mlflow_auth": "basic"}, 4 * 41 * 3),
        ({"mlflow_auth": "none"}, 4 * 41 * 2),
        ({"mlflow_workers": 2}, 2 * 41 * 3),
        ({"mlflow_workers": "2"}, 2 * 41 * 3),
        ({"mlflow_database_pool_size": 30}, 4 * 31 * 3),
        ({"mlflow_database_max_overflow": "30"}, 4 * 70 * 3),
        ({"mlflow_workers": 1, "mlflow_database_pool_size": 20, "mlflow_database_max_overflow": 21, "mlflow_auth": "none"}, 41 * 2),
        ({"mlflow_workers": "auto", "mlflow_database_pool_size": [40], "mlflow_database_max_overflow": -1}, 4 * 41 * 3),
        ({"mlflow_workers": None, "mlflow_database_pool_size": "²", "mlflow_database_max_overflow": True}, 4 * 41 * 3),
    ],
)
def test_connections_of_one_host(variables: dict[str, Any], expected: int) -> None:
    """From its facts, and from the inventory where it says something; numbers may be strings. What is none has a line of its own in the report,
    which a failure here would keep from being shown."""
    found = connections(host(**variables))
    assert found["total"] == expected + sizing.RESERVED_CONNECTIONS
    assert sum(found["by_store"].values()) == expected
    assert found["by_store"]["tracking"] == (expected if variables.get("mlflow_auth") == "none" else expected // 3 * 2)


def test_jobs_hold_connections_of_their_own() -> None:
    """To the tracking store alone."""
    found = connections(host(mlflow_jobs="yes"), host(mlflow_jobs=False))
    assert {"what": "m0: jobs", "count": sizing.JOB_CONNECTIONS} in found["parts"]
    assert found["total"] == 2 * 4 * 41 * 3 + sizing.JOB_CONNECTIONS + sizing.RESERVED_CONNECTIONS
    assert found["by_store"] == {"tracking": 2 * 4 * 41 * 2 + sizing.JOB_CONNECTIONS, "auth": 2 * 4 * 41}


def test_connections_of_a_site_add_up() -> None:
    """Each host by its own size, users by their shares, and the reserve once; each part says what it is for."""
    small, large = host(cpus=1), host(cpus=8, memory_mib=64 * 1024, mlflow_auth="none")
    users = [{"name": "a"}, {"name": "b", "connections": "12"}, "c"]
    found = connections(small, large, users=users)
    assert found["parts"] == [
        {"what": "m0: 1 workers × (40 + 1) × 3 pools (tracking, registry, users)", "count": 123},
        {"what": "m1: 8 workers × (40 + 1) × 2 pools (tracking, registry)", "count": 656},
        {"what": "postgresql_users: a", "count": 5},
        {"what": "postgresql_users: b", "count": 12},
        *({"what": what, "count": count} for what, count in sizing.RESERVE.items()),
    ]
    assert found["total"] == 123 + 656 + 17 + sizing.RESERVED_CONNECTIONS
    assert (found["hosts"], found["workers"], found["by_store"], found["unknown"]) == (2, 9, {"tracking": 82 + 656, "auth": 41}, [])
    assert connections()["total"] == connections(users="x")["total"] == sizing.RESERVED_CONNECTIONS


def test_a_host_that_nobody_looked_at_is_unknown() -> None:
    """Unless the inventory says how many workers it has: without facts there is no plan for it."""
    found = connections(host(), {"ansible_facts": {}}, {"mlflow_workers": 2})
    assert (found["unknown"], found["workers"]) == (["m1"], 6)


@given(
    st.lists(
        st.fixed_dictionaries(
            {"ansible_facts": st.fixed_dictionaries({"processor_vcpus": st.integers(1, 64), "memtotal_mb": st.integers(512, 1 << 18)})},
            optional={
                "mlflow_workers": st.integers() | st.text(),
                "mlflow_database_pool_size": st.integers() | st.none(),
                "mlflow_auth": st.sampled_from(["basic", "none", "x"]),
            },
        ),
        max_size=4,
    )
)
def test_a_total_is_the_sum_of_its_parts(hosts: list[dict[str, Any]]) -> None:
    """Whatever the inventory says; each host counts at least one worker, and the databases' pools are what is not the reserve."""
    found = connections(*hosts)
    assert found["total"] == sum(part["count"] for part in found["parts"]) == sum(found["by_store"].values()) + sizing.RESERVED_CONNECTIONS
    assert found["workers"] >= len(hosts) and found["unknown"] == []


@pytest.mark.parametrize(
    ("hosts_of", "variables", "workers", "share"),
    [
        ({"mlflow": ["m"], "postgresql": ["d"]}, {}, 8, 0.25),
        ({"postgresql": ["m"]}, {}, 0, 1.0),
        ({"mlflow": ["m"], "postgresql": ["m"]}, {}, 5, 0.68),
        ({"mlflow": ["m"], "postgresql": ["m"]}, {"mlflow_workers": "2"}, 5, 0.75),
        ({"mlflow": ["m"], "postgresql": ["m"]}, {"mlflow_workers": "auto"}, 5, 0.68),
        ({"mlflow": ["m"], "postgresql": ["m"], "object_store": ["m"]}, {}, 3, 0.5),
        ({"postgresql": ["m"], "object_store": ["m"]}, {}, 0, 0.69),
    ],
)
def test_what_services_leave_each_other(hosts_of: dict[str, list[str]], variables: dict[str, Any], workers: int, share: float) -> None:
    """Workers by cores and memory beside what else the host runs, PostgreSQL's share by what they and the object store leave."""
    variables = host(cpus=8, memory_mib=8192, inventory_hostname="m") | variables
    assert FILTERS["site_workers"](variables, hosts_of) == workers
    if "m" in hosts_of["postgresql"]:
        assert FILTERS["site_memory_share"](variables, hosts_of) == share


def test_without_facts_there_are_no_workers() -> None:
    """And no failure: the report that names the host comes later."""
    for variables in ({"inventory_hostname": "m"}, {"inventory_hostname": "m", "ansible_facts": {}}):
        assert FILTERS["site_workers"](variables, {"mlflow": ["m"]}) == 0
        assert FILTERS["site_memory_share"](variables, {"mlflow": ["m"]}) == 1.0


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
    for nothing in (bare, {"inventory_hostname": "one"}, {"inventory_hostname": "one", "ansible_facts": {}}):
        with pytest.raises(AnsibleFilterError, match="^mlops_address of one is unknown, as nobody has looked at that host: set it to an IP address$"):
            FILTERS["host_address"](nothing)
    assert FILTERS["host_address"]({"mlops_address": "10.1.1.1"}) == "10.1.1.1"


def test_the_address_of_a_host_without_a_route_that_never_had_the_fact() -> None:
    """The fact is missing, not empty, when nothing was found."""
    variables = host()
    del variables["ansible_facts"]["default_ipv4"]
    assert FILTERS["host_address"](variables) == "192.168.1.7"


def client(**variables: Any) -> dict[str, Any]:
    """Return an MLflow host that finds some addresses for two names."""
    resolved = {"db.example.org": ["10.0.0.7"], "pooler.example.org": ["10.0.0.99"]}
    return {"inventory_hostname": "m1", "__preflight_looked": {"report": {"resolved": resolved}}, **variables}


@pytest.mark.parametrize(
    ("clients", "names"),
    [
        ([client()], ["10.0.0.7"]),
        ([client(inventory_hostname="one")], []),
        ([client(inventory_hostname="one"), client()], ["10.0.0.7"]),
        ([client(mlflow_database_host="db.example.org")], ["db.example.org"]),
        ([client(mlflow_database_host="db.example.org", inventory_hostname="one")], ["db.example.org"]),
        ([client(mlflow_database_host="192.168.1.7")], ["192.168.1.7"]),
        ([client(mlflow_database_host="pooler.example.org")], []),
        ([client(mlflow_database_host="10.0.0.99")], []),
        ([{"mlflow_database_host": "db.example.org"}], []),
    ],
)
def test_the_names_of_the_database_host(clients: list[dict[str, Any]], names: list[str]) -> None:
    """By which its certificate is checked; that of a pooler in between is not this host's."""
    assert FILTERS["names_of_database"](host(inventory_hostname="one"), clients) == names


def test_the_names_of_a_database_host_that_nobody_reached() -> None:
    """Its line of the report is that it cannot be reached."""
    assert FILTERS["names_of_database"]({"inventory_hostname": "one"}, [client()]) == []


def test_clients_come_over_tls() -> None:
    """One entry for each, for its address alone; those on the host itself too."""
    entries = FILTERS["client_hba"](["127.0.0.1", "10.0.0.8"], ["mlflow", "mlflow_auth"], ["mlflow", "mlflow_owner"])
    assert [(entry["type"], entry["address"], entry["method"]) for entry in entries] == [
        ("hostssl", "127.0.0.1", "scram-sha-256"),
        ("hostssl", "10.0.0.8", "scram-sha-256"),
    ]
    written = FILTERS["postgresql_hba"](entries)
    assert " 127.0.0.1/32 scram" in written and " 10.0.0.8/32 scram" in written
    for entry in entries:
        assert postgresql.hba_problem(entry) is None
        assert (entry["databases"], entry["users"]) == (["mlflow", "mlflow_auth"], ["mlflow", "mlflow_owner"])
    assert FILTERS["client_hba"]([], ["mlflow"], ["mlflow"]) == []


USERS = [
    {"name": "a", "password": "geheim", "addresses": ["10.1.0.0/16", "fd00::7"], "grants": "write"},
    {"name": "b", "addresses": ["10.2.0.1"], "databases": ["x", "y"], "connections": 9},
    {"name": "c", "databases": []},
]


def test_further_users_come_from_their_own_addresses() -> None:
    """Each to its own databases, or the first of MLflow's; without addresses nobody comes in. No password is in what others read."""
    entries = FILTERS["user_hba"](USERS, ["mlflow"])
    assert [(entry["users"], entry["address"], entry["databases"]) for entry in entries] == [
        (["a"], "10.1.0.0/16", ["mlflow"]),
        (["a"], "fd00::7", ["mlflow"]),
        (["b"], "10.2.0.1", ["x", "y"]),
    ]
    assert {(entry["type"], entry["method"]) for entry in entries} == {("hostssl", "scram-sha-256")}
    assert FILTERS["user_grants"](USERS) == [{"name": "a", "grants": "write"}, {"name": "b", "grants": "read"}, {"name": "c", "grants": "read"}]
    assert FILTERS["user_hba"]([], ["mlflow"]) == FILTERS["user_grants"]([]) == []


def test_entries_do_not_share_their_lists() -> None:
    """A caller that changes one must not open the other."""
    databases = ["mlflow"]
    first, second = FILTERS["client_hba"](["10.0.0.8", "10.0.0.9"], databases, ["mlflow"])
    first["databases"].append("all")
    assert second["databases"] == databases == ["mlflow"]


def test_workers_take_facts_as_they_come() -> None:
    """Facts may be strings after a cache."""
    assert FILTERS["mlflow_workers"]("4", "16384") == 4


def test_a_database_url_from_a_mapping() -> None:
    """The roles hand over a mapping; the names of its keys are those of the function."""
    target = {"host": "db", "port": 5432, "name": "mlflow", "user": "u", "password": "p@", "parameters": {"connect_timeout": 10}}
    assert FILTERS["database_url"](target) == "postgresql+psycopg2://u:p%40@db:5432/mlflow?connect_timeout=10"


# --- PostgreSQL's plan ---


def plan(given: dict[str, Any] | None = None, access: dict[str, Any] | None = None, **host: Any) -> dict[str, Any]:
    """Return the plan of a host of its own, described as roles/postgresql does."""
    described = {
        "memory_mib": 8192,
        "cpus": "4",
        "share": "1.0",
        "connections": 255,
        "disk": "ssd",
        "disk_size": "",
        "version": "17",
        "workers": "2",
    }
    found: dict[str, Any] = FILTERS["postgresql_plan"](described | host, given or {}, access or {})
    return found


def test_a_plan_of_texts() -> None:
    """Templates hand over texts, and empty ones for what is to be planned."""
    found = plan({"shared_buffers": "", "work_mem": "", "jit": True, "max_wal_size": None}, {"port": 5433})
    assert (found["settings"]["shared_buffers"], found["settings"]["max_connections"]) == ("2GB", 255)
    assert (found["settings"]["jit"], found["reasons"]["jit"]) == (True, "set in the inventory; planned: off")
    assert (found["settings"]["port"], found["reasons"]["port"]) == (5433, "postgresql_port")
    assert "max_wal_size" not in found["settings"]
    assert set(found["settings"]) == set(found["reasons"])
    assert found["host"] == {"memory_mib": 8192, "share_mib": 8192, "limit_mib": int(8192 * tuning.LIMIT_WITH_PROCESSES)}
    assert sum(part["mib"] for part in found["memory"]) <= found["host"]["limit_mib"] + len(found["memory"])
    assert plan(share="0.5")["host"]["share_mib"] == 4096


@pytest.mark.parametrize("size", ["100GB", 102400, "102400", "102400MB"])
def test_the_size_of_a_disk(size: Any) -> None:
    """With its unit, or in MiB; empty and 0 are unknown."""
    assert plan(disk_size=size)["settings"]["max_slot_wal_keep_size"] == plan(disk_size="100GB")["settings"]["max_slot_wal_keep_size"]
    for unknown in ("", 0, None):
        assert "max_slot_wal_keep_size" not in plan(disk_size=unknown)["settings"]


@pytest.mark.parametrize(
    ("host", "given", "sentence"),
    [
        ({"connections": 5000}, {}, "postgresql_max_connections = 5000: 8192 MiB for PostgreSQL "),
        ({}, {"work_mem": "1GB"}, "postgresql_work_mem = '1GB': the memory of all connections and caches together would be more than "),
        ({}, {"work_mem": "8 mb"}, "postgresql_work_mem = '8 mb': '8 mb' is no memory size with a unit "),
        ({}, {"sort_mem": "1GB"}, "postgresql_settings.sort_mem = '1GB': this is another name of work_mem; set postgresql_work_mem instead"),
        ({}, {"Max_WAL_Size": None}, "postgresql_settings.Max_WAL_Size = None: this is another name of max_wal_size; set postgresql_settings.max_wal_size "),
        ({"disk_size": "x"}, {}, "'x' is no memory size with a unit "),
    ],
)
def test_a_refusal_is_ansibles_error(host: dict[str, Any], given: dict[str, Any], sentence: str) -> None:
    """The user sees the sentence, not a traceback."""
    with pytest.raises(AnsibleFilterError, match=f"^{re.escape(sentence)}"):
        plan(given, **host)


def row(
    setting: str, vartype: str = "integer", unit: str | None = None, context: str = "sighup", ours: bool = True, boot: str | None = None
) -> dict[str, Any]:
    """Return a row of pg_settings as host_report has it."""
    limits = {"min_val": "0", "max_val": "2147483647"} if vartype == "integer" else {"min_val": None, "max_val": None}
    about = {"setting": setting, "vartype": vartype, "unit": unit, "context": context, "enumvals": None, "pending_restart": False}
    return about | limits | {"source": "configuration file", "boot_val": boot or setting, "ours": ours}


def compared(settings: dict[str, Any], known: dict[str, Any]) -> dict[str, tuple[str, str, str]]:
    """Return what is shown of each setting: now, planned and effect."""
    planned = plan() | {"settings": settings, "reasons": {name: "why" for name in settings}}
    found = FILTERS["postgresql_host_plan"](planned, "d", known, {"total": 1})
    assert (found["host"], found["service"], found["connections"], found["notices"]) == ("d", "postgresql", {"total": 1}, [])
    assert found["memory"]["parts"] == planned["memory"] and found["memory"]["host_mib"] == 8192
    assert FILTERS["plan_table"](found | {"connections": None})
    return {each["setting"]: (each["now"], each["planned"], each["effect"]) for each in found["rows"]}


def test_a_plan_beside_the_server_that_runs() -> None:
    """What is the same, what a reload does, what waits for a restart, and what is no longer set here."""
    known = {
        "shared_buffers": row("16384", unit="8kB", context="postmaster"),
        "work_mem": row("4096", unit="kB", context="user"),
        "jit": row("off", "bool"),
        "DateStyle": row("ISO, MDY", "string"),
        "max_wal_size": row("2048", unit="MB", boot="1024"),
        "wal_buffers": row("2048", unit="8kB", boot="-1", context="postmaster"),
        "min_wal_size": row("80", unit="MB"),
        "wal_level": row("replica", "string", ours=False),
    }
    rows = compared({"shared_buffers": "2GB", "work_mem": "8MB", "jit": False, "datestyle": "ISO, DMY", "pg_stat_statements.max": 100}, known)
    assert rows == {
        "shared_buffers": ("128MB", "2GB", "restart"),
        "work_mem": ("4MB", "8MB", "reload"),
        "jit": ("off", "off", "nothing"),
        "datestyle": ("ISO, MDY", "ISO, DMY", "reload"),
        "pg_stat_statements.max": ("", "100", "reload"),
        "max_wal_size": ("2GB", "the server's default", "reload"),
        "wal_buffers": ("16MB", "the server's default", "restart"),
        "min_wal_size": ("80MB", "the server's default", "nothing"),
    }


def test_without_a_server_all_is_for_its_first_start() -> None:
    """Each with its reason, in the order of the alphabet."""
    found = FILTERS["postgresql_host_plan"](plan(), "d", {}, None)
    assert {each["effect"] for each in found["rows"]} == {"first start"} and {each["now"] for each in found["rows"]} == {""}
    assert [each["setting"] for each in found["rows"]] == sorted(plan()["settings"])
    assert all(each["reason"] for each in found["rows"])
    assert any("first start" in line for line in FILTERS["plan_table"](found))


# --- MLflow's plan ---


@pytest.mark.parametrize(
    ("now", "effects"),
    [
        ({}, ["first start"] * 3),
        ({"MLFLOW_WORKERS": "4", "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "40", "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW": "1"}, ["nothing"] * 3),
        ({"MLFLOW_WORKERS": "2", "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "40"}, ["restart", "nothing", "restart"]),
    ],
)
def test_the_plan_of_an_mlflow_host(now: dict[str, str], effects: list[str]) -> None:
    """Numbers may be texts; the notices go along."""
    found = FILTERS["mlflow_host_plan"]({"workers": "4", "pool_size": 40, "max_overflow": 1}, "m", now, ["so and so"])
    assert [each["effect"] for each in found["rows"]] == effects
    assert [each["planned"] for each in found["rows"]] == ["4", "40", "1"]
    assert [each["now"] for each in found["rows"]] == [now.get(each["setting"], "") for each in found["rows"]]
    assert (found["host"], found["service"], found["notices"], found["memory"]) == ("m", "mlflow", ["so and so"], None)
    assert FILTERS["plan_table"](found) and FILTERS["plan_document"]([found]) and FILTERS["plan_html"]([found], "x")


def test_lines_as_the_callback_prints_them() -> None:
    """One text where lists would be folded."""
    assert FILTERS["lines"](["a", "b"], "yaml") == "a\nb"
    assert FILTERS["lines"](["a", "b"], "json") == ["a", "b"]
