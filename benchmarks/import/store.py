"""Makes a store of MLflow's in SQLite with so many metrics, and runs, params, tags and traces that go with them.

usage: store.py PATH METRICS
"""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator

RUNS_OF, KEYS, STEPS, NOW = 1000, 10, 100, 1_767_322_800_000


def main() -> None:
    """Make it."""
    path, metrics = sys.argv[1], int(sys.argv[2])
    program = os.path.join(os.path.dirname(sys.executable), "mlflow")
    subprocess.run([program, "db", "upgrade", f"sqlite:///{path}"], check=True, capture_output=True)
    random.seed(1)
    store = sqlite3.connect(path)
    store.execute("PRAGMA synchronous = off")
    store.execute("INSERT INTO experiments (experiment_id, name, lifecycle_stage, workspace) VALUES (1, 'täglich', 'active', 'default')")
    runs = [f"{random.getrandbits(128):032x}" for _number in range(metrics // RUNS_OF)]
    store.executemany(
        "INSERT INTO runs (run_uuid, name, source_type, user_id, status, start_time, lifecycle_stage, artifact_uri, experiment_id) "
        "VALUES (?, ?, 'LOCAL', 'ada', 'FINISHED', ?, 'active', ?, 1)",
        [(run, f"run {place}", NOW + place, f"s3://mlflow/1/{run}/artifacts") for place, run in enumerate(runs)],
    )

    def points() -> Iterator[tuple]:
        for run in runs:
            for key in range(KEYS):
                for step in range(STEPS):
                    yield f"metric {key}", random.random(), NOW + step, run, step, 0

    store.executemany("INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan) VALUES (?, ?, ?, ?, ?, ?)", points())
    latest = [(f"metric {key}", random.random(), NOW, STEPS - 1, run) for run in runs for key in range(KEYS)]
    store.executemany("INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid) VALUES (?, ?, ?, ?, 0, ?)", latest)
    store.executemany("INSERT INTO params (key, value, run_uuid) VALUES (?, ?, ?)", [(f"p{n}", f"v\t{n}\\ ü", run) for run in runs for n in range(20)])
    store.executemany("INSERT INTO tags (key, value, run_uuid) VALUES (?, ?, ?)", [(f"t{n}", f"line\n{n}", run) for run in runs for n in range(10)])
    traces = [(f"tr-{run}", 1, NOW, 7, "OK") for run in runs]
    store.executemany("INSERT INTO trace_info (request_id, experiment_id, timestamp_ms, execution_time_ms, status) VALUES (?, ?, ?, ?, ?)", traces)
    spans = [(f"tr-{run}", 1, f"{n:016x}", f"span {n}", "{}" + " " * 500, "OK", NOW * 1_000_000, NOW * 1_000_000 + 5) for run in runs for n in range(5)]
    columns = "trace_id, experiment_id, span_id, name, content, status, start_time_unix_nano, end_time_unix_nano"
    store.executemany(f"INSERT INTO spans ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", spans)
    store.commit()
    store.close()


main()
