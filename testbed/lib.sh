# shellcheck shell=bash disable=SC2034
# What the testbed's scripts share. Sourced, never run.

testbed_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
project_dir=$(dirname "$testbed_dir")
# Outside the checkout, so that a fresh clone downloads and builds nothing twice.
cache_dir=${MLOPS_TESTBED_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mlops.mlflow}

say() { printf '\033[1m==> %s\033[0m\n' "$*"; }
die() { printf 'ERROR: %s\n' "$*" >&2; exit 1; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo --preserve-env=CONTAINERS_CONF,DEBIAN_FRONTEND "$@"; fi
}

if [ -f "$cache_dir/containers.conf" ]; then
  export CONTAINERS_CONF="$cache_dir/containers.conf"
fi
