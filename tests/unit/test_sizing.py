"""The arithmetic of the plan: promises that hold for every size of host."""

from __future__ import annotations

import pytest
from ansible_collections.mlops.mlflow.plugins.module_utils import sizing
from hypothesis import assume, example, given
from hypothesis import strategies as st

KIB, MIB, GIB = 1024, 1024**2, 1024**3

# From far too small to the largest machines there are.
MEMORY_MIB = st.integers(min_value=0, max_value=32 * 1024 * 1024)
CONNECTIONS = st.integers(min_value=1, max_value=262_143)


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


@pytest.mark.parametrize("text", ["", "512", "MB", "512mb", "4 GiB", "-1MB", "4GB4", "1,5GB", "1e3MB", "0x10kB", None])
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


@given(st.integers(min_value=1, max_value=1024), MEMORY_MIB)
@example(1, 0)
@example(4, 4096)
def test_workers_stay_within_cores_and_half_of_the_memory(cpus: int, memory_mib: int) -> None:
    """And there is one whatever the host, and never one fewer than would fit."""
    workers = sizing.mlflow_workers(cpus, memory_mib)
    assert 1 <= workers <= cpus
    assert workers == 1 or workers * sizing.WORKER_MIB * 2 <= memory_mib
    assert workers == cpus or (workers + 1) * sizing.WORKER_MIB * 2 > sizing.steady(memory_mib)


@given(MEMORY_MIB)
def test_steady_memory_is_little_less(memory_mib: int) -> None:
    """Never more than there is, at most a sixteenth less, and the same for what differs by a few MiB."""
    assert memory_mib * 15 / 16 <= sizing.steady(memory_mib) <= memory_mib
    assert sizing.steady(sizing.steady(memory_mib)) == sizing.steady(memory_mib)
    assert sizing.steady(24105) == sizing.steady(24090) == 23552


@given(st.integers(min_value=1, max_value=64), st.integers(min_value=1, max_value=2048), MEMORY_MIB)
def test_more_hardware_is_never_fewer_workers(more: int, cpus: int, memory_mib: int) -> None:
    """An upgrade of the host cannot make it slower."""
    workers = sizing.mlflow_workers(cpus, memory_mib)
    assert sizing.mlflow_workers(cpus + more, memory_mib) >= workers
    assert sizing.mlflow_workers(cpus, memory_mib + more) >= workers


def test_a_pool_holds_all_threads_of_a_worker() -> None:
    """40 threads can each hold a connection while one gets its second: with that one done, the next can go on."""
    assert sizing.POOL_SIZE + sizing.MAX_OVERFLOW >= 41


def test_connections_of_a_host_and_of_a_site() -> None:
    """By hand: 2 workers × 41 × 3 pools and 4 × 50 × 2, and the reserve."""
    first = sizing.mlflow_connections(workers=2, pool_size=20, max_overflow=21, engines=3)
    second = sizing.mlflow_connections(workers=4, pool_size=30, max_overflow=20, engines=2)
    assert (first, second) == (246, 400)
    assert sizing.max_connections([first, second]) == 656
    assert sizing.max_connections([]) == sizing.RESERVED_CONNECTIONS > 3


@given(MEMORY_MIB, CONNECTIONS)
@example(512, 100)
@example(4096, 133)
@example(64 * 1024, 1000)
def test_postgresql_never_plans_more_than_it_may(memory_mib: int, connections: int) -> None:
    """All connections in their largest hash at once, every autovacuum worker and the caches: at most 80 % of the memory."""
    try:
        plan = {name: sizing.parse_memory(value) for name, value in sizing.postgresql_memory(memory_mib, connections).items()}
    except ValueError as error:
        assert str(memory_mib) in str(error) and str(connections) in str(error)
        return
    worst = (
        plan["shared_buffers"]
        + connections * plan["work_mem"] * sizing.HASH_MEM_MULTIPLIER
        + sizing.AUTOVACUUM_WORKERS * plan["maintenance_work_mem"]
        + plan["wal_buffers"]
    )
    assert worst <= memory_mib * MIB * 0.8
    assert 64 * KIB <= plan["work_mem"] <= 64 * MIB
    assert plan["work_mem"] % (64 * KIB) == 0
    assert plan["shared_buffers"] <= 8 * GIB
    assert 16 * MIB <= plan["maintenance_work_mem"] <= GIB
    assert plan["shared_buffers"] <= plan["effective_cache_size"] <= memory_mib * MIB


@given(MEMORY_MIB, CONNECTIONS)
def test_postgresql_uses_what_it_may(memory_mib: int, connections: int) -> None:
    """A plan of zeros would also stay below 80 %: below its ceiling, work_mem could not be one step larger."""
    try:
        plan = {name: sizing.parse_memory(value) for name, value in sizing.postgresql_memory(memory_mib, connections).items()}
    except ValueError:
        return
    assume(plan["work_mem"] < 64 * MIB)
    others = plan["shared_buffers"] + sizing.AUTOVACUUM_WORKERS * plan["maintenance_work_mem"] + plan["wal_buffers"]
    one_step_more = others + connections * (plan["work_mem"] + 64 * KIB) * sizing.HASH_MEM_MULTIPLIER
    # The 80 % are rounded down to whole MiB.
    assert one_step_more > (sizing.steady(memory_mib) * 8 // 10) * MIB


@given(st.integers(min_value=1024, max_value=1024 * 1024))
def test_a_host_of_a_gib_has_room_for_postgresql_itself(memory_mib: int) -> None:
    """PostgreSQL's own default of 100 connections never fails on a host that can run it."""
    assert sizing.postgresql_memory(memory_mib, 100)


def test_too_many_connections_are_refused_with_a_remedy() -> None:
    """The alternative is a server that the kernel kills under load."""
    with pytest.raises(ValueError, match="1024 MiB .* 20000 connections: use fewer mlflow_workers, or more memory"):
        sizing.postgresql_memory(1024, 20_000)
