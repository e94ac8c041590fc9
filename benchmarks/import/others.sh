#!/usr/bin/env bash
# usage: others.sh empty|prepare|pgloader|copy
# On the host, as root: empties the target, writes the CSV files, or brings the store of 1M in another way and prints how many seconds that took.
set -euo pipefail
cd /srv/bench
tables="experiments runs params tags metrics latest_metrics trace_info spans"
sql() { runuser -u postgres -- psql --quiet --no-psqlrc -AtX --dbname=mlflow --set=ON_ERROR_STOP=1 "$@"; }
timed() {
  local start=$EPOCHREALTIME
  "$@" > log 2>&1 || { cat log >&2; return 1; }
  awk -v from="$start" -v to="$EPOCHREALTIME" 'BEGIN {printf "%.2f\n", to - from}'
}
# The columns that both have: one of PostgreSQL's is computed.
columns() { sql -c "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = '$1'::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''"; }
copy() {
  for table in $tables; do echo "\\copy $table ($(cat "$table.columns")) FROM '/srv/bench/$table.csv' CSV"; done | sql --single-transaction
}

case $1 in
  empty)
    sql -c "TRUNCATE $(sql -c "SELECT string_agg(quote_ident(relname), ', ') FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
      AND relname <> 'alembic_version'") CASCADE"
    sql -c CHECKPOINT
    ;;
  prepare)
    for table in $tables; do
      columns "$table" > "$table.columns"
      /opt/mlflow/current/bin/python -c '
import csv, sqlite3, sys
store, writer = sqlite3.connect("1000000.db"), csv.writer(open(f"{sys.argv[1]}.csv", "w", newline=""))
where = " WHERE experiment_id > 0" if sys.argv[1] == "experiments" else ""
writer.writerows(store.execute(f"SELECT {sys.argv[2]} FROM {sys.argv[1]}{where}"))' "$table" "$(cat "$table.columns")"
    done
    cat > load <<'END'
LOAD DATABASE FROM sqlite:///srv/bench/1000000.db INTO postgresql:///mlflow
  WITH data only, disable triggers, reset no sequences
  INCLUDING ONLY TABLE NAMES LIKE 'experiments', 'runs', 'params', 'tags', 'metrics', 'latest_metrics', 'trace_info', 'spans';
END
    chmod -R a+rX .
    ;;
  # As the superuser, who may turn triggers off.
  pgloader) timed runuser -u postgres -- pgloader load ;;
  copy) timed copy ;;
esac
