"""Searches for runs with the installed MLflow, as it comes and with the server's shortcuts: prints for each search whether the shortcuts ask for
distinct runs, whether they look for the first ones only, and the names of the runs that both ways find on each page, as JSON. With a database of its own.

usage: PYTHON searches.py FOLDER-OF-mlops_search
"""

import json
import math
import sys
import tempfile

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.store.tracking.dbmodels.models import SqlExperiment, SqlLatestMetric, SqlParam, SqlRun, SqlTag
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from sqlalchemy import event, select
from sqlalchemy.engine import Engine
from sqlalchemy.orm import aliased

sys.path.insert(0, sys.argv[1])
import mlops_search  # noqa: E402

SEARCHES = [
    ("", []),
    ("", ["attributes.start_time ASC"]),
    ("", ["metrics.loss DESC"]),
    ("", ["metrics.loss ASC", "attributes.start_time ASC"]),
    ("", ["metrics.loss ASC", "metrics.other DESC"]),
    ("", ["metrics.unknown ASC"]),
    ("", ["params.depth ASC", "metrics.loss DESC"]),
    ("metrics.loss > 0.5", ["metrics.loss DESC"]),
    ("metrics.loss > 0.5 and metrics.other < 9", ["metrics.other ASC", "params.depth DESC"]),
    ("metrics.loss != 1 and params.depth = '2'", ["tags.team ASC"]),
    ("metrics.other > 1 and tags.team = 'a'", ["metrics.loss DESC", "tags.team DESC"]),
    ("tags.team LIKE 'a%'", ["metrics.loss DESC"]),
    ("attributes.run_name LIKE 'run%' and attributes.status = 'RUNNING'", []),
    ("datasets.name = 'data'", ["metrics.loss ASC"]),
    ("metrics.loss > 0.5 and datasets.context = 'train'", []),
]
PAGE = 3


def fill(folder: str) -> tuple[SqlAlchemyStore, dict[str, int]]:
    """Make runs with the same values twice, with the largest and the smallest one, with NaN, and without the metric."""
    store = SqlAlchemyStore(f"sqlite:///{folder}/runs.db", folder)
    # Two datasets of one name: a run that comes twice.
    datasets = [
        DatasetInput(Dataset("data", digest, "code", "here", "", ""), [InputTag("mlflow.data.context", "train")]) for digest in ("one", "two")
    ]
    values = [0.25, 1, 1, 2, 3, 3, math.inf, -math.inf, math.nan, math.nan, None, None]
    names = {}
    for number, value in enumerate(values):
        run = store.create_run("0", "somebody", 1000 + number % 5, [RunTag("team", "ab"[number % 2])], f"run {number}").info.run_id
        names[run] = number
        metrics = [Metric("loss", value, 0, 0)] if value is not None else []
        store.log_batch(run, [*metrics, Metric("other", 9 - number % 4, 0, 0)], [Param("depth", str(number % 3))], [])
        if number != 1:
            store.log_inputs(run, datasets)
    return store, names


def main() -> None:
    """Search in each way."""
    store, names = fill(folder := tempfile.mkdtemp())
    statements: list[str] = []

    @event.listens_for(Engine, "before_cursor_execute")
    def remember(_connection, _cursor, statement, *_rest) -> None:
        statements.append(statement)

    def find(text: str, order: list[str]) -> tuple[bool, bool, list[list[int]]]:
        statements.clear()
        pages, token = [], None
        while True:
            found = store.search_runs(["0"], text, 1, PAGE, order, token)
            pages.append([names[run.info.run_id] for run in found])
            token = found.token
            if not token:
                break
        searches = [each for each in statements if "LIMIT" in each and " runs" in each]
        return any("DISTINCT" in each for each in searches), len(searches) > len(pages), pages

    # What MLflow does not ask for today, and must keep its DISTINCT.
    some = aliased(SqlLatestMetric.__table__)
    either = select(SqlParam.run_uuid).union(select(SqlTag.run_uuid)).subquery()
    for other in (
        select(SqlRun.experiment_id),
        select(SqlRun).join(some, some.c.run_uuid == SqlRun.run_uuid),
        select(SqlRun).join(either, either.c.run_uuid == SqlRun.run_uuid),
        select(SqlRun).join(SqlParam),
        select(SqlExperiment),
    ):
        assert "DISTINCT" in str(mlops_search.without_distinct(other.distinct())), other
        assert mlops_search.first_with_number(other.order_by("clause_1", SqlRun.start_time).limit(3)) is None, other
    plain = [find(*each) for each in SEARCHES]
    mlops_search.install()
    short = [find(*each) for each in SEARCHES]
    print(json.dumps([[*search, *first, *second] for search, first, second in zip(SEARCHES, plain, short, strict=True)]))


main()
