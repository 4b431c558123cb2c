#!/usr/bin/env bash
# Runs each fuzz target for SECONDS_EACH (60) seconds.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -d fuzz ] || { echo "fuzz: there are no fuzz targets yet" >&2; exit 1; }
cargo +nightly fuzz --version >/dev/null 2>&1 || {
    echo "fuzz: needs a nightly compiler and cargo-fuzz: cargo install cargo-fuzz" >&2
    exit 1
}
for target in $(cargo +nightly fuzz list); do
    echo "fuzz: $target"
    cargo +nightly fuzz run "$target" -- -max_total_time="${SECONDS_EACH:-60}" -rss_limit_mb=512
done
