"""Searches for runs with the installed MLflow, as it comes and with the server's shortcut: prints for each filter whether the shortcut asks for
distinct runs, and the names of the runs that both ways find, as JSON. With a database of its own.

usage: PYTHON searches.py FOLDER-OF-mlops_search
"""

import json
import sys
import tempfile

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.store.tracking.dbmodels.models import SqlExperiment, SqlLatestMetric, SqlParam, SqlRun, SqlTag
from sqlalchemy import event, select
from sqlalchemy.engine import Engine
from sqlalchemy.orm import aliased

sys.path.insert(0, sys.argv[1])
import mlops_search  # noqa: E402

FILTERS = [
    ("", []),
    ("", ["attributes.start_time ASC"]),
    ("metrics.loss > 0.5", ["metrics.loss DESC"]),
    ("metrics.loss > 0.5 and metrics.other < 9", ["metrics.other ASC", "params.depth DESC"]),
    ("metrics.loss != 1 and params.depth = '2'", ["tags.team ASC"]),
    ("tags.team LIKE 'a%'", ["metrics.loss DESC"]),
    ("attributes.run_name LIKE 'run%' and attributes.status = 'RUNNING'", []),
    ("datasets.name = 'data'", ["metrics.loss ASC"]),
    ("metrics.loss > 0.5 and datasets.context = 'train'", []),
]


def main() -> None:
    """Search in each way."""
    folder = tempfile.mkdtemp()
    store = SqlAlchemyStore(f"sqlite:///{folder}/runs.db", folder)
    # Two datasets of one name: a run that comes twice.
    datasets = [
        DatasetInput(Dataset("data", digest, "code", "here", "", ""), [InputTag("mlflow.data.context", "train")]) for digest in ("one", "two")
    ]
    names = {}
    for number in range(4):
        run = store.create_run("0", "somebody", 1000 + number, [RunTag("team", "ab"[number % 2])], f"run {number}").info.run_id
        names[run] = number
        store.log_batch(run, [Metric("loss", number, 0, 0), Metric("other", 9 - number, 0, 0)], [Param("depth", str(number % 3))], [])
        if number != 1:
            store.log_inputs(run, datasets)
    statements: list[str] = []

    @event.listens_for(Engine, "before_cursor_execute")
    def remember(_connection, _cursor, statement, *_rest) -> None:
        statements.append(statement)

    def find(text: str, order: list[str]) -> tuple[bool, list[int]]:
        statements.clear()
        found = [names[run.info.run_id] for run in store.search_runs(["0"], text, 1, 3, order)]
        (search,) = [each for each in statements if "LIMIT" in each and " runs" in each]
        return "DISTINCT" in search, found

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
    plain = [find(*each) for each in FILTERS]
    mlops_search.install()
    print(json.dumps([[each[0], distinct, found, short, found_short] for each, (distinct, found), (short, found_short) in zip(
        FILTERS, plain, [find(*each) for each in FILTERS], strict=True)]))


main()
