#!/usr/bin/env bash
# Runs each fuzz target for SECONDS_EACH (60) seconds; words choose targets.
set -euo pipefail
cd "$(dirname "$0")/../.."
cache=${XDG_CACHE_HOME:-$HOME/.cache}/bpfseal
version=0.13.2
tool=$cache/tools/cargo-fuzz-$version
[ -x "$tool/bin/cargo-fuzz" ] || {
    echo "fuzz: build cargo-fuzz $version into the cache"
    cargo install cargo-fuzz --version "$version" --locked --quiet --root "$tool"
}
export PATH=$tool/bin:$PATH
# The sanitizer is a switch of unstable compilers; a stable one takes it when told so.
export RUSTC_BOOTSTRAP=1
work=$PWD/${CARGO_TARGET_DIR:-target}/fuzz
mkdir -p "$work"

# What each target begins with: real input, so that minutes are enough to get deep.
seeds() {
    case $1 in
        object|executable|explain) find target/release/build "$cache/tools/libbpf-tools/root/usr/sbin" \
            "$cache/tools/xdp-tools/root/usr/lib" -maxdepth 4 \
            \( -name '*.bpf.o' -o -name 'tcp*-libbpf' -o -name 'xdp*.o' \) -size -200k 2>/dev/null | head -40 ;;
        registry_config) find docs/examples/registry -name '*.toml' ;;
        registry_manifest) find tests/vectors/cosign -name '*.json' ;;
        registry_archive) find registry-server/tests/strangers -name '*.tar' ;;
        policy_files) find tests/vectors/x509 -name '*.pem' -o -name '*.crl' ;;
        private_key) find tests/vectors/x509 -name '*.key' ;;
        policy) find docs/examples tests/kernel tests/demo -name '*.toml' ;;
        key) find tests/vectors/keys -type f ;;
        signature|sigstore|manifest|permit) find tests/vectors/cosign -name '*.json' ;;
    esac
}

targets=("$@")
[ $# -gt 0 ] || mapfile -t targets < <(cargo fuzz list --fuzz-dir tests/fuzz)
for target in "${targets[@]}"; do
    echo "fuzz: $target"
    mkdir -p "$work/corpus/$target" "$work/artifacts/$target"
    seeds "$target" | xargs -r cp -n -t "$work/corpus/$target" 2>/dev/null || true
    # What is so small that it is written for this lies in a folder of the target's name.
    [ ! -d "tests/fuzz/seeds/$target" ] || cp -n "tests/fuzz/seeds/$target"/* "$work/corpus/$target"
    [ "$target" != registry_certificate ] ||
        openssl x509 -in tests/vectors/x509/leaf.pem -outform der -out "$work/corpus/$target/leaf.der"
    cargo fuzz run --fuzz-dir tests/fuzz --target-dir "$work/build" "$target" \
        "$work/corpus/$target" -- \
        -max_total_time="${SECONDS_EACH:-60}" -rss_limit_mb=1024 -timeout=5 -max_len=262144 \
        -artifact_prefix="$work/artifacts/$target/" -print_final_stats=1 2>&1 |
        grep -E '^(SUMMARY|stat::|Done|==|artifact|thread)|panicked|error' || true
    [ -z "$(ls -A "$work/artifacts/$target")" ] || {
        echo "fuzz: $target FAILED: see $work/artifacts/$target"
        exit 1
    }
done
echo "fuzz: ${#targets[@]} targets, no failure"
