#!/bin/sh
# usage: sh bootstrap.sh [FOLDER]
# Run beside the unpacked bundle, on a machine with the Python of one of its targets and nothing else: makes the control node's environment in FOLDER (here,
# without one), without any network.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:-$here/controller}
python=${PYTHON:-python3}

fail() { printf 'ERROR: %s\n' "$*" >&2; exit 1; }
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null \
  || fail "$python is no Python 3.11 or newer; name one: PYTHON=/usr/bin/python3.11 sh bootstrap.sh"

# Every file is compared with the manifest before one of them is used. Whether the manifest is the right one, preflight checks by its signature.
"$python" - "$here" "$python" <<'PYTHON' || exit 1
import hashlib, json, os, sys

here, python = sys.argv[1:]
try:
    with open(os.path.join(here, "manifest.json"), encoding="utf-8") as file:
        manifest = json.load(file)
except (OSError, ValueError) as error:
    sys.exit(f"manifest.json cannot be read: {error}\nERROR: the bundle is not whole; copy it again")
# Wheels are for the Pythons of the targets.
release_of = {(3, 11): "bookworm", (3, 13): "trixie"}
releases = {name.split("-")[0] for name in manifest["targets"]}
if release_of.get(sys.version_info[:2]) not in releases:
    known = " and ".join(f"{major}.{minor}" for (major, minor), release in release_of.items() if release in releases)
    own = "{}.{}".format(*sys.version_info[:2])
    sys.exit(f"ERROR: the bundle is for Python {known}, and {python} is {own}; name one of those: PYTHON=/usr/bin/python{known[-4:].strip()} sh bootstrap.sh")
bad = 0
for number, entry in enumerate(manifest["files"], 1):
    path = os.path.join(here, entry["path"])
    fault = None
    if not os.path.isfile(path):
        fault = "is missing"
    else:
        with open(path, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != entry["sha256"]:
                fault = "is damaged"
    if fault:
        bad += 1
        print(f"{entry['path']} {fault}", file=sys.stderr)
    if sys.stderr.isatty():
        print(f"\r{number} of {len(manifest['files'])} files compared", end="", file=sys.stderr)
if sys.stderr.isatty():
    print(file=sys.stderr)
if bad:
    sys.exit("ERROR: the bundle is not whole; copy it again")
PYTHON

# uv is a program in a wheel, which is a zip file; so nobody needs pip.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" - "$here/wheels" "$work" <<'PYTHON' || fail "the bundle has no uv for this machine; make one for it (bundle_targets)"
import glob, os, platform, sys, zipfile

wheels, work = sys.argv[1:]
wheel = next(iter(glob.glob(os.path.join(glob.escape(wheels), f"uv-*{platform.machine()}.whl"))), None)
if wheel is None:
    sys.exit(1)
with zipfile.ZipFile(wheel) as archive:
    name = next(name for name in archive.namelist() if name.endswith("/scripts/uv"))
    with open(os.path.join(work, "uv"), "wb") as file:
        file.write(archive.read(name))
os.chmod(os.path.join(work, "uv"), 0o755)
PYTHON

rm -f "$folder/.complete"
"$work/uv" venv --quiet --clear --offline --no-config --python "$python" "$folder/venv"
"$work/uv" pip install --quiet --offline --no-config --no-cache --no-index --find-links "$here/wheels" --require-hashes --python "$folder/venv/bin/python" \
  --requirement "$here/controller.txt"
rm -rf "$folder/collections"
mkdir -p "$folder/collections"
tar -C "$folder/collections" -xzf "$here/collections.tar.gz"
touch "$folder/.complete"

cat <<TEXT
The control node is ready. Next:

  export PATH=$folder/venv/bin:\$PATH ANSIBLE_COLLECTIONS_PATH=$folder/collections
  ansible-playbook -i INVENTORY mlops.mlflow.site

with an inventory such as $folder/collections/ansible_collections/mlops/mlflow/inventories/airgap. Documentation is beside it, in README.md and docs.
TEXT
