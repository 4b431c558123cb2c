#!/usr/bin/env bash
# Puts schemathesis, at the versions in schemathesis.txt, into the cache and prints its path.
set -euo pipefail
list=$(dirname "$(readlink -f "$0")")/schemathesis.txt
cache=${XDG_CACHE_HOME:-$HOME/.cache}/bpfseal
place=$cache/tools/schemathesis-$(sha256sum "$list" | head -c 12)
mkdir -p "$cache/tools"
exec 9>"$cache/schemathesis.lock"
flock 9
if [ ! -e "$place/.complete" ]; then
    rm -rf "$place"
    python3 -m venv "$place" >&2
    "$place/bin/pip" install --quiet --disable-pip-version-check --no-deps -r "$list" >&2
    touch "$place/.complete"
fi
echo "$place/bin/schemathesis"
