# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL's settings for the size of its host, each with its reason, within a bound on the memory: pure functions, no Ansible.

docs/sizing.md explains the model. "Manual" is PostgreSQL's own; pgtune and timescaledb-tune are the usual calculators.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from ansible_collections.mlops.mlflow.plugins.module_utils import guc
from ansible_collections.mlops.mlflow.plugins.module_utils.sizing import (
    CONNECTIONS_OF_WORKER,
    RESERVED_CONNECTIONS,
    THREADS,
    WORKER_MIB,
    format_memory,
    parse_memory,
    steady,
)

# Part of the share that the sum of everything below may take; the rest is for the processes themselves, the page cache and mistakes.
LIMIT = 0.8

# And with the processes of all connections; the kernel needs some too.
LIMIT_WITH_PROCESSES = 0.9

# Private memory of one connection's process besides work_mem, its caches of the catalog and of statements. Of 84 connections that MLflow
# had used, the largest had 3.0 MiB, half of them less than 1.9.
BACKEND_MIB = 3

# Less of it, and even small sorts go to disk.
MIN_WORK_MEM_KIB = 512
MAX_WORK_MEM_KIB = 64 * 1024

# Part of its disk that WAL may ever take.
WAL_PART = 0.3

# With less, a few segments of the log would be more than that.
MIN_DISK_MIB = 2048

# Settings that have a variable of their own; the others are in postgresql_settings.
VARIABLES = {name: f"postgresql_{name}" for name in ("listen_addresses", "max_connections", "port", "shared_buffers", "work_mem")}

# Settings that count in the sum, those first that are most likely to be the cause when it is too large.
_COUNTED = (
    "work_mem",
    "shared_buffers",
    "autovacuum_work_mem",
    "maintenance_work_mem",
    "wal_buffers",
    "hash_mem_multiplier",
    "max_parallel_workers",
    "autovacuum_max_workers",
)

# The largest number that the server takes for any of its counts of processes.
MAX_NUMBER = 262_143

# What the server does when a setting is left to it (PostgreSQL 14 to 18), of those that are read here.
_SERVER = {
    "autovacuum_max_workers": 3,
    "autovacuum_work_mem": "-1",
    "effective_cache_size": "4GB",
    "hash_mem_multiplier": 2.0,
    "maintenance_work_mem": "64MB",
    "max_connections": 100,
    "max_parallel_maintenance_workers": 2,
    "max_parallel_workers": 8,
    "max_parallel_workers_per_gather": 2,
    "max_slot_wal_keep_size": "-1",
    "max_wal_size": "1GB",
    "max_worker_processes": 8,
    "min_wal_size": "80MB",
    "shared_buffers": "128MB",
    "wal_buffers": "-1",
    "wal_keep_size": "0kB",
    "work_mem": "4MB",
}

# Settings that say "as another one", or "without a bound", with -1.
_MINUS_ONE = ("autovacuum_work_mem", "max_slot_wal_keep_size", "wal_buffers")

# Why the settings are there that the role hands in.
_ACCESS = {
    "listen_addresses": "postgresql_listen_addresses: the host itself, and the address by which its clients reach it",
    "password_encryption": "passwords are stored as SCRAM verifiers",
    "port": "postgresql_port",
    "ssl": "clients on other hosts, and MLflow everywhere, use TLS",
    "ssl_cert_file": "the host's certificate",
    "ssl_key_file": "its key",
    "ssl_min_protocol_version": "older versions are broken",
}


class Refused(ValueError):
    """There is no plan; the text says why, and what would fit."""


class _Overrun(Exception):
    """The sum is too large: what was left for work_mem, kB, and how many may use it at once."""

    def __init__(self, left_kib: float, sorters: float) -> None:
        super().__init__(left_kib, sorters)
        self.left_kib, self.sorters = left_kib, sorters


@dataclasses.dataclass(frozen=True)
class Host:
    """What a plan starts from.

    Attributes:
        memory_mib: memory of the host, MiB.
        cpus: cores.
        connections: ``max_connections``.
        share: part of the memory that PostgreSQL may plan with, above 0 and at most 1.
        disk: ``ssd`` or ``hdd``.
        disk_mib: size of the file system with the data, MiB; 0 when nobody knows.
        version: PostgreSQL's major version.
        workers: MLflow's worker processes among the clients, for the advice in a refusal.
    """

    memory_mib: int
    cpus: int
    connections: int
    share: float = 1.0
    disk: str = "ssd"
    disk_mib: int = 0
    version: int = 17
    workers: int = 0

    @property
    def share_mib(self) -> int:
        """Memory that PostgreSQL may plan with, MiB."""
        return steady(int(self.memory_mib * self.share))


@dataclasses.dataclass(frozen=True)
class Plan:
    """Settings with their reasons, and where the memory goes.

    Attributes:
        settings: names and values.
        reasons: one sentence for each name.
        memory: ``name``, ``mib`` and ``detail`` of each part of the share.
    """

    settings: dict[str, Any]
    reasons: dict[str, str]
    memory: list[dict[str, Any]]


def variable(name: str) -> str:
    """Return the variable that overrides a setting."""
    return VARIABLES.get(name, f"postgresql_settings.{name}")


def memory_share(memory_mib: int, workers: int = 0, others_mib: int = 0) -> float:
    """Return the part of a host's memory that PostgreSQL may plan with, beside other services.

    Args:
        memory_mib: memory of the host, MiB.
        workers: MLflow's worker processes on it.
        others_mib: what further services on the host take, MiB.

    Returns:
        1.0 on a host of its own; else what the others leave, at most three quarters and at least one, in steps of a hundredth.
    """
    taken = workers * WORKER_MIB + others_mib
    if taken == 0:
        return 1.0
    memory_mib = max(steady(memory_mib), 1)
    return max(25, min(75, (memory_mib - taken) * 100 // memory_mib)) / 100


class _Draft:
    """Collects settings; what the inventory gives has the first word."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.given = given
        self.settings: dict[str, Any] = {}
        self.reasons: dict[str, str] = {}

    def take(self, name: str, planned: Any, reason: str) -> Any:
        """Note a setting, and return the value in force; a given None leaves it to the server."""
        value = planned
        if name in self.given:
            value = self.given[name]
            reason = f"set in the inventory; planned: {planned}"
            if value is None:
                return _SERVER.get(name)
        self.settings[name], self.reasons[name] = value, reason
        return value

    def number(self, name: str, planned: float, reason: str, least: int = 0) -> float:
        """Note a setting that is a number, and return it."""
        value = self.take(name, planned, reason)
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not least <= number <= MAX_NUMBER:
            raise Refused(f"{variable(name)} = {value!r}: use a number from {least} to {MAX_NUMBER}")
        return number

    def memory(self, name: str, planned_kib: int, reason: str) -> int:
        """Note a setting that is an amount of memory, and return its kB; -1 is returned as it is where it means something."""
        value = self.take(name, format_memory(planned_kib * 1024), reason)
        return -1 if str(value) == "-1" and name in _MINUS_ONE else _kib(name, value)

    def rest(self) -> None:
        """Note what is given and was not planned."""
        planned = {name: {} for name in self.reasons}
        for name in sorted(set(self.given) - set(self.reasons)):
            # The server takes its former names, and any case, and of two lines the last.
            if (same := guc.find(name, planned)) is not None:
                raise Refused(f"postgresql_settings.{name} = {self.given[name]!r}: this is another name of {same}; set {variable(same)} instead")
            if self.given[name] is not None:
                self.settings[name], self.reasons[name] = self.given[name], "set in the inventory"


def _kib(name: str, value: Any) -> int:
    """Read an amount of memory, kB."""
    try:
        return parse_memory(str(value)) // 1024
    except ValueError as error:
        raise Refused(f"{variable(name)} = {value!r}: {error}") from error


def plan(host: Host, given: dict[str, Any] | None = None, access: dict[str, Any] | None = None) -> Plan:
    """Plan all settings whose best value depends on the host or on what MLflow does with the server.

    This holds for every plan, whatever is given: shared_buffers + (max_connections + max_parallel_workers) × work_mem × hash_mem_multiplier
    + autovacuum_max_workers × autovacuum_work_mem + maintenance_work_mem + wal_buffers is at most 80 % of the share; with 3 MiB for each
    connection's process it is at most 90 %; and WAL takes at most 30 % of its disk.

    Args:
        host: what PostgreSQL runs on.
        given: settings with values of the user's own, by name; None leaves one to the server. The others are planned around them.
        access: settings that follow from the inventory alone: addresses, port, TLS.

    Returns:
        The plan.

    Raises:
        Refused: there is no such plan; the text names a variable, its value, and what would fit.
    """
    draft = _Draft(dict(given or {}))
    for name, value in (access or {}).items():
        draft.take(name, value, _ACCESS[name])
    connections = draft.number("max_connections", host.connections, "what the clients can open together, and the reserve", least=1)
    host = dataclasses.replace(host, connections=math.ceil(connections))
    parallel, vacuums = _processes(draft, host)
    try:
        memory = _memory(draft, host, parallel, vacuums)
    except _Overrun as overrun:
        raise _refusal(draft.given, host, overrun) from None
    _wal(draft, host)
    _disk(draft, host)
    _habits(draft, host)
    draft.rest()
    return Plan(draft.settings, draft.reasons, memory)


def _processes(draft: _Draft, host: Host) -> tuple[int, int]:
    """Plan the processes beside those of the connections; return the parallel workers and the autovacuum workers."""
    half = host.cpus // 2
    draft.number("max_worker_processes", max(8, host.cpus), "one for each core (pgtune), and at least the server's default")
    parallel = draft.number("max_parallel_workers", min(max(half, 1), 16), "half of the cores; the others answer MLflow's many short queries")
    draft.number("max_parallel_workers_per_gather", min(half, 2), "few: MLflow's queries are short, and each worker has a work_mem of its own")
    draft.number("max_parallel_maintenance_workers", min(half, 4), "migrations and imports build the indexes of large tables")
    vacuums = 5 if host.cpus >= 32 else 4 if host.cpus >= 16 else 3
    vacuums = draft.number("autovacuum_max_workers", vacuums, "the server's default, and one or two more from 16 and 32 cores on (pgtune)")
    return math.ceil(parallel), math.ceil(vacuums)


def _memory(draft: _Draft, host: Host, parallel: int, vacuums: int) -> list[dict[str, Any]]:
    """Divide the share; return its parts."""
    share_kib, connections = host.share_mib * 1024, host.connections
    multiplier = draft.number("hash_mem_multiplier", 2.0, "a hash may take two work_mem: the server's default since 15, and 14 gets it too", least=1)
    twentieth = _between(16, share_kib // 20480, 1024) * 1024
    maintenance = draft.memory("maintenance_work_mem", twentieth, "a twentieth of the share, up to 1 GB, for one index at a time")
    vacuum = draft.memory("autovacuum_work_mem", _between(16, share_kib // 40960, 512) * 1024, "half of that, as several run at once; up to 512 MB")
    vacuum = maintenance if vacuum == -1 else vacuum
    own = connections * BACKEND_MIB * 1024
    limit = min(int(share_kib * LIMIT), int(share_kib * LIMIT_WITH_PROCESSES) - own) - vacuums * vacuum - maintenance
    sorters = (connections + parallel) * multiplier
    wish = draft.given.get("work_mem", f"{MIN_WORK_MEM_KIB}kB")
    wish_kib = _kib("work_mem", _SERVER["work_mem"] if wish is None else wish)
    # shared_buffers gives way down to an eighth before a plan fails.
    most = _between(16, share_kib // 4096, 8192)
    spare = int(limit - sorters * wish_kib - 16 * 1024) // 1024
    reason = "a quarter of the share (manual), up to 8 GB, as without huge pages every process needs a page table of 1/512 of it"
    buffers = draft.memory("shared_buffers", _between(max(most // 2, 16), spare, most) * 1024, reason)
    wal = draft.memory("wal_buffers", _between(64, buffers // 32, 16 * 1024), "a 32nd of shared_buffers, up to one segment of the log: the server's own rule")
    wal = _between(64, buffers // 32, 16 * 1024) if wal == -1 else wal
    # A smaller log lends nothing, or work_mem would shrink again as memory, and with it the log, grows.
    left = limit - buffers - max(wal, 16 * 1024)
    fitting = min(int(left / sorters) // 64 * 64, MAX_WORK_MEM_KIB)
    reason = f"what is left of {LIMIT:.0%} of the share, if all connections and parallel workers hash at once; up to 64 MB"
    work = draft.memory("work_mem", max(fitting, 64), reason)
    if work * sorters > left or ("work_mem" not in draft.given and fitting < MIN_WORK_MEM_KIB):
        raise _Overrun(left, sorters)
    cache = max(share_kib * 3 // 4, buffers)
    hint = draft.memory("effective_cache_size", cache, "three quarters of the share (pgtune); tells the planner what may be cached, and allocates nothing")
    if hint > host.memory_mib * 1024:
        raise Refused(f"{variable('effective_cache_size')} = {draft.given['effective_cache_size']!r}: the host has no more; use at most {host.memory_mib}MB")
    pages = -(-buffers // 2048)
    draft.take("huge_pages", "try", f"spares the page tables where the kernel has the pages (vm.nr_hugepages of {pages + pages // 20 + 1} or more)")
    parts = [
        ("shared_buffers", buffers, "the server's page cache"),
        ("work_mem", work * sorters, f"({connections} connections + {parallel} parallel workers) × {format_memory(work * 1024)} × {multiplier:g}"),
        ("autovacuum_work_mem", vacuums * vacuum, f"{vacuums} workers × {format_memory(vacuum * 1024)}"),
        ("maintenance_work_mem", maintenance, "one migration, import or index at a time"),
        ("wal_buffers", wal, "log that is not written yet"),
        ("processes", own, f"{connections} connections × {BACKEND_MIB} MB for each one's process"),
    ]
    return [{"name": name, "mib": round(kib / 1024), "detail": detail} for name, kib, detail in parts]


def _between(low: int, value: int, high: int) -> int:
    return max(low, min(value, high))


def _wal(draft: _Draft, host: Host) -> None:
    """Plan the write-ahead log, which may fill its disk no further than WAL_PART."""
    known = host.disk_mib > 0
    if 0 < host.disk_mib < MIN_DISK_MIB:
        raise Refused(f"postgresql_disk_size = {host.disk_mib} MiB: the log of the server alone wants 30 % of {MIN_DISK_MIB} MiB; use a larger disk")
    # A file system that shares its disk with others (ZFS) changes its size with theirs.
    most_mib = int(steady(host.disk_mib) * WAL_PART) if known else 0
    planned = _between(256, most_mib // 2 // 256 * 256, 4096 if host.disk == "hdd" else 8192) if known else 1024
    reason = "half of what WAL may take, up to 8 GB (4 on a hard disk), so that load seldom forces a checkpoint"
    reason = reason if known else "the server's default, as the disk is unknown"
    largest = draft.memory("max_wal_size", planned * 1024, reason)
    least = draft.memory("min_wal_size", min(max(largest // 4, 80 * 1024), largest), "a quarter of max_wal_size: segments are used again instead of made anew")
    kept = draft.given.get("wal_keep_size")
    kept = _kib("wal_keep_size", _SERVER["wal_keep_size"] if kept is None else kept)
    if known:
        planned_slots = 0 if "max_slot_wal_keep_size" in draft.given else 64 * 1024
        left = most_mib * 1024 - max(largest, kept)
        reason = "what a standby or a backup that stopped may hold back: WAL stays within 30 % of its disk"
        slots = draft.memory("max_slot_wal_keep_size", max(left // 1024 // 64 * 64, 64) * 1024, reason)
        for name, size in (("max_wal_size", largest), ("wal_keep_size", kept), ("max_slot_wal_keep_size", slots)):
            room = left if name == "max_slot_wal_keep_size" else most_mib * 1024 - planned_slots
            if size > room or size == -1:
                value, most = draft.given.get(name, draft.settings.get(name)), max(room // 1024, 0)
                remedy = f"WAL may take 30 % of its disk of {host.disk_mib} MiB; use at most {most}MB, or a larger disk"
                raise Refused(f"{variable(name)} = {value!r}: {remedy}")
    if least > largest:
        remedy = f"max_wal_size is no larger; use at most {largest // 1024}MB"
        raise Refused(f"{variable('min_wal_size')} = {draft.given.get('min_wal_size')!r}: {remedy}")
    draft.take("checkpoint_timeout", "15min", "fewer full pages in the log than every 5 minutes, for a longer replay after a crash")
    draft.take("checkpoint_completion_target", 0.9, "checkpoints are spread over the time until the next")
    draft.take("wal_compression", "lz4" if host.version >= 15 else "on", "full pages take less of the log and the disk, for little CPU; lz4 from 15 on")


def _disk(draft: _Draft, host: Host) -> None:
    """Plan what depends on the kind of disk."""
    solid = host.disk != "hdd"
    apart = "hardly more than" if solid else "many times"
    draft.take("random_page_cost", 1.1 if solid else 4.0, f"{host.disk}: a page out of order costs {apart} the next one")
    draft.take("effective_io_concurrency", 200 if solid else 2, f"{host.disk}: requests that it serves at once (pgtune, timescaledb-tune)")
    draft.take("maintenance_io_concurrency", 200 if solid else 10, f"{host.disk}: the same for vacuum and recovery")
    rate = f"{host.disk}: lets vacuum write up to {200 if solid else 40} MB/s, so that it keeps up with metrics"
    draft.take("autovacuum_vacuum_cost_limit", 1000 if solid else 200, rate)


def _habits(draft: _Draft, host: Host) -> None:
    """Plan what follows from MLflow's habits: many small writes, large tables that only grow, JSON in long texts, short transactions."""
    dear = "comparing rows by several columns costs more than the planner thinks; so it does not sort all runs that match to return the first few"
    draft.take("cpu_operator_cost", 0.005, dear)
    draft.take("autovacuum_vacuum_scale_factor", 0.05, "latest_metrics is updated with each step that is logged; vacuumed sooner, table and indexes stay small")
    draft.take("autovacuum_vacuum_insert_scale_factor", 0.05, "metrics only grows; frequent small vacuums keep index-only scans possible")
    draft.take("autovacuum_analyze_scale_factor", 0.02, "search plans follow the growth of runs and metrics")
    draft.take("jit", "off", "compiling costs more than MLflow's short queries take, and memory in every process")
    draft.take("default_toast_compression", "lz4", "long JSON texts (traces, datasets, tags) cost less CPU than with pglz (manual)")
    draft.take("idle_in_transaction_session_timeout", "15min", "a client that forgot its transaction must not keep vacuum from its work")
    draft.take("client_connection_check_interval", "10s", "a search whose client is gone ends")
    draft.take("tcp_keepalives_idle", "60s", "a host that vanished gives its connections back within two minutes")
    draft.take("tcp_keepalives_interval", "10s", "with tcp_keepalives_idle")
    draft.take("tcp_keepalives_count", 6, "with tcp_keepalives_idle")


def _fits(host: Host, given: dict[str, Any]) -> bool:
    """Tell whether the memory of a host holds a plan."""
    draft = _Draft(given)
    try:
        _memory(draft, host, *_processes(draft, host))
    except _Overrun:
        return False
    return True


def _last(low: int, high: int, fits: Callable[[int], bool]) -> int:
    """Return the last number between two that fits, when all before it fit too; ``low - 1`` when none does."""
    while low <= high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if fits(middle) else (low, middle - 1)
    return high


def _refusal(given: dict[str, Any], host: Host, overrun: _Overrun) -> Refused:
    """Explain which value to change, and what would fit. Only the sum is wrong; every single value could be read."""
    for name in (name for name in _COUNTED if name in given):
        value = _SERVER[name] if given[name] is None else given[name]
        without = {key: each for key, each in given.items() if key != name}
        # With -1 the size is another setting's, which is looked at by itself.
        if str(value) == "-1" or not _fits(host, without):
            continue
        if name in ("hash_mem_multiplier", "max_parallel_workers", "autovacuum_max_workers"):
            most = str(_last(0, int(float(value)), lambda number, name=name, without=without: _fits(host, {**without, name: number})))
        else:
            kib = _last(1, max(_kib(name, value) // 64, 1), lambda step, name=name, without=without: _fits(host, {**without, name: f"{step * 64}kB"})) * 64
            most = format_memory((kib // 1024 * 1024 if kib >= 16 * 1024 else kib) * 1024)
        return Refused(
            f"{variable(name)} = {given[name]!r}: the memory of all connections and caches together would be more than {LIMIT:.0%} of PostgreSQL's share of "
            f"{host.share_mib} MiB; use at most {most}, or leave it out"
        )
    return _too_small(given, host, overrun)


def _too_small(given: dict[str, Any], host: Host, overrun: _Overrun) -> Refused:
    """Explain what more memory, fewer workers or a pooler would have to be."""
    connections = host.connections
    counted = {name: value for name, value in given.items() if name in _COUNTED}
    most = _last(1, connections, lambda number: _fits(dataclasses.replace(host, connections=number), counted))
    need = 1024 * (1 + _last(0, 1 << 20, lambda gib: not _fits(dataclasses.replace(host, memory_mib=gib * 1024), counted)))
    offers = [f"give the host {need} MiB"] if need < 1 << 30 else []
    # A worker without basic-auth has fewer; what is left is the others'.
    each = min(CONNECTIONS_OF_WORKER, max(connections - RESERVED_CONNECTIONS, 1) // max(host.workers, 1)) or 1
    others = connections - host.workers * each
    workers = (most - others) // each
    if host.workers and workers > 0:
        offers.append(f"use {workers} mlflow_workers in all instead of {host.workers}")
    # A thread holds one connection and waits for its second; with one more than there are threads, each gets it at last.
    pooled = host.workers * (THREADS + 2)
    if host.workers and pooled + THREADS // 2 + others <= most:
        offers.append(
            f"put PgBouncer in session mode in between (default_pool_size = {pooled} for the tracking database and {THREADS // 2} for the other; "
            f"mlflow_database_pool_size: 1, mlflow_database_max_overflow: {THREADS}; mlflow_database_host: PgBouncer's)"
        )
    if counted and _fits(host, {}):
        offers.append(f"leave out {' and '.join(variable(name) for name in sorted(counted))}")
    if most > 0:
        offers.append(f"at most {most} connections fit")
    leaves = f"{max(int(overrun.left_kib / overrun.sorters), 0)} kB of work_mem each, and {MIN_WORK_MEM_KIB} kB are the least"
    return Refused(
        f"postgresql_max_connections = {connections}: {host.share_mib} MiB for PostgreSQL (postgresql_memory_share = {host.share:g} of {host.memory_mib} MiB) "
        f"leave them {leaves}; {', or '.join(offers) or 'use a larger host'}"
    )
