#!/usr/bin/env bash
# Puts an independent Sigstore client, pinned with all that it needs, into the cache and prints
# where it is:
#
#   tests/lab/sigstore-clients.sh python     sigstore-python: the path of `sigstore`
#   tests/lab/sigstore-clients.sh js         sigstore-js: the folder with its packages
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
cache=${XDG_CACHE_HOME:-$HOME/.cache}/bpfseal

main() {
    case ${1:-} in
    python) pinned=$here/sigstore-python.txt answer=bin/sigstore ;;
    js) pinned=$here/sigstore-js/package-lock.json answer=node_modules ;;
    *) sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
    place=$cache/tools/sigstore-$1-$(sha256sum "$pinned" | head -c 12)
    mkdir -p "$cache/tools"
    exec 9>"$cache/sigstore-$1.lock"
    flock 9
    if [ ! -e "$place/.complete" ]; then
        rm -rf "$place"
        "install_$1" >&2
        touch "$place/.complete"
    fi
    echo "$place/$answer"
}

install_python() {
    python3 -m venv "$place"
    "$place/bin/pip" install --quiet --disable-pip-version-check --no-deps -r "$pinned"
}

install_js() {
    command -v node npm >/dev/null || { echo "node and npm are missing"; return 1; }
    mkdir "$place"
    cp "$here"/sigstore-js/package*.json "$place"
    npm ci --prefix "$place" --no-audit --no-fund --ignore-scripts
}

main "$@"
