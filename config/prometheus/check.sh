#!/bin/sh
# Checks Prometheus' rules and Grafana's dashboard, without a server: that they parse, that the alerts fire when they should
# and not else, that every metric in them is one of docs/metrics.md, and that every alert has its recipe in the handbook.
# Needs promtool (Debian: prometheus).
set -eu
cd "$(dirname -- "$0")"

rules=warmcast.rules.yml
dashboard=../grafana/warmcast.json
metrics=../../docs/metrics.md
handbook=../../docs/handbook.md

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failed=0
fail() {
    printf '%s\n' "$*" >&2
    failed=1
}

promtool check rules "$rules" >"$scratch/out" || { cat "$scratch/out"; exit 1; }
promtool check config --syntax-only prometheus.yml >"$scratch/out" || { cat "$scratch/out"; exit 1; }
promtool test rules warmcast.test.yml

# The dashboard's queries, as rules, so that promtool reads them.
sed -n 's/^ *"expr": "\(.*\)",\{0,1\}$/\1/p' "$dashboard" | sed 's/\\"/"/g' >"$scratch/queries"
{
    echo 'groups: [{ name: dashboard, rules: ['
    sed "s/\\\$__rate_interval/5m/g; s/\\\$__range/1h/g; s/'/''/g; s/.*/{ record: q, expr: '&' },/" "$scratch/queries" | awk '{ sub("record: q", "record: q" NR); print }'
    echo ']}]'
} >"$scratch/queries.yml"
[ "$(grep -c '"expr"' "$dashboard")" = "$(wc -l <"$scratch/queries")" ] || fail "$dashboard: a query is not on a line of its own"
promtool check rules "$scratch/queries.yml" >"$scratch/out" || { cat "$scratch/out"; exit 1; }

# Every metric is in the list. Recorded ones have a colon, and must be recorded.
# shellcheck disable=SC2016 # These are backticks of Markdown.
grep -oE '`warmcast_[a-z0-9_]+`' "$metrics" | tr -d '`' | sort -u >"$scratch/known"
sed -n 's/^ *- record: //p' "$rules" | sort -u >"$scratch/recorded"
grep -vE '^ *(#|- alert:|- name:)' "$rules" | cat - "$scratch/queries" | grep -oE '[a-z_:]*warmcast_[a-z0-9_:]+' | sort -u |
    while read -r name; do
        case $name in
        *:*) grep -qxF "$name" "$scratch/recorded" || echo "$name is not recorded in $rules" ;;
        *) grep -qxF "$name" "$scratch/known" || grep -qxF "$(echo "$name" | sed -E 's/_(bucket|sum|count)$//')" "$scratch/known" ||
            echo "$name is not in $metrics" ;;
        esac
    done >"$scratch/unknown"
[ ! -s "$scratch/unknown" ] || fail "$(cat "$scratch/unknown")"

# Every alert has a severity and a recipe that is there, is in the handbook's list, and has a test.
sed -n 's/^## //p' "$handbook" | tr 'A-Z ' 'a-z-' | tr -cd 'a-z0-9\n-' >"$scratch/anchors"
sed -n 's/^ *- alert: //p' "$rules" >"$scratch/alerts"
while read -r alert; do
    grep -qF "\`$alert\`" "$handbook" || fail "$alert is not among the alerts of $handbook"
    grep -qF "labels: 'ALERTS{alertname=\"$alert\",alertstate=\"firing\"" warmcast.test.yml || fail "$alert: no test in which it fires"
done <"$scratch/alerts"
for what in 'labels: { severity: (page|ticket) }' 'summary: .' 'description: .' 'runbook: docs/handbook.md#[a-z0-9-]+'; do
    [ "$(grep -cE "^ *$what" "$rules")" = "$(wc -l <"$scratch/alerts")" ] || fail "$rules: not every alert has one: $what"
done
sed -n 's/^ *runbook: docs\/handbook.md#//p' "$rules" | sort -u | while read -r anchor; do
    grep -qxF -- "$anchor" "$scratch/anchors" || echo "$handbook has no recipe #$anchor"
done >"$scratch/unknown"
[ ! -s "$scratch/unknown" ] || fail "$(cat "$scratch/unknown")"

[ "$failed" = 0 ] || exit 1
echo "prometheus: $(wc -l <"$scratch/alerts") alerts, each with its recipe; $(wc -l <"$scratch/queries") queries of the dashboard"
