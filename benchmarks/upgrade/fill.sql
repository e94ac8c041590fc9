-- Multiplies the one run and the one trace of seed.py. The columns are those that the version has; their number is said with --set.
CREATE FUNCTION pg_temp.multiply(place text, key text, copies int, extra text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  names text;
BEGIN
  SELECT string_agg(quote_ident(column_name), ', ') INTO names
  FROM information_schema.columns WHERE table_schema = 'public' AND table_name = place AND is_generated = 'NEVER';
  EXECUTE format(
    'INSERT INTO %1$I (%2$s) SELECT %2$s FROM (SELECT (jsonb_populate_record(t, jsonb_build_object(%3$L, md5(t.%3$I || n) %4$s))).*
     FROM %1$I t, generate_series(1, %5$s) n) copied', place, names, key, extra, copies);
END
$$;

BEGIN;
SELECT pg_temp.multiply('runs', 'run_uuid', 99, $$ , 'name', 'run ' || n $$);
SELECT pg_temp.multiply('tags', 'run_uuid', 99, '');
SELECT pg_temp.multiply('latest_metrics', 'run_uuid', 99, '');
INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan)
SELECT l.key, random(), l.timestamp + n, l.run_uuid, n, false FROM latest_metrics l, generate_series(1, :metrics / 1000) n;

SELECT pg_temp.multiply('trace_info', 'request_id', :traces - 1, $$ , 'timestamp_ms', t.timestamp_ms - n * 1000 $$);
SELECT pg_temp.multiply('trace_tags', 'request_id', :traces - 1, '');
SELECT pg_temp.multiply('trace_request_metadata', 'request_id', :traces - 1, '');
SELECT pg_temp.multiply('trace_metrics', 'request_id', :traces - 1, '');
SELECT pg_temp.multiply('spans', 'trace_id', :traces - 1, '');
SELECT pg_temp.multiply('span_metrics', 'trace_id', :traces - 1, '');
SELECT pg_temp.multiply('assessments', 'trace_id', :traces - 1, $$ , 'assessment_id', md5(t.assessment_id || n) $$);
COMMIT;
ANALYZE;
