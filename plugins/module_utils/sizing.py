# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""Every number that is derived from the size of a host: pure functions, no Ansible."""

from __future__ import annotations

import re

MIB = 1024 * 1024

# Request threads of one MLflow worker process (AnyIO's default). log_batch takes two connections from one pool: with fewer than one more
# than there are threads, all of them can hold their first connection and wait for the second until the request fails.
THREADS = 40
POOL_SIZE = 40
MAX_OVERFLOW = 1

# Pools of a worker: tracking store, model registry, and basic-auth's user database.
ENGINES = 3
CONNECTIONS_OF_WORKER = (POOL_SIZE + MAX_OVERFLOW) * ENGINES

# What the processes for jobs hold of one host, where there are any: a connection for each job that may run at once, by MLflow's own limits (3 kinds of ten
# each, 2 of five, 1 of two), and one for the periodic tasks.
JOB_CONNECTIONS = 43

# What is connected besides MLflow's servers.
SUPERUSERS = "superuser_reserved_connections"
RESERVE = {"migration": 3, "backup": 4, "monitoring": 2, SUPERUSERS: 3}
RESERVED_CONNECTIONS = sum(RESERVE.values())

# Memory of one MLflow worker under load.
WORKER_MIB = 512

# And of the one-node Ceph.
OBJECT_STORE_MIB = 2500

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
    match = re.fullmatch(r"\s*([0-9]{1,18}(?:\.[0-9]{1,18})?)\s*([A-Za-z]+)\s*", str(value))
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


def mlflow_workers(cpus: int, memory_mib: int, database: bool = False, others_mib: int = 0) -> int:
    """Worker processes of one MLflow host.

    One for each core, as the handlers are CPU-bound Python, while their memory stays within two thirds of what the host has for them. Where
    PostgreSQL runs on the same host, the processes of a worker's connections need as much as the worker.

    Args:
        cpus: cores of the host.
        memory_mib: memory of the host in MiB.
        database: whether PostgreSQL runs on it too.
        others_mib: what further services on the host take, MiB.

    Returns:
        At least 1.
    """
    each = WORKER_MIB * (2 if database else 1)
    return max(1, min(cpus, (steady(memory_mib) - others_mib) * 2 // 3 // each))


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
