#!/usr/bin/env bash
# Brings a Debian machine to where the agent can be built, tested and shown:
#
#   tests/setup.sh [packages] [runtime] [footage] [asyncapi]      without arguments: all of them
#
# packages  GStreamer, SQLite, a C compiler, mosquitto and its clients, openssl, TLS for GLib, libfaketime from Debian
# runtime   ONNX Runtime's library out of its Python wheel    -> .cache/onnxruntime/libonnxruntime.so
# footage   a street with pedestrians out of Debian's opencv-doc -> .cache/footage/vtest.avi
# asyncapi  AsyncAPI's parser out of its npm package              -> .cache/asyncapi/parser.js
#
# Every step is skipped when it is done already, so that a second run takes no time and needs no network.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*"; }
fail() {
    printf 'setup: %s\n' "$*" >&2
    exit 1
}

scratch=""
policy=""
clean_up() {
    [ -z "$scratch" ] || rm -rf "$scratch"
    [ -z "$policy" ] || as_root rm -f "$policy"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# Runs a command as root: directly, or by sudo where that is installed.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "this needs root and there is no sudo: run as root: $*"
    fi
}

# Prints those of the packages named that are not installed.
missing_packages() {
    local name
    for name in "$@"; do
        case "$(dpkg-query -W -f '${Status}' "$name" 2>/dev/null)" in
            *" ok installed") ;;
            *) printf '%s ' "$name" ;;
        esac
    done
}

# Installs Debian packages, if they are missing.
install_packages() {
    command -v apt-get >/dev/null || fail "only Debian and its kin are known here: install these yourself: $*"
    local missing
    missing=$(missing_packages "$@")
    [ -n "$missing" ] || return 0
    say "installing with apt-get: $missing"
    update_lists
    # Where no init runs (a container), a package that starts a service could fail to install.
    if [ ! -d /run/systemd/system ] && [ ! -e /usr/sbin/policy-rc.d ]; then
        policy=/usr/sbin/policy-rc.d
        # shellcheck disable=SC2016 # the file is a script of its own
        as_root sh -c 'printf "#!/bin/sh\nexit 101\n" >"$0" && chmod 755 "$0"' "$policy"
    fi
    # shellcheck disable=SC2086 # one word a package
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=180 \
        install -y --no-install-recommends $missing >"$(log apt-install)" 2>&1 ||
        fail "apt-get could not install $missing(offline? see $(log apt-install)): connect this machine to the internet, or install them yourself, and run this again"
    if [ -n "$policy" ]; then
        as_root rm -f "$policy"
        policy=""
    fi
}

# apt-get update, once a run. An old list that cannot be renewed may still do, so failure is not the end.
lists_updated=""
update_lists() {
    [ -z "$lists_updated" ] || return 0
    as_root apt-get -q -o DPkg::Lock::Timeout=180 update >"$(log apt-update)" 2>&1 ||
        say "the package lists could not be renewed (see $(log apt-update)); trying with those that are there"
    lists_updated=yes
}

log() {
    mkdir -p .cache/logs
    printf '.cache/logs/%s.log' "$1"
}

# sha256_is FILE SUM
sha256_is() {
    [ -f "$1" ] && [ "$(sha256sum "$1" | cut -d ' ' -f 1)" = "$2" ]
}

packages() {
    install_packages \
        gcc libc6-dev pkg-config libsqlite3-dev \
        libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev libgstrtspserver-1.0-dev \
        gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good \
        gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly gstreamer1.0-libav \
        mosquitto mosquitto-clients openssl libfaketime ca-certificates glib-networking
    say "packages: there"
}

# A Python that has pip; Debian's own gets it from the package python3-pip.
python_with_pip() {
    local python
    for python in python3 /usr/bin/python3; do
        if "$python" -m pip --version >/dev/null 2>&1; then
            printf '%s' "$python"
            return 0
        fi
    done
    return 1
}

runtime() {
    local library=.cache/onnxruntime/libonnxruntime.so version=1.32.0 machine sum python wheel
    if [ -f "$library" ] && [ "$(cat .cache/onnxruntime/version 2>/dev/null)" = "$version" ]; then
        say "ONNX Runtime $version: there"
        return 0
    fi
    machine=$(uname -m)
    case "$machine" in
        x86_64) sum=5a34fc4dfeb5a7b4a74c95dcba1e773d722abda720b474edf1b0c419dc6d163d ;;
        aarch64) sum=2303372a85299b6757b0e11e1cbf13e410ddf7e10c37f4b37e99d1c90e7daf7c ;;
        *) fail "ONNX Runtime is published for x86_64 and aarch64, not for $machine" ;;
    esac
    if ! python=$(python_with_pip); then
        install_packages python3-pip
        python=$(python_with_pip) || fail "python3 has no pip, and Debian's python3-pip did not bring it"
    fi
    say "fetching ONNX Runtime $version for $machine (27 MB)"
    scratch=$(mktemp -d)
    # The wheel of one Python is named whatever Python this machine has: only the library inside is used.
    "$python" -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: \
        --implementation cp --python-version 3.11 --abi cp311 --platform "manylinux_2_28_$machine" \
        -d "$scratch" "onnxruntime==$version" >"$(log pip)" 2>&1 ||
        fail "pip could not fetch onnxruntime $version (offline? see $(log pip)): connect this machine to the internet and run this again"
    wheel=$(echo "$scratch"/onnxruntime-*.whl)
    sha256_is "$wheel" "$sum" || fail "the wheel of onnxruntime $version is not the one that was reviewed (its SHA-256 differs): nothing was installed"
    "$python" -m zipfile -e "$wheel" "$scratch/wheel"
    mkdir -p .cache/onnxruntime
    mv "$scratch/wheel/onnxruntime/capi/libonnxruntime.so.$version" "$library.new"
    mv "$library.new" "$library"
    printf '%s\n' "$version" >.cache/onnxruntime/version
    rm -rf "$scratch"
    say "ONNX Runtime $version: in $library"
}

footage() {
    local clip=.cache/footage/vtest.avi sum=45cddc9490be69345cbdab64ca583be65987e864ca408038e648db99e10516cf
    local inside=./usr/share/doc/opencv-doc/examples/data/vtest.avi here
    if sha256_is "$clip" "$sum"; then
        say "footage: there"
        return 0
    fi
    command -v apt-get >/dev/null || fail "the footage is part of Debian's package opencv-doc: put its vtest.avi into .cache/footage"
    say "fetching footage of a street out of Debian's opencv-doc (96 MB to fetch, 8 MB kept)"
    here=$PWD
    scratch=$(mktemp -d)
    (cd "$scratch" && apt-get -q download opencv-doc) >"$(log apt-download)" 2>&1 || {
        update_lists
        (cd "$scratch" && apt-get -q download opencv-doc) >"$here/$(log apt-download)" 2>&1
    } || fail "apt-get could not fetch opencv-doc (offline? see $(log apt-download)): connect this machine to the internet and run this again, or show your own footage: make demo CLIP=/path/to/own.mp4"
    mkdir -p .cache/footage
    dpkg-deb --fsys-tarfile "$scratch"/opencv-doc_*.deb | tar -x -O "$inside" >"$clip.new"
    sha256_is "$clip.new" "$sum" || fail "this opencv-doc holds another vtest.avi than the one that the tests know (its SHA-256 differs)"
    mv "$clip.new" "$clip"
    rm -rf "$scratch"
    say "footage: in $clip"
}

# The package holds its parser twice: as modules that want 168 packages of 54 MB beside them, and for browsers as one
# file of 2 MB with all that it needs, which node reads as well. The sum pins that file and whatever is in it.
asyncapi() {
    local parser=.cache/asyncapi/parser.js version=3.6.6
    local sum=acf47343dc1327bc344e630a1b700a1d612f328039c85156765e9c599ab93d14
    command -v node >/dev/null || install_packages nodejs
    if sha256_is "$parser" "$sum"; then
        say "AsyncAPI's parser $version: there"
        return 0
    fi
    command -v npm >/dev/null || install_packages npm
    say "fetching AsyncAPI's parser $version (0.5 MB)"
    scratch=$(mktemp -d)
    (cd "$scratch" && npm pack --silent "@asyncapi/parser@$version") >"$(log npm)" 2>&1 ||
        fail "npm could not fetch @asyncapi/parser $version (offline? see $(log npm)): connect this machine to the internet and run this again"
    mkdir -p .cache/asyncapi
    tar -xzf "$scratch/asyncapi-parser-$version.tgz" -O package/browser/index.js >"$parser.new"
    sha256_is "$parser.new" "$sum" || fail "@asyncapi/parser $version is not the one that was reviewed (its SHA-256 differs): nothing was installed"
    mv "$parser.new" "$parser"
    rm -rf "$scratch"
    say "AsyncAPI's parser $version: in $parser"
}

[ $# -gt 0 ] || set -- packages runtime footage asyncapi
for step in "$@"; do
    case "$step" in
        packages | runtime | footage | asyncapi) "$step" ;;
        *) fail "there is no step $step; the steps are packages, runtime, footage and asyncapi" ;;
    esac
done
