# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""Every number that is derived from the size of a host: pure functions, no Ansible."""

from __future__ import annotations

import re

MIB = 1024 * 1024

# One MLflow worker process answers with 40 threads (AnyIO's default), and log_batch takes two connections from one pool: with
# fewer than 41 all threads can hold their first connection and wait for the second until the request fails.
POOL_SIZE = 20
MAX_OVERFLOW = 21

# A migration, a backup, a monitor, a human, and PostgreSQL's own superuser reserve of 3.
RESERVED_CONNECTIONS = 10

# Resident memory of one MLflow worker under load, and of its parent process.
WORKER_MIB = 512

# PostgreSQL's default: a hash node may take this multiple of work_mem.
HASH_MEM_MULTIPLIER = 2.0
AUTOVACUUM_WORKERS = 3
WAL_BUFFERS_MIB = 16

_UNITS = {"B": 1, "kB": 1024, "MB": MIB, "GB": 1024 * MIB, "TB": 1024 * 1024 * MIB}


def parse_memory(value: str) -> int:
    """Read a PostgreSQL memory value with its unit.

    Args:
        value: for example ``512MB``; the units are PostgreSQL's own (B, kB, MB, GB, TB) and case matters.

    Returns:
        Bytes.

    Raises:
        ValueError: there is no unit, or the unit or the number is unknown.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*", str(value))
    if match is None or match.group(2) not in _UNITS:
        raise ValueError(f"{value!r} is no memory size with a unit such as 512MB or 4GB (units: {', '.join(_UNITS)})")
    return int(float(match.group(1)) * _UNITS[match.group(2)])


def format_memory(size: int) -> str:
    """Write bytes the way PostgreSQL prints them: the largest unit that divides them, kB at least."""
    kib = max(size // 1024, 1)
    for unit, factor in (("GB", 1024 * 1024), ("MB", 1024)):
        if kib % factor == 0:
            return f"{kib // factor}{unit}"
    return f"{kib}kB"


def steady(memory_mib: int) -> int:
    """Round memory down to a sixteenth of a power of two.

    The kernel's share of the memory differs a little from boot to boot, and a plan that followed it would restart servers.
    """
    step = max(1 << max(memory_mib.bit_length() - 5, 0), 1)
    return memory_mib // step * step


def mlflow_workers(cpus: int, memory_mib: int) -> int:
    """Worker processes of one MLflow host.

    One for each core, as the handlers are CPU-bound Python, while their memory stays within half of the host's.

    Args:
        cpus: cores of the host.
        memory_mib: memory of the host in MiB.

    Returns:
        At least 1.
    """
    return max(1, min(cpus, steady(memory_mib) // 2 // WORKER_MIB))


def mlflow_connections(workers: int, pool_size: int, max_overflow: int, engines: int) -> int:
    """Database connections that one MLflow host can hold.

    Args:
        workers: worker processes.
        pool_size: connections that a pool keeps.
        max_overflow: connections that it opens beyond them.
        engines: pools in a worker: tracking store, model registry, and basic-auth when that is on.

    Returns:
        The most connections the host's server can have open.
    """
    return workers * (pool_size + max_overflow) * engines


def max_connections(mlflow_hosts: list[int]) -> int:
    """``max_connections`` for what all MLflow hosts can hold (see ``mlflow_connections``) and the reserve."""
    return sum(mlflow_hosts) + RESERVED_CONNECTIONS


def postgresql_memory(memory_mib: int, connections: int) -> dict[str, str]:
    """Split PostgreSQL's memory.

    A quarter to shared_buffers (PostgreSQL manual, 19.4.1: a reasonable start on a dedicated server; more than 8 GiB rarely pays for
    small rows), a twentieth, up to 1 GiB, to each maintenance process (pgtune gives 1/16 up to 2 GiB, without counting
    them), and what is left of 80 % to the connections, each of which may hold one hash node of work_mem × hash_mem_multiplier.

    Args:
        memory_mib: MiB that PostgreSQL may use; the page cache has the rest.
        connections: max_connections.

    Returns:
        The settings' names and values.

    Raises:
        ValueError: the connections leave less than the 64 kB that PostgreSQL wants for work_mem.
    """
    given, memory_mib = memory_mib, steady(memory_mib)
    shared_buffers = min(memory_mib // 4, 8192)
    maintenance = max(min(memory_mib // 20, 1024), 16)
    left_kib = (memory_mib * 8 // 10 - shared_buffers - AUTOVACUUM_WORKERS * maintenance - WAL_BUFFERS_MIB) * 1024
    work_mem_kib = int(left_kib / (connections * HASH_MEM_MULTIPLIER)) // 64 * 64
    if work_mem_kib < 64:
        raise ValueError(
            f"{given} MiB for PostgreSQL are too few for {connections} connections: use fewer mlflow_workers, or more memory"
        )
    return {
        "shared_buffers": format_memory(shared_buffers * MIB),
        "effective_cache_size": format_memory(max(memory_mib * 3 // 4, shared_buffers) * MIB),
        "maintenance_work_mem": format_memory(maintenance * MIB),
        "work_mem": format_memory(min(work_mem_kib, 64 * 1024) * 1024),
        "wal_buffers": format_memory(WAL_BUFFERS_MIB * MIB),
    }
