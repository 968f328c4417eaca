#!/bin/sh
# Runs in the container that under-systemd.sh boots: an administrator's day with the package.
set -eu
export LC_ALL=C.UTF-8 SYSTEMD_PAGER='' SYSTEMD_COLORS=0 DEBIAN_FRONTEND=noninteractive

units='warmcast-aggregator warmcast-cache-writer'

step() { printf '\n### %s\n' "$*"; }
run() { printf '$ %s\n' "$*"; "$@"; }
fail() {
    printf 'FAIL: %s\n' "$*"
    journalctl --no-hostname --output=short-precise --lines=60 --unit='warmcast-*'
    exit 1
}
# until_so SECONDS WHAT COMMAND...
until_so() {
    seconds=$1 what=$2
    shift 2
    tries=$((seconds * 5))
    until "$@"; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || fail "not within $seconds s: $what"
        sleep 0.2
    done
}
property() { systemctl show --value --property "$2" "$1"; }
is() { [ "$(property "$1" "$2")" = "$3" ]; }
# A counter of the daemon's own log lines.
counted() { journalctl --output=cat --unit "$1" | grep -q "\"$2\":[1-9]"; }
now_ms() { date +%s%3N; }

step 'installed: nothing is enabled, nothing runs'
(cd / && find etc usr var -xdev | sort) >/work/before
run dpkg --install /work/warmcast.deb
run dpkg --verify warmcast
for unit in $units; do
    is "$unit" UnitFileState disabled || fail "$unit is $(property "$unit" UnitFileState)"
    is "$unit" ActiveState inactive || fail "$unit runs"
done

step 'without a configuration: exit code 64, and no restart'
run systemctl start warmcast-aggregator && fail 'it starts without a configuration'
until_so 10 'it has failed' is warmcast-aggregator ActiveState failed
sleep 3
is warmcast-aggregator NRestarts 0 || fail 'it was restarted'
is warmcast-aggregator ExecMainStatus 64 || fail "exit code $(property warmcast-aggregator ExecMainStatus)"
run systemctl show --property ActiveState,Result,ExecMainStatus,NRestarts warmcast-aggregator
systemctl reset-failed

step 'configured and started: ready when they are in their fleets'
cp /work/aggregator.toml /work/cache-writer.toml /etc/warmcast/
echo not-used-here >/etc/warmcast/credentials/redis-password
chmod 600 /etc/warmcast/credentials/redis-password
cat >>/etc/default/warmcast-aggregator <<END
WARMCAST__STATE__TABLE=packaged-aggregator
WARMCAST__ADMIN__LISTEN=127.0.0.1:19640
END
cat >>/etc/default/warmcast-cache-writer <<END
WARMCAST__STATE__TABLE=packaged-cache-writer
WARMCAST__REDIS__KEY_PREFIX=packaged:
END
for unit in $units; do
    begin=$(now_ms)
    run systemctl enable --now "$unit" 2>&1
    echo "# ready after $(($(now_ms) - begin)) ms"
    is "$unit" ActiveState active || fail "$unit is not active"
done
until_so 60 'changes are sent' counted warmcast-aggregator changes_sent
until_so 60 'changes are applied' counted warmcast-cache-writer changes_applied
until_so 30 'its status tells of shards' sh -c 'systemctl show --value -p StatusText warmcast-cache-writer | grep -q "^running: shards [1-9]"'
run aggregator health --config /etc/warmcast/aggregator.toml --set admin.listen=127.0.0.1:19640
for unit in $units; do run systemctl status --lines=0 --no-pager "$unit"; done
run ls -l /run/credentials/warmcast-cache-writer.service/
id=$(property warmcast-cache-writer MainPID)
run grep -E '^(Uid|Threads|VmRSS|CapEff|NoNewPrivs|Seccomp):' "/proc/$id/status"

step 'killed: restarted'
kill -9 "$(property warmcast-aggregator MainPID)"
until_so 30 'it is restarted' is warmcast-aggregator NRestarts 1
until_so 60 'it is ready again' is warmcast-aggregator ActiveState active
run systemctl show --property ActiveState,NRestarts warmcast-aggregator

step 'a runtime that hangs: ended by the watchdog, and restarted'
mkdir -p /run/systemd/system/warmcast-cache-writer.service.d
printf '[Service]\nWatchdogSec=3\n' >/run/systemd/system/warmcast-cache-writer.service.d/watchdog.conf
systemctl daemon-reload
run systemctl restart warmcast-cache-writer
before=$(property warmcast-cache-writer NRestarts)
kill -STOP "$(property warmcast-cache-writer MainPID)"
until_so 60 'it is restarted' sh -c "[ \$(systemctl show --value -p NRestarts warmcast-cache-writer) -gt $before ]"
until_so 60 'it is ready again' is warmcast-cache-writer ActiveState active
journalctl --no-hostname --output=short-precise --unit warmcast-cache-writer | grep -E 'systemd.*(atchdog|Scheduled restart|signal)'
rm -r /run/systemd/system/warmcast-cache-writer.service.d
systemctl daemon-reload

step 'upgraded: left running'
before=$(property warmcast-aggregator MainPID)
run dpkg --install /work/warmcast.deb
[ "$(property warmcast-aggregator MainPID)" = "$before" ] || fail 'the upgrade restarted it'

step 'stopped: drained, exit code 0'
for unit in $units; do
    begin=$(now_ms)
    run systemctl stop "$unit"
    echo "# stopped after $(($(now_ms) - begin)) ms"
    is "$unit" Result success || fail "$unit: $(property "$unit" Result)"
    is "$unit" ExecMainStatus 0 || fail "$unit: exit code $(property "$unit" ExecMainStatus)"
    journalctl --no-hostname --output=short-precise --unit "$unit" --lines=400 | grep -v -E '"message":"(stats|region)"' | tail -n 6 | cut -c 1-220
done

step 'removed: stopped. Purged: nothing is left'
run systemctl start warmcast-aggregator
run dpkg --remove warmcast
is warmcast-aggregator ActiveState inactive || fail 'it runs without its package'
run dpkg --purge warmcast
(cd / && find etc usr var -xdev | sort) >/work/after
# What the system itself keeps: of packages, logs, caches.
if diff /work/before /work/after | grep '^>' | grep -v -E ' var/(lib/dpkg|log|cache|lib/systemd|tmp)(/|$)'; then
    fail 'these are left'
fi
echo PASS
