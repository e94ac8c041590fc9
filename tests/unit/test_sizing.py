"""Workers, connections and units: promises that hold for every size of host."""

from __future__ import annotations

import pytest
from ansible_collections.mlops.mlflow.plugins.module_utils import sizing
from hypothesis import example, given
from hypothesis import strategies as st

KIB, MIB, GIB = 1024, 1024**2, 1024**3

# From far too small to the largest machines there are.
MEMORY_MIB = st.integers(min_value=0, max_value=32 * 1024 * 1024)
OTHERS_MIB = st.just(0) | st.integers(min_value=0, max_value=8192)
CPUS = st.integers(min_value=1, max_value=1024)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0kB", 0),
        ("8192B", 8192),
        ("64kB", 64 * KIB),
        ("512MB", 512 * MIB),
        (" 4 GB ", 4 * GIB),
        ("1.5GB", 1536 * MIB),
        ("2TB", 2048 * GIB),
    ],
)
def test_parse_memory_reads_postgresql_units(text: str, size: int) -> None:
    """The units are powers of 1024."""
    assert sizing.parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "512", "MB", "512mb", "4 GiB", "-1MB", "4GB4", "1,5GB", "1e3MB", "0x10kB", "9" * 400 + "MB", "\u0663MB", None])
def test_parse_memory_refuses_everything_else(text: str | None) -> None:
    """A number without a unit means pages or milliseconds elsewhere, so nobody may write it; the message has the value."""
    with pytest.raises(ValueError, match="memory size with a unit") as caught:
        sizing.parse_memory(text)  # type: ignore[arg-type]
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("size", "text"),
    [(64 * KIB, "64kB"), (1536 * KIB, "1536kB"), (16 * MIB, "16MB"), (8 * GIB, "8GB"), (9 * GIB + MIB, "9217MB"), (1, "1kB")],
)
def test_format_memory_takes_the_largest_unit_without_a_rest(size: int, text: str) -> None:
    """That is how PostgreSQL shows them, so that the two can be compared by eye."""
    assert sizing.format_memory(size) == text


@given(st.integers(min_value=1, max_value=2**40))
def test_memory_survives_writing_and_reading(kib: int) -> None:
    """From 1 kB to a PiB nothing is lost."""
    assert sizing.parse_memory(sizing.format_memory(kib * KIB)) == kib * KIB


@given(MEMORY_MIB)
def test_steady_memory_is_little_less(memory_mib: int) -> None:
    """Never more than there is, at most a sixteenth less, and the same for what differs by a few MiB."""
    assert memory_mib * 15 / 16 <= sizing.steady(memory_mib) <= memory_mib
    assert sizing.steady(sizing.steady(memory_mib)) == sizing.steady(memory_mib)
    assert sizing.steady(24105) == sizing.steady(24090) == 23552


@given(CPUS, MEMORY_MIB, st.booleans(), OTHERS_MIB)
@example(1, 0, False, 0)
@example(4, 4096, True, 0)
@example(4, 2048, True, 4096)
def test_workers_stay_within_cores_and_memory(cpus: int, memory_mib: int, database: bool, others_mib: int) -> None:
    """Within two thirds of what the others leave, twice as much for each beside a database; one at least, and never one fewer than would fit."""
    workers = sizing.mlflow_workers(cpus, memory_mib, database, others_mib)
    each = sizing.WORKER_MIB * (2 if database else 1)
    assert 1 <= workers <= cpus
    assert workers == 1 or workers * each <= (memory_mib - others_mib) * 2 / 3
    assert workers == cpus or (workers + 1) * each > (sizing.steady(memory_mib) - others_mib) * 2 / 3


@given(st.integers(min_value=1, max_value=64), CPUS, MEMORY_MIB, st.booleans(), OTHERS_MIB)
def test_more_hardware_is_never_fewer_workers(more: int, cpus: int, memory_mib: int, database: bool, others_mib: int) -> None:
    """An upgrade of the host cannot make it slower, and what else runs on it cannot make it faster."""
    workers = sizing.mlflow_workers(cpus, memory_mib, database, others_mib)
    assert sizing.mlflow_workers(cpus + more, memory_mib, database, others_mib) >= workers
    assert sizing.mlflow_workers(cpus, memory_mib + more, database, others_mib) >= workers
    assert sizing.mlflow_workers(cpus, memory_mib, database, others_mib + more) <= workers
    assert sizing.mlflow_workers(cpus, memory_mib, True, others_mib) <= workers


@pytest.mark.parametrize(
    ("cpus", "memory_mib", "database", "others_mib", "workers"),
    [(4, 4096, False, 0, 4), (8, 4096, False, 0, 5), (4, 4096, True, 0, 2), (4, 8192, True, 2500, 3), (2, 2048, True, 0, 1), (2, 512, False, 0, 1)],
)
def test_workers_by_hand(cpus: int, memory_mib: int, database: bool, others_mib: int, workers: int) -> None:
    """Two thirds of 4096 are 2730: five workers of 512 MiB, or two with the connections of each."""
    assert sizing.mlflow_workers(cpus, memory_mib, database, others_mib) == workers


def test_a_pool_holds_all_threads_of_a_worker() -> None:
    """Each thread can hold a connection while one gets its second: with that one done, the next can go on."""
    assert sizing.POOL_SIZE + sizing.MAX_OVERFLOW >= sizing.THREADS + 1
    assert sizing.MAX_OVERFLOW > 0, "MLflow ignores 0"


@pytest.mark.parametrize(
    ("workers", "pool_size", "max_overflow", "engines", "connections"),
    [(1, 40, 1, 3, 123), (2, 40, 1, 3, 246), (4, 30, 20, 2, 400), (0, 40, 1, 3, 0)],
)
def test_connections_of_a_host(workers: int, pool_size: int, max_overflow: int, engines: int, connections: int) -> None:
    """By hand: every pool of every worker, full."""
    assert sizing.mlflow_connections(workers, pool_size, max_overflow, engines) == connections


def test_connections_of_a_worker_and_the_reserve() -> None:
    """What docs/sizing.md counts with."""
    assert sizing.mlflow_connections(1, sizing.POOL_SIZE, sizing.MAX_OVERFLOW, sizing.ENGINES) == sizing.CONNECTIONS_OF_WORKER == 123
    assert sum(sizing.RESERVE.values()) == sizing.RESERVED_CONNECTIONS == 12
    assert sizing.RESERVE["superuser_reserved_connections"] == 3, "PostgreSQL's own default"
    # The lock's, and two of MLflow's engine: it begins on one, and Alembic's env.py asks it for another.
    assert sizing.RESERVE["migration"] == 3
