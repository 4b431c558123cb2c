#!/usr/bin/env bash
# Fetches Debian's own tools and kernels for the tests, without installing anything.
#
#   tests/lab/fetch.sh NAME...     NAME: a tool, kernel-6.1, modules-6.1 (or -6.12, -7.2, -7.3), tools, kernels, all
#   tests/lab/fetch.sh --list      the names
#
# Everything goes to $XDG_CACHE_HOME/bpfseal (default ~/.cache/bpfseal):
#
#   tools/NAME-VERSION/root/...    the packages, unpacked
#   tools/NAME-VERSION/bin/TOOL    what to run on this machine: a link, or a wrapper that
#                                  brings the libraries of the tool's own release
#   tools/NAME                     link to the version in use
#   kernels/RELEASE/vmlinux        the ELF kernel taken out of vmlinuz; RELEASE is `uname -r`
#   kernels/RELEASE/release        RELEASE again, as text
#   kernels/6.12                   link to the RELEASE in use
#   modules/RELEASE/NAME.ko        modules of that kernel that guests load
#   apt/SUITE/                     a private apt root: lists, no installed packages
#
# What is there already is used again. BPFSEAL_REFRESH=1 looks for newer versions.
# The mirror is the one that this machine's own apt configuration names, and signatures are
# checked with Debian's archive keyring. Where a suite no longer has a kernel of that
# series, the line `SKIPPED kernel X: reason` says so and the exit code stays 0.
set -Eeuo pipefail
trap 'echo "fetch: line $LINENO: $BASH_COMMAND: failed" >&2' ERR

cache=${XDG_CACHE_HOME:-$HOME/.cache}/bpfseal
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# name, suite, package, and what of its dependencies is needed: `alone` (runs with any
# recent glibc), `libs` (its libraries come along, from the same suite), or `native` (the same
# without a libc: programs that start each other use this machine's).
tools="
bpftool          trixie    bpftool          libs
bpftool-backports trixie-backports bpftool alone
bpftool-bookworm bookworm  bpftool          libs
bpftool-sid      sid       bpftool          libs
bpftrace         trixie    bpftrace         libs
busybox-static   bookworm  busybox-static   alone
cosign           sid       cosign           alone
crane            sid       crane            alone
crun             trixie    crun             libs
cryptsetup       trixie    cryptsetup-bin   libs
dmsetup          trixie    dmsetup          libs
docker-registry  bookworm  docker-registry  alone
e2fsprogs        trixie    e2fsprogs        libs
fsverity         trixie    fsverity         libs
iproute2         trixie    iproute2         libs
libbpf1          trixie    libbpf1          libs
libbpf-tools     trixie    libbpf-tools     libs
libbpf-tools-bookworm bookworm libbpf-tools libs
libbpf-tools-sid sid       libbpf-tools     libs
libvirt          trixie    libvirt-daemon-driver-lxc libs
libvirt-clients  trixie    libvirt-clients  libs
linux-kbuild     bookworm  linux-kbuild-6.1 alone
lxc              trixie    lxc              libs
notation         sid       notation         alone
oras             sid       oras             alone
postgresql       bookworm  postgresql-15    native
postgresql-client bookworm postgresql-client-15 native
qemu             trixie    qemu-system-x86  libs
runc             trixie    runc             libs
skopeo           sid       skopeo           libs
squashfs-tools   trixie    squashfs-tools   libs
softhsm2         bookworm  softhsm2         libs
sqlite3          bookworm  sqlite3          libs
systemd          trixie    systemd          libs
umoci            sid       umoci            libs
xdp-tools        trixie    xdp-tools        libs
"

# From PyPI, each in a virtual environment of its own: name, requirement, version.
python_tools="
kubernetes-validate  kubernetes-validate  1.37.0
moto                 moto[server,s3]      5.2.5
"

# Go programs of ours, built with Debian's compiler and libraries: name, its folder below tests/,
# suite and packages of the compiler, suite and packages of the libraries.
go_programs="
go-loader  fixtures/go  trixie golang-1.24-go,golang-1.24-src  sid golang-github-cilium-ebpf-dev,golang-golang-x-sys-dev
"

# Go programs that Debian has in packages of source for other programs alone: one name, the suite,
# and for each program its name, its package and its folder in there.
go_services="
sigstore-services  sid rekor-server,golang-github-sigstore-rekor-tiles-dev,github.com/sigstore/rekor-tiles/cmd/rekor-server/posix timestamp-server,golang-github-sigstore-timestamp-authority-dev,github.com/sigstore/timestamp-authority/v2/cmd/timestamp-server
"

# series, suite
kernels="
6.1  bookworm
6.12 trixie
7.2  sid
7.3  trixie-backports
"

# Modules of these kernels that guests load; and two with other types, `dummy_other` and `tcp_dctcp_other`, and two of
# our own (fixtures/module), `asks_signed` and `asks_unsigned`.
modules="sch_ingress cls_bpf act_bpf dummy tun kcm tcp_dctcp dm-mod dm-bufio dm-verity reed_solomon squashfs fuse"

main() {
    [ $# -gt 0 ] || { usage >&2; exit 2; }
    local names=() name
    for name in "$@"; do
        case $name in
        -h | --help) usage; exit 0 ;;
        --list) list_tools; list_python; list_go; list_services; list_kernels; list_modules; exit 0 ;;
        tools) mapfile -t -O "${#names[@]}" names < <(list_tools; list_python; list_go; list_services) ;;
        kernels) mapfile -t -O "${#names[@]}" names < <(list_kernels; list_modules) ;;
        all) mapfile -t -O "${#names[@]}" names < <(list_tools; list_python; list_go; list_services; list_kernels; list_modules) ;;
        *) names+=("$name") ;;
        esac
    done
    mkdir -p "$cache/tools" "$cache/kernels" "$cache/apt"
    # One fetch at a time: tests that run side by side ask for the same things.
    exec 9>"$cache/lock"
    flock 9
    rm -rf "$cache"/partial.*
    for name in "${names[@]}"; do
        case $name in
        kernel-*) fetch_kernel "${name#kernel-}" ;;
        modules-*) fetch_modules "${name#modules-}" ;;
        kubernetes-validate | moto) fetch_python "$name" ;;
        go-*) fetch_go "$name" ;;
        sigstore-services) fetch_services "$name" ;;
        *) fetch_tool "$name" ;;
        esac
    done
}

usage() { sed -n '2,6s/^# \{0,1\}//p' "$0"; }
list_tools() { awk 'NF { print $1 }' <<<"$tools"; }
list_python() { awk 'NF { print $1 }' <<<"$python_tools"; }
list_go() { awk 'NF { print $1 }' <<<"$go_programs"; }
list_services() { awk 'NF { print $1 }' <<<"$go_services"; }
list_kernels() { awk 'NF { print "kernel-" $1 }' <<<"$kernels"; }
list_modules() { awk 'NF { print "modules-" $1 }' <<<"$kernels"; }
say() { echo "fetch: $*"; }
fail() { echo "fetch: $*" >&2; exit 1; }

# put_tool PARTIAL DIRECTORY: what is whole goes where the tests look for it.
put_tool() {
    touch "$1/.complete"
    rm -rf "$cache/tools/$2"
    mv "$1" "$cache/tools/$2"
}

fetch_tool() {
    local name=$1 suite package needs version partial deb
    read -r suite package needs < <(awk -v n="$name" '$1 == n { print $2, $3, $4 }' <<<"$tools") ||
        fail "unknown name $name (see --list)"
    if [ -e "$cache/tools/$name/.complete" ] && [ -z "${BPFSEAL_REFRESH:-}" ]; then
        say "$name: have $(readlink "$cache/tools/$name")"
        return
    fi
    open_suite "$suite"
    version=$(version_of "$package")
    [ -n "$version" ] || fail "$name: no package $package in $suite"
    local directory="$name-${version//:/_}"
    if [ ! -e "$cache/tools/$directory/.complete" ]; then
        say "$name: downloading $package $version from Debian $suite"
        partial=$(mktemp -d "$cache/partial.XXXXXX")
        mkdir "$partial/debs" "$partial/root" "$partial/bin"
        download "$partial/debs" "$package" "$needs"
        for deb in "$partial"/debs/*.deb; do dpkg-deb -x "$deb" "$partial/root"; done
        make_runners "$partial" "$partial/debs/${package}_"*.deb
        rm -r "$partial/debs"
        put_tool "$partial" "$directory"
    fi
    ln -sfn "$directory" "$cache/tools/$name"
    say "$name: $cache/tools/$directory"
}

# A virtual environment cannot be moved: it is made where it stays.
fetch_python() {
    local name=$1 requirement version directory
    read -r requirement version < <(awk -v n="$name" '$1 == n { print $2, $3 }' <<<"$python_tools")
    directory="$cache/tools/$name-$version"
    if [ ! -e "$directory/.complete" ]; then
        say "$name: installing $requirement $version from PyPI"
        rm -rf "$directory"
        python3 -m venv "$directory" || fail "python3 cannot make virtual environments: run 'make deps'"
        "$directory/bin/pip" install --quiet --disable-pip-version-check \
            "$requirement==$version" || fail "$name: pip cannot install it"
        touch "$directory/.complete"
    fi
    ln -sfn "$name-$version" "$cache/tools/$name"
    say "$name: $directory"
}

# Named after what it is made of, so that a changed source is built anew. The compiler goes when
# it is done: 300 MB.
fetch_go() {
    local name=$1 folder suites directory partial digest go
    read -r folder suites < <(awk -v n="$name" '$1 == n { $1 = ""; print }' <<<"$go_programs")
    folder=$(dirname "$(readlink -f "$0")")/../$folder
    digest=$({ echo "$suites"; cat "$folder"/*.go; } | sha256sum | cut -c 1-16)
    directory="$name-$digest"
    if [ ! -e "$cache/tools/$directory/.complete" ]; then
        partial=$(mktemp -d "$cache/partial.XXXXXX")
        mkdir -p "$partial/go/path/src" "$partial/root/usr/bin"
        unpack_suites "$partial/go" $suites
        cp -r "$folder" "$partial/go/path/src/$name"
        go=$(echo "$partial"/go/usr/lib/go-*)
        say "$name: building"
        build_go "$go" "$partial/go/path:$partial/go/usr/share/gocode" "$partial" "$name" "$name"
        chmod -R u+w "$partial/go"
        rm -r "$partial/go"
        put_tool "$partial" "$directory"
    fi
    ln -sfn "$directory" "$cache/tools/$name"
    say "$name: $cache/tools/$directory"
}

# Everything that the packages of source depend on comes along: 400 MB, which go when it is done, as
# do the 2 GB that they become. Three minutes.
fetch_services() {
    local name=$1 suite programs program package folder versions="" directory partial packages deb go
    read -r suite programs < <(awk -v n="$name" '$1 == n { $1 = ""; print }' <<<"$go_services")
    if [ -e "$cache/tools/$name/.complete" ] && [ -z "${BPFSEAL_REFRESH:-}" ]; then
        say "$name: have $(readlink "$cache/tools/$name")"
        return
    fi
    open_suite "$suite"
    packages=(golang-go)
    for program in $programs; do
        IFS=, read -r program package folder <<<"$program"
        packages+=("$package")
        versions+="-$(version_of "$package")"
    done
    directory="$name$versions"
    if [ ! -e "$cache/tools/$directory/.complete" ]; then
        partial=$(mktemp -d "$cache/partial.XXXXXX")
        mkdir -p "$partial/go/debs" "$partial/root/usr/bin" "$partial/bin"
        mapfile -t packages < <(apt_here apt-get -qq -y --print-uris install "${packages[@]}" |
            awk '{ sub(/_.*/, "", $2); print $2 }' | grep -E '^golang-(.*-dev|[0-9.]+-(go|src))$')
        say "$name: downloading ${#packages[@]} packages from Debian $suite"
        (cd "$partial/go/debs" && apt_here apt-get -qq download "${packages[@]}") || {
            rm -f "${APT_CONFIG%/*}/updated"
            fail "$name: cannot download its packages"
        }
        for deb in "$partial"/go/debs/*.deb; do
            dpkg-deb --fsys-tarfile "$deb" |
                tar -x -C "$partial/go" --exclude='*_test.go' --exclude='*/share/doc/*'
            rm "$deb"
        done
        go=$(echo "$partial"/go/usr/lib/go-*)
        for program in $programs; do
            IFS=, read -r program package folder <<<"$program"
            say "$name: building $program"
            build_go "$go" "$partial/go/usr/share/gocode" "$partial" "$program" "$folder"
            ln -s "../root/usr/bin/$program" "$partial/bin/$program"
        done
        rm -r "$partial/go"
        put_tool "$partial" "$directory"
    fi
    ln -sfn "$directory" "$cache/tools/$name"
    say "$name: $cache/tools/$directory"
}

# GOROOT GOPATH FOLDER PROGRAM PACKAGE: as Debian's packages are laid out, without modules. From
# inside of the package: Go takes the `v2` in a path for a version only where it sees a go.mod.
build_go() {
    (cd "${2%%:*}/src/$5" && env GOROOT="$1" GOPATH="$2" GO111MODULE=off GOCACHE="$3/go/cache" \
        GOTOOLCHAIN=local GOFLAGS=-trimpath CGO_ENABLED=0 \
        "$1/bin/go" build -ldflags='-s -w' -o "$3/root/usr/bin/$4" .)
}

# FOLDER SUITE PACKAGE,PACKAGE SUITE PACKAGE…: just these packages, without what they depend on.
unpack_suites() {
    local folder=$1 deb packages
    shift
    while [ $# -gt 0 ]; do
        open_suite "$1"
        mkdir "$folder/debs"
        IFS=, read -r -a packages <<<"$2"
        say "downloading ${packages[*]} from Debian $1"
        (cd "$folder/debs" && apt_here apt-get -qq download "${packages[@]}") || {
            rm -f "${APT_CONFIG%/*}/updated"
            fail "cannot download ${packages[*]}"
        }
        for deb in "$folder"/debs/*.deb; do dpkg-deb -x "$deb" "$folder"; done
        rm -r "$folder/debs"
        shift 2
    done
}

fetch_kernel() {
    local series=$1 suite package version partial image release
    suite=$(awk -v s="$series" '$1 == s { print $2 }' <<<"$kernels")
    [ -n "$suite" ] || fail "unknown kernel $series (see --list)"
    if [ -e "$cache/kernels/$series/vmlinux" ] && [ -z "${BPFSEAL_REFRESH:-}" ]; then
        say "kernel $series: have $(readlink "$cache/kernels/$series")"
        return
    fi
    open_suite "$suite"
    # From 7.x on the image is in linux-binary-RELEASE and linux-image-RELEASE is empty.
    local shape="-${series//./\\.}[.+-][0-9a-z.+~-]*cloud-amd64\$"
    package=$({ apt_here apt-cache pkgnames linux-binary | grep -E "^linux-binary$shape" ||
        apt_here apt-cache pkgnames linux-image | grep -E "^linux-image$shape"; } | sort -V | tail -n 1) || true
    if [ -z "$package" ]; then
        echo "SKIPPED kernel $series: Debian $suite no longer has a cloud-amd64 kernel of this series"
        return
    fi
    version=$(version_of "$package")
    say "kernel $series: downloading $package $version from Debian $suite"
    partial=$(mktemp -d "$cache/partial.XXXXXX")
    mkdir "$partial/debs" "$partial/root"
    download "$partial/debs" "$package" alone
    dpkg-deb --fsys-tarfile "$partial"/debs/*.deb |
        tar -x -C "$partial/root" --wildcards '*/vmlinuz*'
    image=$(find "$partial/root" -type f -name 'vmlinuz*')
    release=${package#linux-*-}
    extract_vmlinux "$image" >"$partial/vmlinux"
    echo "$release" >"$partial/release"
    rm -r "$partial/debs" "$partial/root"
    rm -rf "$cache/kernels/$release"
    mv "$partial" "$cache/kernels/$release"
    ln -sfn "$release" "$cache/kernels/$series"
    say "kernel $series: $cache/kernels/$release/vmlinux"
}

# FOLDER NAME FUNCTION RENAMED: NAME_other.ko is NAME.ko with one function called otherwise. The signature would
# be wrong; binutils leave it out.
other_module() {
    objcopy "$1/$2.ko" "$1/$2_other.ko"
    LC_ALL=C sed -i "s/$3/$4/g" "$1/$2_other.ko"
}

# RELEASE: our own modules, for which `struct module` is all that must be known of a kernel.
own_modules() {
    local folder="$cache/modules/$1" source sum sizes
    source=$(dirname "$(readlink -f "$0")")/../fixtures/module/asks_for_program.c
    sum=$(sha256sum <"$source")
    if [ "$(cat "$folder/own" 2>/dev/null)" = "$sum" ]; then return; fi
    [ -e "$cache/tools/bpftool/.complete" ] || fetch_tool bpftool
    sizes=$("$cache/tools/bpftool/bin/bpftool" btf dump file "$cache/kernels/$1/vmlinux" format raw | awk '
        /^\[/ { inside = 0 }
        /^\[.*STRUCT .module. size/ { inside = 1; split($4, size, "="); printf "-DMODULE_SIZE=%d ", size[2] }
        inside && /\t.name. type_id/ { split($3, at, "="); printf "-DNAME_AT=%d ", at[2] / 8 }
        inside && /\t.init. type_id/ { split($3, at, "="); printf "-DINIT_AT=%d ", at[2] / 8 }')
    # The modules' names, and what their programs return: that of the fixture keep_out, or something else.
    own_module asks_signed -DRETURNS=1
    own_module asks_unsigned -DRETURNS=0
    echo "$sum" >"$folder/own"
}

# NAME FLAG: as `own_modules` has found the kernel.
own_module() {
    # shellcheck disable=SC2086
    gcc -c -O2 -Wall -Werror -mcmodel=kernel -mno-sse -mno-red-zone -ffreestanding -fno-pic -fno-stack-protector \
        -fno-asynchronous-unwind-tables $sizes -DNAME="\"$1\"" "$2" "$source" -o "$folder/$1.ko"
}

# Modules of the very kernel that is here; they are signed, and stay as they are.
fetch_modules() {
    local series=$1 suite package release partial name path
    suite=$(awk -v s="$series" '$1 == s { print $2 }' <<<"$kernels")
    [ -n "$suite" ] || fail "unknown kernel $series (see --list)"
    [ -e "$cache/kernels/$series/release" ] || fetch_kernel "$series"
    [ -e "$cache/kernels/$series/release" ] || return 0
    release=$(cat "$cache/kernels/$series/release")
    if [ "$(cat "$cache/modules/$release/names" 2>/dev/null)" = "$modules" ]; then
        own_modules "$release"
        say "modules $series: have $cache/modules/$release"
        return
    fi
    open_suite "$suite"
    # From 7.x on they have a package of their own.
    package=$({ apt_here apt-cache pkgnames linux-modules | grep -F -x "linux-modules-$release" ||
        apt_here apt-cache pkgnames linux-image | grep -F -x "linux-image-$release"; } | head -n 1) || true
    if [ -z "$package" ]; then
        echo "SKIPPED modules $series: Debian $suite no longer has $release"
        return
    fi
    say "modules $series: downloading $package from Debian $suite"
    partial=$(mktemp -d "$cache/partial.XXXXXX")
    mkdir "$partial/debs" "$partial/root" "$partial/modules"
    download "$partial/debs" "$package" alone
    dpkg-deb --fsys-tarfile "$partial"/debs/*.deb | tar -x -C "$partial/root" --wildcards '*.ko*'
    for name in $modules; do
        path=$(find "$partial/root" -name "$name.ko*" | head -n 1)
        case $path in
        *.xz) xz -dc "$path" >"$partial/modules/$name.ko" ;;
        *.zst) zstd -dqc "$path" >"$partial/modules/$name.ko" ;;
        *.ko) cp "$path" "$partial/modules/$name.ko" ;;
        *)
            # Some kernels have it built in: an empty file says so, and a guest that has it not fails.
            [ "$name" = fuse ] || fail "$package has no module $name"
            : >"$partial/modules/$name.ko"
            ;;
        esac
    done
    other_module "$partial/modules" dummy dummy_get_stats64 dummy_get_stats46
    other_module "$partial/modules" tcp_dctcp dctcp_get_info dctcp_got_info
    echo "$modules" >"$partial/modules/names"
    mkdir -p "$cache/modules"
    rm -rf "$cache/modules/$release"
    mv "$partial/modules" "$cache/modules/$release"
    rm -r "$partial"
    own_modules "$release"
    say "modules $series: $cache/modules/$release"
}

# The compressed ELF's place is in the setup header (Linux: Documentation/arch/x86/boot.rst):
# setup_sects at 0x1f1, payload_offset at 0x248, payload_length at 0x24c. Except for gzip,
# the last four bytes of the payload are its uncompressed size, not part of the stream.
extract_vmlinux() {
    local image=$1 sectors offset length magic
    sectors=$(od -An -tu1 -j $((0x1f1)) -N1 "$image")
    [ "$sectors" -ne 0 ] || sectors=4
    offset=$(((sectors + 1) * 512 + $(od -An -tu4 -j $((0x248)) -N4 "$image")))
    length=$(od -An -tu4 -j $((0x24c)) -N4 "$image")
    magic=$(od -An -tx1 -j "$offset" -N4 "$image" | tr -d ' ')
    local bare=$((length - 4)) unpack
    case $magic in
    02214c18) unpack="lz4 -dc" ;;
    28b52ffd) unpack="zstd -dc" ;;
    fd377a58) unpack="xz -dc" ;;
    1f8b*) unpack="gzip -dc" bare=$length ;;
    *) fail "$image: unknown payload magic $magic" ;;
    esac
    command -v "${unpack%% *}" >/dev/null || fail "${unpack%% *} is missing: run 'make deps'"
    # `head` first: the other way round it would end `tail` with a broken pipe.
    head -c "$((offset + bare))" "$image" | tail -c "$bare" | $unpack
}

# Points apt at a private root that knows one suite and has nothing installed.
open_suite() {
    local suite=$1 root="$cache/apt/$1" mirror security suites
    export APT_CONFIG="$root/apt.conf"
    local stamp="$root/updated"
    if [ -e "$stamp" ] && [ -z "$(find "$stamp" -mmin +720)" ]; then return; fi
    mkdir -p "$root/lists/partial" "$root/cache/archives/partial" "$root/empty"
    : >"$root/status"
    [ -e "$keyring" ] || fail "$keyring is missing: install debian-archive-keyring"
    mirror=$(machine_uri '^(bookworm|trixie|forky|sid|oldstable|stable|testing|unstable)$')
    [ -n "$mirror" ] || fail "this machine's apt configuration names no Debian mirror"
    suites=$suite
    [ "$suite" != bookworm ] || suites="bookworm bookworm-updates"
    write_source "$mirror" "$suites" >"$root/debian.sources"
    security=$(machine_uri '-security$')
    if [ -n "$security" ] && [[ $suite == bookworm || $suite == trixie ]]; then
        write_source "$security" "$suite-security" >>"$root/debian.sources"
    fi
    {
        # How this machine reaches the network (proxies, time limits, date checks).
        APT_CONFIG='' apt-config dump | grep '^Acquire' | grep -v '^Acquire::IndexTargets' || true
        cat <<CONF
Dir::Etc::parts "$root/empty";
Dir::Etc::sourcelist "$root/debian.sources";
Dir::Etc::sourceparts "$root/empty";
Dir::Etc::preferences "$root/empty/none";
Dir::Etc::preferencesparts "$root/empty";
Dir::State "$root";
Dir::State::lists "$root/lists";
Dir::State::status "$root/status";
Dir::Cache "$root/cache";
APT::Sandbox::User "";
APT::Install-Recommends "0";
APT::Architecture "amd64";
APT::Architectures { "amd64"; };
CONF
    } >"$APT_CONFIG"
    say "apt: reading Debian $suite's package lists"
    # `Any` makes an unreachable mirror a failure; by default apt only warns.
    apt_here apt-get -qq -o APT::Update::Error-Mode=any update || fail "apt: cannot read $suite's package lists"
    touch "$stamp"
}

# The URI of the first configured archive whose release name matches.
machine_uri() {
    APT_CONFIG='' apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
        awk -v release="$1" '$1 ~ release { print $2; exit }'
}

write_source() {
    cat <<SOURCE
Types: deb
URIs: $1
Suites: $2
Components: main
Architectures: amd64
Targets: Packages
Languages: none
Signed-By: $keyring

SOURCE
}

# Without the machine's apt.conf.d, whose hooks would run and whose settings would win:
# apt reads it after APT_CONFIG, so an empty folder is named on the command line.
apt_here() {
    local program=$1 root=${APT_CONFIG%/*}
    shift
    "$program" -o "Dir::Etc::parts=$root/empty" "$@"
}

version_of() { apt_here apt-cache policy "$1" | awk '$1 == "Candidate:" && $2 != "(none)" { print $2 }'; }

# Downloads a package, and with `libs` the libraries (and data) it depends on, to a folder.
# apt checks each file against the signed package list.
download() {
    local folder=$1 package=$2 packages=("$2")
    if [ "$3" != alone ]; then
        mapfile -t packages < <(apt_here apt-get -qq -y --print-uris install "$package" |
            awk '{ sub(/_.*/, "", $2); print $2 }' |
            grep -E -x "$package|lib.*|zlib1g|golang-github-containers-common|seabios|qemu-system-data")
        if [ "$3" = native ]; then
            mapfile -t packages < <(printf '%s\n' "${packages[@]}" | grep -E -v -x 'libc6|libc-.*|libllvm.*')
        fi
    fi
    (cd "$folder" && apt_here apt-get -qq download "${packages[@]}") || {
        # The lists may be older than the archive: read them anew the next time.
        rm -f "${APT_CONFIG%/*}/updated"
        fail "cannot download $package"
    }
}

# bin/ holds what to run on this machine. A dynamic program that came with its own libc is
# started through that libc's loader, because this machine's may be older.
make_runners() {
    local partial=$1 path file
    local loader=lib64/ld-linux-x86-64.so.2
    while read -r path; do
        file="$partial/root/$path"
        [ -f "$file" ] && [ -x "$file" ] || [ -L "$file" ] || continue
        local runner="$partial/bin/${path##*/}"
        if [ -e "$partial/root/usr/$loader" ] && is_dynamic "$file"; then
            cat >"$runner" <<RUN
#!/bin/sh
root=\$(dirname "\$(readlink -f "\$0")")/../root
exec "\$root/usr/$loader" --argv0 "\$0" --library-path "\$root/usr/lib/x86_64-linux-gnu" "\$root/$path" "\$@"
RUN
            chmod +x "$runner"
        else
            ln -s "../root/$path" "$runner"
        fi
    done < <(dpkg-deb --fsys-tarfile "$2" | tar -t | sed 's,^\./,,' | { grep -E '^(usr/)?s?bin/[^/]+$' || true; })
}

is_dynamic() { head -c 4 "$1" | grep -q ELF && LC_ALL=C readelf -lW "$1" 2>/dev/null | grep -q INTERP; }

main "$@"
