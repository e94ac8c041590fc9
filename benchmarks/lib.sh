# shellcheck shell=bash disable=SC2029,SC2034,SC2154,SC2164
# What the benchmarks share. Sourced, never run.

. "$(dirname "${BASH_SOURCE[0]}")/../testbed/lib.sh"
cd "$project_dir"
PATH=$project_dir/.venv/bin:$PATH
export MLOPS_TESTBED_CACHE=$cache_dir PYTHONPATH=$project_dir/benchmarks
newest_lock=$(find roles/mlflow/files/locks -name '[0-9]*.txt' | sort -V | tail -1)
work=$(mktemp -d)
ssh_options=(-i "$cache_dir/id_ed25519" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR)

# mode MODE QUICK FULL: prints what stands for the mode.
mode() {
  case $1 in
    quick) echo "$2" ;;
    full) echo "$3" ;;
    *) die "'$1' is no mode; use quick or full." ;;
  esac
}

# make_hosts INVENTORY, remove_hosts INVENTORY
make_hosts() { ansible-playbook -i "$1" testbed/create.yml > /dev/null; }
remove_hosts() { ansible-playbook -i "$1" testbed/destroy.yml > /dev/null; rm -rf "${1:?}/.secrets"; }

# on_host ADDRESS COMMAND…
on_host() { ssh "${ssh_options[@]}" "admin@$1" "${@:2}"; }

# seconds COMMAND…: how long it took; what it printed is shown if it failed.
seconds() {
  local start=$EPOCHREALTIME
  "$@" > "$work/log" 2>&1 || { cat "$work/log" >&2; return 1; }
  awk -v from="$start" -v to="$EPOCHREALTIME" 'BEGIN {printf "%.2f\n", to - from}'
}

# fill ADDRESS RUNS: runs to search in, and runs to log to, which it prints.
fill() { on_host "$1" "cd /; sudo -u postgres psql --quiet --no-psqlrc -AtX --dbname=mlflow --set=ON_ERROR_STOP=1 --set=runs=$2" < benchmarks/serving/fill.sql; }
