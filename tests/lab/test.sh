#!/usr/bin/env bash
# Runs every test of the workspace and ends with one line that adds them up.
set -uo pipefail
cd "$(dirname "$0")/../.."
exec </dev/null

target=${CARGO_TARGET_DIR:-target}
log=$target/lab/test.log
mkdir -p "$target/lab"

# Output of tests that pass is shown as well, because a test that cannot try something says
# `SKIPPED name: reason` there.
cargo test --release --workspace --locked --no-fail-fast -- --show-output 2>&1 | tee "$log"
code=${PIPESTATUS[0]}

read -r passed failed < <(awk '
    /^test result: / {
        for (i = 1; i < NF; i++) {
            if ($(i + 1) ~ /^passed/) passed += $i
            if ($(i + 1) ~ /^failed/) failed += $i
            if ($(i + 1) ~ /^ignored/) ignored += $i
        }
    }
    END { print passed + 0, failed + 0 }' "$log")
skipped=$(grep -c '^SKIPPED ' "$log")
echo
grep '^SKIPPED ' "$log"
grep -E '^test .* (FAILED|failed)' "$log"
# A crate that does not compile or a test program that dies has no result line.
[ "$code" -eq 0 ] || [ "$failed" -gt 0 ] || failed=1
echo "bpfseal tests: $passed passed, $failed failed, $skipped skipped"
[ "$code" -eq 0 ] && [ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
