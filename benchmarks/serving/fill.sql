-- A hundred thousand finished runs with five metrics, two params and two tags each, in the experiment "large"; and runs to log to, which it prints.
BEGIN;
INSERT INTO experiments (name, artifact_location, lifecycle_stage, creation_time, last_update_time, workspace)
  SELECT 'large', artifact_location || '-large', 'active', creation_time, last_update_time, workspace FROM experiments WHERE experiment_id = 0;
CREATE TEMPORARY TABLE new AS
  SELECT md5('run ' || n) AS id, n, e.experiment_id, e.artifact_location FROM experiments e, generate_series(1, :runs) n WHERE e.name = 'large';
INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, user_id, status, start_time, end_time, source_version, lifecycle_stage,
    artifact_uri, experiment_id)
  SELECT id, 'run ' || n, 'LOCAL', '', '', 'somebody', 'FINISHED', 1700000000000 + n * 1000, 1700000000500 + n * 1000, '', 'active',
    artifact_location || '/' || id || '/artifacts', experiment_id FROM new;
INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid)
  SELECT 'm' || key, random(), 1700000000000 + n * 1000, 1, false, id FROM new, generate_series(1, 5) key;
INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan) SELECT key, value, timestamp, run_uuid, step, is_nan FROM latest_metrics;
INSERT INTO params (key, value, run_uuid) SELECT 'p' || key, (n % 100)::text, id FROM new, generate_series(1, 2) key;
INSERT INTO tags (key, value, run_uuid) SELECT key, 'value ' || n % 10, id FROM new, unnest(ARRAY['team', 'mlflow.user']) key;
INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, user_id, status, start_time, source_version, lifecycle_stage, artifact_uri,
    experiment_id)
  SELECT md5('open ' || n), 'open ' || n, 'LOCAL', '', '', 'somebody', 'RUNNING', 1700000000000, '', 'active', artifact_location || '/' || n, 0
  FROM experiments, generate_series(1, 100) n WHERE experiment_id = 0;
COMMIT;
VACUUM ANALYZE;
SELECT run_uuid FROM runs WHERE status = 'RUNNING' AND name LIKE 'open %';
