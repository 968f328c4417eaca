#!/bin/sh
# Checks the modules: formatting, validity, tests against a mock of AWS. Needs no account and makes nothing.
#
# The provider is taken from TF_PLUGIN_DIR, or from where a mirror of providers usually is on this machine, or else from the
# registry, if that answers. Where neither it nor Terraform can be had, this says so and ends well: the rest of the checks
# need not wait for it.
set -eu
cd "$(dirname -- "$0")"

roots='modules/service modules/master modules/region examples/complete'

say() { printf 'terraform: %s\n' "$*"; }

not_checked() {
    say "$*: the modules are NOT checked"
    exit 0
}

command -v terraform >/dev/null 2>&1 || not_checked 'there is no terraform on this machine'
# A setting that names a file that is gone is a warning with every command.
[ -e "${TF_CLI_CONFIG_FILE:-/}" ] || unset TF_CLI_CONFIG_FILE
export TF_IN_AUTOMATION=1 CHECKPOINT_DISABLE=1

terraform fmt -check -diff -recursive

# The mirror that has AWS' provider for Terraform's registry, if there is one.
mirror() {
    if [ -n "${TF_PLUGIN_DIR:-}" ]; then
        echo "$TF_PLUGIN_DIR"
        return
    fi
    for place in "$HOME/.terraform.d/plugins" "$HOME/.terraform.d/plugin-cache" /usr/share/terraform/plugins \
        /usr/local/share/terraform/plugins /opt; do
        found=$(find "$place" -maxdepth 6 -type d -path '*registry.terraform.io/hashicorp/aws' 2>/dev/null | head -n 1)
        if [ -n "$found" ]; then
            echo "${found%/registry.terraform.io/hashicorp/aws}"
            return
        fi
    done
}

plugins=$(mirror)

init() {
    if [ -n "$plugins" ]; then
        terraform -chdir="$1" init -backend=false -input=false -no-color -plugin-dir="$plugins" >/dev/null
    else
        timeout 20 terraform -chdir="$1" init -backend=false -input=false -no-color >/dev/null 2>&1
    fi
}

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

for root in $roots; do
    if ! init "$root"; then
        [ -z "$plugins" ] || { say "$root cannot be initialized with $plugins"; exit 1; }
        not_checked 'the AWS provider cannot be had'
    fi
done

# The example has every module in it.
terraform -chdir=examples/complete validate -no-color

# Side by side: most of a test's time is the provider starting.
for root in $roots; do
    (
        terraform -chdir="$root" test -no-color
        echo $? >"$logs/$(echo "$root" | tr / -).code"
    ) >"$logs/$(echo "$root" | tr / -).log" 2>&1 &
done
wait

failed=0
for root in $roots; do
    name=$(echo "$root" | tr / -)
    if [ "$(cat "$logs/$name.code" 2>/dev/null)" = 0 ]; then
        say "$root: $(grep -E '^Success! [0-9]' "$logs/$name.log")"
    else
        say "$root failed"
        cat "$logs/$name.log"
        failed=1
    fi
done
exit $failed
