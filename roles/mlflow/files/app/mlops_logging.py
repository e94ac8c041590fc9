# Written by the role mlops.mlflow.mlflow; edits are overwritten.
"""Logs metrics with one statement instead of one for each thing that might be there already.

MLflow asks for the run, adds the metrics by its object mapper, reads which of them have a latest value, locks those, and writes what is newer. PostgreSQL
does all of that by itself, so that a batch is one way to it and back, and little work in Python. What comes out is the same.
"""

from __future__ import annotations

from typing import Any

# The mappings that are known here; with another column MLflow has to do it itself.
COLUMNS = {"run_uuid", "key", "value", "timestamp", "step", "is_nan"}

# In one order, so that two of them never wait for each other. It tells whether there is such a run.
STATEMENT = """
WITH run AS (
  SELECT run_uuid FROM runs WHERE run_uuid = :run AND lifecycle_stage = 'active'
), logged AS (
  INSERT INTO metrics (run_uuid, key, value, timestamp, step, is_nan)
  SELECT run_uuid, m.* FROM run, unnest(CAST(:keys AS text[]), CAST(:values AS float8[]), CAST(:timestamps AS bigint[]), CAST(:steps AS bigint[]),
    CAST(:nans AS bool[])) m
  ORDER BY 2, 4, 5, 3, 6
  ON CONFLICT DO NOTHING
), latest AS (
  INSERT INTO latest_metrics AS l (run_uuid, key, value, timestamp, step, is_nan)
  SELECT run_uuid, n.* FROM run, unnest(CAST(:new_keys AS text[]), CAST(:new_values AS float8[]), CAST(:new_timestamps AS bigint[]),
    CAST(:new_steps AS bigint[]), CAST(:new_nans AS bool[])) n
  ORDER BY 2
  ON CONFLICT (key, run_uuid) DO UPDATE
  SET value = excluded.value, timestamp = excluded.timestamp, step = excluded.step, is_nan = excluded.is_nan
  WHERE (excluded.step, excluded.timestamp, excluded.value) > (l.step, l.timestamp, l.value)
)
SELECT count(*) FROM run
"""

Row = tuple[str, float, int, int, bool]


def newest(rows: list[Row]) -> list[Row]:
    """Return the row of each key that MLflow takes for its latest: the first one of the largest step, time and value.

    Args:
        rows: key, value, timestamp, step and whether it is NaN.

    Returns:
        One row for each key.
    """
    latest: dict[str, Row] = {}
    for row in rows:
        key, value, timestamp, step, _nan = row
        known = latest.get(key)
        if known is None or (step, timestamp, value) > (known[3], known[2], known[1]):
            latest[key] = row
    return list(latest.values())


def parameters(run_id: str, rows: list[Row]) -> dict[str, Any]:
    """Return what the statement asks for.

    Args:
        run_id: the run.
        rows: at least one.

    Returns:
        Its parameters: the columns of the rows, and of the newest ones.
    """
    # 0 and -0 are the same row, as is NaN twice; the first one counts.
    rows = [*dict.fromkeys(rows)]
    names = ("keys", "values", "timestamps", "steps", "nans")
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    latest = dict(zip((f"new_{name}" for name in names), map(list, zip(*newest(rows), strict=True)), strict=True))
    return {"run": run_id, **columns, **latest}


def install() -> None:
    """Have the tracking store of this process do so, where it is one that is known here."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import INTERNAL_ERROR
    from mlflow.store.tracking import sqlalchemy_store as module
    from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlMetric
    from sqlalchemy import text

    store = module.SqlAlchemyStore
    if not hasattr(store, "_log_metrics_once") or any({column.name for column in each.__table__.columns} != COLUMNS for each in (SqlMetric, SqlLatestMetric)):
        return
    slow_metrics, slow_batch, ask_for_run, statement = store._log_metrics_once, store.log_batch, store._get_query, text(STATEMENT)

    def is_known(self: Any) -> bool:
        # A store of workspaces looks for runs in its own one.
        return self.engine.dialect.name == "postgresql" and type(self)._get_query is ask_for_run

    def log_metrics_once(self: Any, run_id: str, metrics: list[Any]) -> None:
        if not metrics or not is_known(self):
            slow_metrics(self, run_id, metrics)
            return
        rows = []
        for index, metric in enumerate(metrics):
            module._validate_metric(metric.key, metric.value, metric.timestamp, metric.step, path="" if len(metrics) == 1 else f"metrics[{index}]")
            nan, value = self.sanitize_metric_value(metric.value)
            rows.append((metric.key, float(value), metric.timestamp, metric.step, nan))
        with self.ManagedSessionMaker(read_only=False) as session:
            # One statement is a transaction by itself.
            session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
            found = session.execute(statement, parameters(run_id, rows)).scalar()
        if not found:
            # It says what is wrong.
            slow_metrics(self, run_id, metrics)

    def log_batch(self: Any, run_id: str, metrics: list[Any], params: list[Any], tags: list[Any]) -> None:
        if not metrics or params or tags or not is_known(self) or any(metric.model_id is not None for metric in metrics):
            slow_batch(self, run_id, metrics, params, tags)
            return
        # As MLflow does it, without a connection for the run that waits for the one of its metrics.
        module._validate_run_id(run_id)
        metrics, params, tags = module._validate_batch_log_data(metrics, params, tags)
        module._validate_batch_log_limits(metrics, params, tags)
        try:
            self._log_metrics(run_id, metrics)
        except MlflowException:
            raise
        except Exception as error:
            raise MlflowException(error, INTERNAL_ERROR) from error

    store._log_metrics_once, store.log_batch = log_metrics_once, log_batch
