"""PostgreSQL's settings: what holds for every host and every override, what a refusal offers, and some plans worked out by hand."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import generate
import pytest
from ansible_collections.mlops.mlflow.plugins.module_utils import sizing, tuning
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

FACTOR = {"kB": 1 / 1024, "MB": 1, "GB": 1024, "TB": 1024 * 1024}

# PostgreSQL's own values, the same from 14 to 18, for what is left to it.
SERVER: dict[str, Any] = {
    "autovacuum_max_workers": 3,
    "autovacuum_work_mem": -1,
    "hash_mem_multiplier": 2.0,
    "maintenance_work_mem": "64MB",
    "max_connections": 100,
    "max_parallel_workers": 8,
    "max_slot_wal_keep_size": -1,
    "max_wal_size": "1GB",
    "min_wal_size": "80MB",
    "shared_buffers": "128MB",
    "wal_buffers": -1,
    "wal_keep_size": "0MB",
    "work_mem": "4MB",
}
MEMORY = ("work_mem", "shared_buffers", "autovacuum_work_mem", "maintenance_work_mem", "wal_buffers")
NUMBERS = ("hash_mem_multiplier", "max_parallel_workers", "autovacuum_max_workers")
COUNTED = (*MEMORY, *NUMBERS)
WAL = ("max_wal_size", "min_wal_size", "wal_keep_size", "max_slot_wal_keep_size")
OTHERS = ("max_connections", "max_worker_processes", "max_parallel_workers_per_gather", "effective_cache_size")
MINUS_ONE = ("autovacuum_work_mem", "wal_buffers", "max_slot_wal_keep_size")

SHARES = st.integers(25, 100).map(lambda percent: percent / 100)
HOSTS = st.builds(
    tuning.Host,
    memory_mib=st.integers(1024, 256 * 1024),
    cpus=st.integers(1, 64),
    connections=st.integers(20, 2000),
    share=SHARES,
    disk=st.sampled_from(["ssd", "hdd"]),
    disk_mib=st.just(0) | st.integers(20 * 1024, 4 * 1024 * 1024),
    version=st.integers(14, 18),
)

# Little memory for many connections, as refusals and the limits of a plan are found there.
TIGHT = st.builds(
    tuning.Host,
    memory_mib=st.integers(1024, 8192),
    cpus=st.integers(1, 32),
    connections=st.integers(20, 1000),
    share=SHARES,
    disk_mib=st.just(0) | st.integers(20 * 1024, 40 * 1024),
)

# What no host can have, and what is no value at all.
ABSURD = st.sampled_from(["", "512", "lots", "-2", "-1MB", "1e9GB", "3TB", "nan", "inf", -1, 0, True, [], {}, "9" * 400, "9" * 400 + "MB"])


def _plausible(name: str) -> st.SearchStrategy[Any]:
    if name in ("max_connections", "max_worker_processes", "max_parallel_workers_per_gather"):
        return st.integers(1, 2000)
    if name in NUMBERS:
        return st.integers(1, 64) | st.integers(1, 64).map(str) | st.sampled_from([1.5, "2.5"])
    minus_one = [st.sampled_from([-1, "-1"])] if name in MINUS_ONE else []
    return st.one_of(*(st.integers(1, 2000).map(f"{{}}{unit}".format) for unit in ("kB", "MB")), st.integers(1, 16).map("{}GB".format), *minus_one)


def _overrides(*names: str, absurd: bool = True) -> st.SearchStrategy[dict[str, Any]]:
    """Values for any of some settings, one or several: plausible ones, the server's own, and absurd ones."""
    values = {name: st.one_of(_plausible(name), _plausible(name), st.none(), *([ABSURD] if absurd else [])) for name in names}
    single = st.sampled_from(names).flatmap(lambda name: st.fixed_dictionaries({name: values[name]}))
    return single | st.fixed_dictionaries({}, optional=values)


def often(examples: int) -> Any:
    """Run a property this many times; one slow example is no fault."""
    return settings(max_examples=examples)


def mib(value: Any) -> float:
    """Read an amount of memory, MiB. Written for the test alone, so that a mistake in the collection's own reader shows."""
    match = re.fullmatch(r"([0-9]+)(kB|MB|GB|TB)", value)
    assert match, value
    return int(match.group(1)) * FACTOR[match.group(2)]


def in_force(plan: tuning.Plan, name: str) -> Any:
    """Return a setting's value, the server's own where the plan leaves it out."""
    return plan.settings.get(name, SERVER[name])


def worst_case(plan: tuning.Plan) -> float:
    """Add up what the server may take when everything happens at once, MiB; from the texts of the settings, as the server reads them."""
    buffers, maintenance = mib(in_force(plan, "shared_buffers")), mib(in_force(plan, "maintenance_work_mem"))
    wal_buffers, vacuum = in_force(plan, "wal_buffers"), in_force(plan, "autovacuum_work_mem")
    sorters = int(in_force(plan, "max_connections")) + float(in_force(plan, "max_parallel_workers"))
    return (
        buffers
        + sorters * mib(in_force(plan, "work_mem")) * float(in_force(plan, "hash_mem_multiplier"))
        + float(in_force(plan, "autovacuum_max_workers")) * (maintenance if str(vacuum) == "-1" else mib(vacuum))
        + maintenance
        + (min(max(buffers / 32, 1 / 16), 16) if str(wal_buffers) == "-1" else mib(wal_buffers))
    )


def check_memory(host: tuning.Host, plan: tuning.Plan) -> None:
    """At most 80 % of the share, and 90 % with the processes."""
    share, worst = host.memory_mib * host.share, worst_case(plan)
    assert worst <= share * 0.8
    assert worst + 3 * int(in_force(plan, "max_connections")) <= share * 0.9
    assert sum(part["mib"] for part in plan.memory) <= share * 0.9 + 3
    if "effective_cache_size" in plan.settings:
        assert mib(plan.settings["effective_cache_size"]) <= host.memory_mib


def check_wal(host: tuning.Host, plan: tuning.Plan) -> None:
    """At most 30 % of the disk, whatever stops; and the smallest size is not above the largest."""
    largest = mib(in_force(plan, "max_wal_size"))
    assert mib(in_force(plan, "min_wal_size")) <= largest
    if host.disk_mib:
        kept = max(largest, mib(in_force(plan, "wal_keep_size")))
        assert kept + mib(in_force(plan, "max_slot_wal_keep_size")) <= host.disk_mib * 0.3


def check_refusal(text: str) -> None:
    """A variable, its value, and what to do."""
    assert re.match(r"postgresql_(max_connections|work_mem|shared_buffers|settings\.[a-z_]+) = \S", text), text
    assert re.search(r"\b(use|give|leave out) |at most \d+ connections fit|unit such as", text), text


def plan_or_refusal(host: tuning.Host, given: dict[str, Any]) -> tuning.Plan | str:
    """Return the plan, or the text of the refusal."""
    try:
        return tuning.plan(host, given)
    except tuning.Refused as refusal:
        return str(refusal)


@often(500)
@given(HOSTS | TIGHT)
@example(tuning.Host(memory_mib=1024, cpus=1, connections=100))
@example(tuning.Host(memory_mib=256 * 1024, cpus=64, connections=2000, disk_mib=4 * 1024 * 1024))
def test_a_plan_stays_within_memory_and_disk(host: tuning.Host) -> None:
    """Or there is none.

    The sum that is often asked for, shared_buffers + max_connections × work_mem + autovacuum + maintenance, is smaller than the one that is
    checked here, which also has the parallel workers, hashes of twice work_mem, wal_buffers and the processes. So that one holds too.
    """
    plan = plan_or_refusal(host, {})
    if isinstance(plan, str):
        check_refusal(plan)
        return
    check_memory(host, plan)
    check_wal(host, plan)
    assert plan.settings["max_parallel_workers"] <= plan.settings["max_worker_processes"]
    assert mib(plan.settings["work_mem"]) >= 0.5
    assert set(plan.reasons) == set(plan.settings)
    assert all(reason.strip() for reason in plan.reasons.values())


@often(1200)
@given(HOSTS | TIGHT, _overrides(*COUNTED, *WAL, *OTHERS))
@example(tuning.Host(16384, 4, 300), {"autovacuum_work_mem": "-1", "maintenance_work_mem": "4GB"})
@example(tuning.Host(4096, 2, 30), {"max_connections": None})
@example(tuning.Host(1024, 2, 60), {"work_mem": None})
def test_overrides_cannot_break_the_bounds(host: tuning.Host, given: dict[str, Any]) -> None:
    """What is given stays as it is, the rest is planned around it, and what is left to the server counts with the server's value."""
    plan = plan_or_refusal(host, given)
    if isinstance(plan, str):
        check_refusal(plan)
        return
    check_memory(host, plan)
    check_wal(host, plan)
    for name, value in given.items():
        assert (name not in plan.settings) if value is None else plan.settings[name] == value
    assert set(plan.reasons) == set(plan.settings)
    assert all(plan.reasons[name].startswith("set in the inventory") for name, value in given.items() if value is not None)


@pytest.mark.parametrize("name", ["max_worker_processes", "max_parallel_workers_per_gather", "max_parallel_maintenance_workers", *COUNTED, "jit"])
def test_any_setting_can_be_left_to_the_server(name: str) -> None:
    """None takes it out of the plan and changes nothing else of its form."""
    host = tuning.Host(16384, 4, 300)
    assert set(tuning.plan(host).settings) - set(tuning.plan(host, {name: None}).settings) == {name}


def test_max_connections_can_be_overridden() -> None:
    """The memory follows the number, and the reason keeps the planned one."""
    plan = tuning.plan(tuning.Host(16384, 4, 500), {"max_connections": 100})
    assert plan.settings["work_mem"] == tuning.plan(tuning.Host(16384, 4, 100)).settings["work_mem"]
    assert plan.reasons["max_connections"] == "set in the inventory; planned: 500"


def _more(name: str, offer: str) -> Any:
    """Return the next value above an offer."""
    if name in NUMBERS:
        return int(offer) + 1
    return f"{int(mib(offer) * 1024) + (1024 if mib(offer) >= 16 else 64)}kB"


@often(800)
@given(TIGHT, _overrides(*COUNTED, *WAL, absurd=False))
@example(tuning.Host(4096, 2, 100, disk_mib=20480), {"max_wal_size": "7GB"})
@example(tuning.Host(4096, 2, 100, disk_mib=20480), {"max_wal_size": "6GB", "max_slot_wal_keep_size": "1GB"})
@example(tuning.Host(4096, 2, 100), {"autovacuum_work_mem": "-1", "maintenance_work_mem": "2GB"})
def test_what_a_refusal_allows_is_accepted(host: tuning.Host, given: dict[str, Any]) -> None:
    """With the "use at most" of each refusal there is a plan, or the host is too small for any; and one step more is refused."""
    given, corrected = dict(given), set()
    while isinstance(outcome := plan_or_refusal(host, given), str):
        match = re.match(r"postgresql_(?:settings\.)?(\w+) = .*use at most (\w+)", outcome)
        if match is None:
            assert outcome.startswith("postgresql_max_connections = "), outcome
            return
        name, offer = match.groups()
        assert name not in corrected, outcome
        corrected.add(name)
        if name in COUNTED:
            assert isinstance(plan_or_refusal(host, given | {name: _more(name, offer)}), str), outcome
        given[name] = offer
    check_memory(host, outcome)
    check_wal(host, outcome)


def _offers(text: str) -> dict[str, int]:
    """Read the numbers that a refusal of max_connections offers."""
    patterns = {
        "memory": r"give the host (\d+) MiB",
        "connections": r"at most (\d+) connections fit",
        "workers": r"use (\d+) mlflow_workers in all",
        "pool": r"default_pool_size = (\d+) for the tracking database",
        "small_pool": r"and (\d+) for the other",
    }
    return {name: int(match.group(1)) for name, pattern in patterns.items() if (match := re.search(pattern, text))}


def _fits(host: tuning.Host, given: dict[str, Any] | None = None, **changes: Any) -> bool:
    return not isinstance(plan_or_refusal(dataclasses.replace(host, **changes), given or {}), str)


@often(300)
@given(TIGHT, _overrides(*COUNTED, absurd=False))
def test_more_memory_or_fewer_connections_fit_as_offered(host: tuning.Host, given: dict[str, Any]) -> None:
    """The memory is enough; that many connections fit, and one more does not; without the overrides that are named there is a plan."""
    text = plan_or_refusal(host, given)
    assume(isinstance(text, str) and text.startswith("postgresql_max_connections = "))
    offers = _offers(text)
    assert offers or "leave out" in text or "use a larger host" in text
    if "memory" in offers:
        assert _fits(host, given, memory_mib=offers["memory"])
        assert not _fits(host, given, memory_mib=offers["memory"] - 1024)
    if "connections" in offers:
        assert _fits(host, given, connections=offers["connections"])
        assert not _fits(host, given, connections=offers["connections"] + 1)
    if "leave out" in text:
        named = re.findall(r"\w+", text.partition("leave out ")[2].partition(",")[0])
        assert all(name.removeprefix("postgresql_") in named for name in given if name not in ("work_mem", "shared_buffers"))
        assert _fits(host)


@often(150)
@given(TIGHT, st.integers(1, 32), st.integers(0, 40))
@example(tuning.Host(2048, 2, 0), 32, 0)
@example(tuning.Host(1792, 1, 0), 7, 11)
def test_fewer_workers_or_a_pooler_fit_as_offered(host: tuning.Host, workers: int, others: int) -> None:
    """Both are counted with the connections of all that is not MLflow."""
    rest = sizing.RESERVED_CONNECTIONS + others
    host = dataclasses.replace(host, workers=workers, connections=workers * sizing.CONNECTIONS_OF_WORKER + rest)
    text = plan_or_refusal(host, {})
    assume(isinstance(text, str))
    offers = _offers(text)
    if "workers" in offers:
        assert 0 < offers["workers"] < workers
        assert _fits(host, connections=offers["workers"] * sizing.CONNECTIONS_OF_WORKER + rest)
        assert not _fits(host, connections=(offers["workers"] + 1) * sizing.CONNECTIONS_OF_WORKER + rest)
    if "pool" in offers:
        assert offers["pool"] > sizing.THREADS * workers
        assert _fits(host, connections=offers["pool"] + offers["small_pool"] + rest)


@often(300)
@given(HOSTS | TIGHT, st.integers(1, 64 * 1024))
@example(tuning.Host(1024, 30, 78, share=0.54), 43)
def test_more_memory_never_makes_a_plan_smaller(host: tuning.Host, more: int) -> None:
    """An upgrade of the host is never refused, and takes nothing from caches and sorts."""
    small, large = plan_or_refusal(host, {}), plan_or_refusal(dataclasses.replace(host, memory_mib=host.memory_mib + more), {})
    assume(not isinstance(small, str))
    assert not isinstance(large, str)
    for name in ("shared_buffers", "work_mem", "maintenance_work_mem", "effective_cache_size"):
        assert mib(large.settings[name]) >= mib(small.settings[name]), name


@often(300)
@given(HOSTS | TIGHT, st.integers(1, 200))
def test_more_connections_never_have_more_memory_each(host: tuning.Host, more: int) -> None:
    """And fewer connections are never refused."""
    few, many = plan_or_refusal(host, {}), plan_or_refusal(dataclasses.replace(host, connections=host.connections + more), {})
    assume(not isinstance(many, str))
    assert not isinstance(few, str)
    assert mib(many.settings["work_mem"]) <= mib(few.settings["work_mem"])
    assert mib(many.settings["shared_buffers"]) <= mib(few.settings["shared_buffers"])


@often(300)
@given(st.integers(2048, 256 * 1024), st.integers(1, 64), st.booleans())
def test_a_planned_host_for_everything_is_never_refused(memory_mib: int, cpus: int, store: bool) -> None:
    """With the planned workers on the same host and nothing overridden, 2 GiB are enough; 6 with the object store."""
    others = sizing.OBJECT_STORE_MIB if store else 0
    memory_mib += 4096 if store else 0
    workers = sizing.mlflow_workers(cpus, memory_mib, database=True, others_mib=others)
    share = tuning.memory_share(memory_mib, workers, others)
    connections = workers * sizing.CONNECTIONS_OF_WORKER + sizing.RESERVED_CONNECTIONS
    assert tuning.plan(tuning.Host(memory_mib, cpus, connections, share, workers=workers))


@often(300)
@given(st.integers(512, 256 * 1024), st.integers(0, 64), st.integers(0, 8192))
@example(24105, 2, 0)
def test_shares_leave_the_others_their_memory(memory_mib: int, workers: int, others: int) -> None:
    """A quarter is the least that PostgreSQL gets and three quarters the most, unless it is alone; above the quarter nobody has too little."""
    share = tuning.memory_share(memory_mib, workers, others)
    taken = workers * sizing.WORKER_MIB + others
    assert share == 1.0 if taken == 0 else 0.25 <= share <= 0.75
    assert share in (0.25, 1.0) or taken + share * memory_mib <= memory_mib
    assert tuning.memory_share(memory_mib, workers + 1, others) <= share
    assert tuning.memory_share(memory_mib, workers, others + 100) <= share


def test_a_share_is_the_same_after_a_reboot() -> None:
    """A few MiB less, as between two kernels, change nothing."""
    assert all(tuning.memory_share(24105, 0, taken) == tuning.memory_share(24090, 0, taken) for taken in range(8000, 12000, 10))
    assert tuning.plan(tuning.Host(24105, 4, 300)).settings == tuning.plan(tuning.Host(24090, 4, 300)).settings


GOLDEN = [
    pytest.param(
        # 80 % of 4096 are 3276.8 MiB. Less 3 × 102 and 204 for vacuum and maintenance, 1024 and 16 for the buffers, 1726.8 are left for
        # 101 processes that may hash with twice their work_mem: 8753 kB, in steps of 64: 8704. WAL: 30 % of 100 GiB are 30, 8 and 22.
        tuning.Host(4096, 2, 100, disk_mib=102400, version=17),
        {
            "max_connections": 100,
            "shared_buffers": "1GB",
            "work_mem": "8704kB",
            "maintenance_work_mem": "204MB",
            "autovacuum_work_mem": "102MB",
            "autovacuum_max_workers": 3,
            "wal_buffers": "16MB",
            "effective_cache_size": "3GB",
            "max_worker_processes": 8,
            "max_parallel_workers": 1,
            "max_parallel_workers_per_gather": 1,
            "max_parallel_maintenance_workers": 1,
            "max_wal_size": "8GB",
            "min_wal_size": "2GB",
            "max_slot_wal_keep_size": "22GB",
        },
        id="alone-4-gib",
    ),
    pytest.param(
        # 13107.2 MiB, less 3 × 409 and 819, 4096 and 16: 6949.2 for 504 processes, twice: 7059 kB.
        tuning.Host(16384, 4, 502, disk="hdd", version=14),
        {
            "shared_buffers": "4GB",
            "work_mem": "7040kB",
            "maintenance_work_mem": "819MB",
            "autovacuum_work_mem": "409MB",
            "effective_cache_size": "12GB",
            "max_parallel_workers": 2,
            "max_wal_size": "1GB",
            "min_wal_size": "256MB",
            "max_slot_wal_keep_size": None,
            "wal_compression": "on",
        },
        id="alone-16-gib-unknown-hard-disk",
    ),
    pytest.param(
        # Three quarters of 8192 are 6144. All of it less 502 × 3 for the processes is 4638, less than 80 %. Less 3 × 153 and 307, 1536 and 16,
        # 2320 are left for 504 processes, twice: 2356 kB.
        tuning.Host(8192, 4, 502, share=0.75, disk_mib=20480, version=15, workers=4),
        {
            "shared_buffers": "1536MB",
            "work_mem": "1728kB",
            "maintenance_work_mem": "307MB",
            "autovacuum_work_mem": "153MB",
            "effective_cache_size": "4608MB",
            "max_wal_size": "3GB",
            "min_wal_size": "768MB",
            "max_slot_wal_keep_size": "3GB",
            "wal_compression": "lz4",
        },
        id="shared-8-gib",
    ),
    pytest.param(
        # 90 % of 1024 less 150 × 3, 3 × 25 and 51 are 345 MiB; 151 processes need 151 of them for twice 512 kB, the log may need 16, so
        # shared_buffers is 178 instead of 256.
        tuning.Host(1024, 1, 150),
        {"shared_buffers": "178MB", "work_mem": "512kB", "wal_buffers": "5696kB", "maintenance_work_mem": "51MB", "autovacuum_work_mem": "25MB"},
        id="shared-buffers-give-way",
    ),
]


@pytest.mark.parametrize(("host", "expected"), GOLDEN)
def test_plans_by_hand(host: tuning.Host, expected: dict[str, Any]) -> None:
    """Worked out on paper from docs/sizing.md."""
    planned = tuning.plan(host).settings
    assert {name: planned.get(name) for name in expected} == expected


@pytest.mark.parametrize(
    ("disk", "expected"),
    [
        ("ssd", {"random_page_cost": 1.1, "effective_io_concurrency": 200, "maintenance_io_concurrency": 200, "autovacuum_vacuum_cost_limit": 1000}),
        ("hdd", {"random_page_cost": 4.0, "effective_io_concurrency": 2, "maintenance_io_concurrency": 10, "autovacuum_vacuum_cost_limit": 200}),
    ],
)
def test_disks_by_hand(disk: str, expected: dict[str, Any]) -> None:
    """A head that moves, or none; and half as much log on the one that moves."""
    planned = tuning.plan(tuning.Host(4096, 2, 100, disk=disk, disk_mib=1024 * 1024)).settings
    assert {name: planned[name] for name in expected} == expected
    assert planned["max_wal_size"] == {"ssd": "8GB", "hdd": "4GB"}[disk]


@pytest.mark.parametrize(("version", "method"), [(14, "on"), (15, "lz4"), (18, "lz4")])
def test_wal_compression_by_version(version: int, method: str) -> None:
    """14 knows pglz only."""
    assert tuning.plan(tuning.Host(4096, 2, 100, version=version)).settings["wal_compression"] == method


def test_an_unknown_disk_leaves_wal_alone() -> None:
    """The server's own size, no bound that might be wrong, and any override."""
    plan = tuning.plan(tuning.Host(4096, 2, 100), {"wal_keep_size": "500GB"})
    assert plan.settings["max_wal_size"] == "1GB"
    assert "the disk is unknown" in plan.reasons["max_wal_size"]
    assert "max_slot_wal_keep_size" not in plan.settings


def test_settings_from_the_inventory_have_reasons() -> None:
    """Those for access, and those that the plan does not know."""
    plan = tuning.plan(tuning.Host(4096, 2, 100), {"log_min_duration_statement": "1s"}, {"port": 5432, "ssl": "on"})
    assert (plan.settings["port"], plan.settings["ssl"], plan.settings["log_min_duration_statement"]) == (5432, "on", "1s")
    assert plan.reasons["log_min_duration_statement"] == "set in the inventory"
    assert plan.reasons["port"] == "postgresql_port"


def test_the_parts_of_the_memory_are_shown() -> None:
    """By hand, for the first host above."""
    parts = {part["name"]: (part["mib"], part["detail"]) for part in tuning.plan(tuning.Host(4096, 2, 100)).memory}
    assert parts["work_mem"] == (1717, "(100 connections + 1 parallel workers) × 8704kB × 2")
    assert parts["processes"] == (300, "100 connections × 3 MB for each one's process")
    assert list(parts) == ["shared_buffers", "work_mem", "autovacuum_work_mem", "maintenance_work_mem", "wal_buffers", "processes"]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"work_mem": "64MB"}, r"^postgresql_work_mem = '64MB': .* share of 4096 MiB; use at most \d+kB, or leave it out$"),
        ({"shared_buffers": "4GB"}, r"^postgresql_shared_buffers = '4GB': .*; use at most \d+MB, or leave it out$"),
        ({"autovacuum_max_workers": 90}, r"^postgresql_settings.autovacuum_max_workers = 90: .*; use at most \d+, or leave it out$"),
        ({"effective_cache_size": "5GB"}, r"^postgresql_settings.effective_cache_size = '5GB': .*; use at most 4096MB$"),
        ({"max_wal_size": "7GB"}, r"^postgresql_settings.max_wal_size = '7GB': WAL may take 30 % .* 20480 MiB; use at most 6080MB, or a larger disk$"),
        ({"min_wal_size": "5GB"}, r"^postgresql_settings.min_wal_size = '5GB': .*; use at most 3072MB$"),
        ({"max_slot_wal_keep_size": None}, r"^postgresql_settings.max_slot_wal_keep_size = None: .*; use at most 3072MB, or a larger disk$"),
        ({"max_connections": "many"}, r"^postgresql_max_connections = 'many': use a number from 1 to 262143$"),
        ({"hash_mem_multiplier": 0}, r"^postgresql_settings.hash_mem_multiplier = 0: use a number from 1 to"),
        ({"work_mem": "lots"}, r"^postgresql_work_mem = 'lots': .* a unit such as 512MB"),
    ],
)
def test_refusals_by_hand(given: dict[str, Any], text: str) -> None:
    """Each names the variable as the inventory writes it."""
    with pytest.raises(tuning.Refused, match=text):
        tuning.plan(tuning.Host(4096, 2, 100, disk_mib=20480), given)


def test_too_many_connections_are_refused_with_every_remedy() -> None:
    """The alternative is a server that the kernel kills under load."""
    host = tuning.Host(4096, 2, 8 * sizing.CONNECTIONS_OF_WORKER + sizing.RESERVED_CONNECTIONS, workers=8)
    text = plan_or_refusal(host, {})
    assert isinstance(text, str)
    assert text.startswith("postgresql_max_connections = 996: 4096 MiB for PostgreSQL (postgresql_memory_share = 1 of 4096 MiB) leave them ")
    offers = _offers(text)
    assert set(offers) == {"memory", "connections", "workers", "pool", "small_pool"}
    # Each of the 8 × 40 threads holds one connection, and two more for each worker go round; a second one is needed in the tracking database only.
    assert (offers["pool"], offers["small_pool"]) == (336, 20)


def test_the_other_calculators_by_hand() -> None:
    """For the comparison in docs/sizing.md: 4 GiB, 2 cores, 100 connections."""
    # 1 + 100 × 2 × 3 / (108 × 3) + 4 × 1/4
    assert generate.pgtune(4, 2, 100) == pytest.approx(1 + 200 / 108 + 1)
    # work_mem cannot be below 4 MB: 1000 × 2 × 4 MB are 7.8125 GiB.
    assert generate.pgtune(4, 2, 1000) == pytest.approx(1 + 7.8125 + 1)
    # 8 GB for maintenance, 2 for each vacuum; 16 cores are 16 processes.
    assert generate.pgtune(256, 16, 84) == pytest.approx(64 + 84 * 2 * 192 / 300 + 3 * 2 + 8)
    # 512 MB each for maintenance and three vacuums, and 5.12 MB for each of 100 connections, twice.
    assert generate.timescaledb_tune(4, 2, 100) == pytest.approx(1 + 1 + 4 * 0.5)
    assert generate.timescaledb_tune(64, 5, 100) == pytest.approx(16 + 16 / 3 + 4 * 2047 / 1024)
    assert generate.defaults(4, 2, 100) == pytest.approx((128 + 100 * 4 * 2 + 4 * 64) / 1024)
    # 1024 MiB, 8704 kB twice for each connection, and 3 × 102 and 204 MiB: the first plan by hand.
    assert generate.ours(4, 2, 100) == pytest.approx((1024 + 100 * 17 + 306 + 204) / 1024)


def test_generated_sections_are_written_anew() -> None:
    """An edit in a table is stale, the prose around it is kept, and a name that nobody generates is an error."""
    page = "# Prose\n<!-- generated: reserve -->\nan edit\n<!-- end -->\nmore prose\n"
    filled = generate.fill(page)
    assert filled == f"# Prose\n<!-- generated: reserve -->\n\n{generate.reserve_table()}\n<!-- end -->\nmore prose\n"
    assert generate.fill(filled) == filled
    with pytest.raises(KeyError, match="nonsense"):
        generate.fill(page.replace("reserve", "nonsense"))
