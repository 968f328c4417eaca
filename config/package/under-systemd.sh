#!/bin/sh
# The Debian package under a real systemd: a minimal Debian is booted in a container (systemd-nspawn), the package is
# installed, and both daemons run beside the servers of `sandbox up`. Prints what an operator would see, and fails when it
# is not what it should be.
#
#   under-systemd.sh DEB SANDBOX
#
# DEB is the package, SANDBOX the program `sandbox`. Needs root, systemd-nspawn and debootstrap (`make package-test`
# installs them). The minimal Debian is made once, in .tools/debian; what a run changes there is gone afterwards.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
deb=$1
sandbox=$2
debian=$root/.tools/debian
release=bookworm

fail() {
    printf 'package-test: %s\n' "$*" >&2
    exit 1
}

[ "$(id -u)" -eq 0 ] || fail 'booting a container needs root'
if [ ! -e "$debian/complete" ]; then
    echo "making a minimal Debian $release in .tools/debian: a minute, once"
    rm -rf "$debian"
    mkdir -p "$debian"
    debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,ca-certificates "$release" "$debian" >"$debian.log" 2>&1 ||
        fail "debootstrap failed: $debian.log"
    touch "$debian/complete"
fi
scratch=$(mktemp -d)
up=
clean_up() {
    if [ -n "$up" ]; then
        kill "$up" 2>/dev/null || true
        wait "$up" || true
    fi
    rm -rf "$scratch"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# The servers, with daemons of their own: the packaged ones read the same stream of the same table, as a fleet of their own,
# and write to the same Redis below a prefix of their own.
"$sandbox" up --regions 1 --users 500 --rate 100 --endpoints "$scratch/endpoints.json" >"$scratch/up.log" 2>&1 &
up=$!
until [ -s "$scratch/endpoints.json" ]; do
    kill -0 "$up" 2>/dev/null || fail "sandbox up ended: $(cat "$scratch/up.log")"
    sleep 0.2
done
configuration() { sed -n "s/^configuration of $1  *//p" "$scratch/up.log"; }
cp "$(configuration aggregator)" "$scratch/aggregator.toml"
cp "$(configuration 'cache-writer.*')" "$scratch/cache-writer.toml"
cp "$deb" "$scratch/warmcast.deb"
cp "$root/config/package/inside-systemd.sh" "$scratch/"

# The container's first and last job. It is told nothing of the machine but the network's loopback.
mkdir "$scratch/units"
cat >"$scratch/units/inside.service" <<END
[Unit]
After=multi-user.target
SuccessAction=exit
FailureAction=exit
[Service]
Type=oneshot
ExecStart=/bin/sh /work/inside-systemd.sh
StandardOutput=file:/work/output
StandardError=inherit
TimeoutStartSec=300
END
status=0
script --quiet --return --command "systemd-nspawn --quiet --register=no --keep-unit --volatile=overlay --directory=$debian --boot \
    --bind=$scratch:/work --bind-ro=$scratch/units/inside.service:/run/systemd/system/inside.service systemd.wants=inside.service" \
    "$scratch/console" </dev/null >/dev/null 2>&1 || status=$?
cat "$scratch/output" 2>/dev/null || cat "$scratch/console"
grep -q '^PASS$' "$scratch/output" || fail "not as it should be (the container ended with $status)"
