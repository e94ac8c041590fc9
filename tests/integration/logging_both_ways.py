"""Logs metrics with the installed MLflow, as it comes and with the server's shortcut, into the site's own database, and compares: prints how many batches,
and what differs, as JSON. What it has logged is removed again.

usage: PYTHON logging_both_ways.py FOLDER-OF-mlops_logging, with MLFLOW_BACKEND_STORE_URI
"""

import json
import math
import os
import random
import sys
import tempfile
import uuid
from concurrent.futures import ThreadPoolExecutor

from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.dbmodels.models import SqlExperiment, SqlLatestMetric, SqlMetric, SqlRun
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from sqlalchemy import event, text
from sqlalchemy.engine import Engine

sys.path.insert(0, sys.argv[1])
import mlops_logging  # noqa: E402

KEYS = ["loss", "val/loss", "Ü 測", "a b:c - 1.5_d"]
VALUES = [0.0, -0.0, 1.5, -3, 1e-320, 1.7976931348623157e308, math.inf, -math.inf, math.nan]


def batches(seed: int) -> list[list[Metric]]:
    """Make batches with much that is there already: the same keys, steps, times and values, in any order, also within one batch."""
    choose = random.Random(seed)

    def metric() -> Metric:
        return Metric(choose.choice(KEYS), choose.choice(VALUES), choose.choice([0, 5, 2**40]), choose.choice([-2, 0, 1, 7]))

    made = [[metric() for _metric in range(choose.choice([1, 3, 30]))] for _batch in range(40)]
    return [*made, made[3], [*made[5], *made[5]]]


def later(number: int, batch: list[Metric]) -> list[Metric]:
    """Give a batch times of its own; every second one is backwards, so that each waits for what another one has locked."""
    return [Metric(each.key, each.value, each.timestamp + 10 * number + 10, each.step) for each in (batch if number % 2 else batch[::-1])]


def contents(store: SqlAlchemyStore, run: str) -> list[list]:
    """Return all rows of a run, as the database has them."""
    rows = []
    for model in (SqlMetric, SqlLatestMetric):
        with store.ManagedSessionMaker() as session:
            found = session.query(model.key, model.value, model.timestamp, model.step, model.is_nan).filter(model.run_uuid == run).all()
            rows.append(sorted([*map(list, found)], key=str))
    return rows


def refusal(store: SqlAlchemyStore, run: str, metrics: list[Metric]) -> str:
    """Return what MLflow says against it."""
    try:
        store.log_batch(run, metrics, [], [])
    except MlflowException as error:
        return f"{error.error_code} {str(error).replace(run, 'RUN')}"
    return ""


def main() -> None:
    """Log in each way."""
    store = SqlAlchemyStore(os.environ["MLFLOW_BACKEND_STORE_URI"], tempfile.mkdtemp())
    experiment = store.create_experiment(f"logging both ways {uuid.uuid4().hex}")
    different, statements = [], []

    @event.listens_for(Engine, "before_cursor_execute")
    def remember(_connection, _cursor, statement, *_rest) -> None:
        statements.append(statement)

    def new() -> str:
        return store.create_run(experiment, "somebody", 0, [], "run").info.run_id

    def log() -> tuple[list, ...]:
        """Everything that is compared."""
        run, single, together, deleted = new(), new(), new(), new()
        for seed in range(3):
            for batch in batches(seed):
                store.log_batch(run, batch, [], [])
        for metric in batches(7)[0] + batches(8)[1]:
            store.log_metric(single, metric)
        store.log_batch(single, batches(9)[0], [Param("depth", "3")], [RunTag("team", "a")])
        # The same row, or a first value, by two at once is an error in MLflow's own way.
        store.log_batch(together, [Metric(key, 0, 0, 0) for key in KEYS], [], [])
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda task: store.log_batch(together, later(*task), [], []), enumerate(batches(4) * 3)))
        store.delete_run(deleted)
        refused = [
            refusal(store, deleted, batches(1)[0]),
            refusal(store, uuid.uuid4().hex, batches(1)[0])[:60],
            refusal(store, run, [Metric("k", 1.0, -1, 0)]),
            refusal(store, run, [Metric("k" * 300, 1.0, 1, 0)]),
            refusal(store, run, [Metric("k\0", 1.0, 1, 0)])[:30],
            refusal(store, run, [Metric("k", 1.0, 2**70, 0)])[:11],
        ]
        return contents(store, run), contents(store, single), contents(store, together), refused

    try:
        slow = log()
        count = len(statements)
        mlops_logging.install()
        statements.clear()
        fast = log()
        # What MLflow's own way cannot: the same rows, and first values, by many at once.
        raced = new()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda batch: store.log_batch(raced, batch, [], []), [*batches(6), *batches(6)[::-1]]))
        rows, latest = contents(store, raced)
        names = ("batches", "single metrics", "many at once", "refusals")
        different = [[name, one, other] for name, one, other in zip(names, slow, fast, strict=True) if one != other]
        newest = {key: max((each[3], each[2], each[1]) for each in rows if each[0] == key) for key in KEYS}
        if {each[0]: (each[3], each[2], each[1]) for each in latest} != newest:
            different.append(["races", latest, rows])
        print(json.dumps({"rows": sum(map(len, slow[0])), "refused": slow[3], "statements": [count, len(statements)], "different": different}))
    finally:
        with store.ManagedSessionMaker(read_only=False) as session:
            runs = [run for (run,) in session.query(SqlRun.run_uuid).filter(SqlRun.experiment_id == int(experiment))]
            for table in ("metrics", "latest_metrics", "params", "tags", "runs"):
                session.execute(text(f"DELETE FROM {table} WHERE run_uuid = ANY(:runs)"), {"runs": runs})
            session.query(SqlExperiment).filter(SqlExperiment.experiment_id == int(experiment)).delete()


main()
