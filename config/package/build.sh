#!/bin/sh
# Makes what is installed: a tarball and a Debian package, with checksums. `make package` builds what it needs first.
#
#   build.sh BINARIES OUT
#
# BINARIES has `aggregator` and `cache-writer`; what is made goes into OUT, which is emptied. The same sources and binaries
# make the same files, byte by byte: times come from SOURCE_DATE_EPOCH (by default the latest commit), names are sorted,
# everything belongs to root. With DRAFT=yes, for tests, nothing is compressed much and no SBOM is asked for.
#
# One Debian package has both programs: they share version, licences and documentation, a machine that runs one is
# administered with the commands of the other, and their units are disabled as installed.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
here=$root/config/package
binaries=$1
out=$2
draft=${DRAFT:-no}
programs='aggregator cache-writer'

fail() {
    printf 'package: %s\n' "$*" >&2
    exit 1
}

version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' "$root/Cargo.toml")
[ -n "$version" ] || fail "no version in $root/Cargo.toml"
architecture=$(dpkg --print-architecture)
host=$(rustc -vV | sed -n 's/^host: //p')
epoch=${SOURCE_DATE_EPOCH:-$(git -C "$root" log -1 --format=%ct)}
maintainer=${MAINTAINER:-Warmcast <warmcast@localhost>}
export SOURCE_DATE_EPOCH="$epoch" LC_ALL=C.UTF-8 TZ=UTC0
umask 022
rm -rf "$out"
mkdir -p "$out"
# Some of what follows is done in other directories.
out=$(cd "$out" && pwd)
scratch=$(mktemp -d "$out/scratch.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM

# What both contain, in one place: bin, man, completions, doc.
parts=$scratch/parts
mkdir -p "$parts/bin" "$parts/completions" "$parts/doc/examples" "$parts/doc/sbom" "$out/debug"
for program in $programs; do
    [ -x "$binaries/$program" ] || fail "no program $binaries/$program: build it first, or use make package"
    "$binaries/$program" man --directory "$parts/man"
    "$binaries/$program" completions bash >"$parts/completions/$program.bash"
    "$binaries/$program" completions zsh >"$parts/completions/_$program"
    "$binaries/$program" completions fish >"$parts/completions/$program.fish"
    # What a debugger and a backtrace with lines need is beside the packages, found by the program's build id.
    objcopy --strip-unneeded --remove-section .comment "$binaries/$program" "$parts/bin/$program"
    [ "$draft" = yes ] || objcopy --only-keep-debug --compress-debug-sections "$binaries/$program" "$out/debug/$program.debug"
    cp "$root/config/$program.toml" "$parts/doc/examples/"
done
cp "$root/README.md" "$root/docs"/*.md "$parts/doc/"
cp "$root/LICENSE-MIT" "$root/LICENSE-APACHE" "$parts/doc/"
for folder in prometheus grafana; do
    if [ -d "$root/config/$folder" ]; then cp -R "$root/config/$folder" "$parts/doc/examples/"; fi
done
if [ -f "$root/config/prices.toml" ]; then cp "$root/config/prices.toml" "$parts/doc/examples/"; fi
(cd "$root" && cargo --offline metadata --locked --format-version 1 --filter-platform "$host") |
    "$here/licences.py" >"$parts/doc/THIRD-PARTY-LICENCES"

# The bill of materials of each program (CycloneDX): the libraries in it with versions, licences and checksums. It is
# written beside every package of the workspace, and says where that is on this machine: neither is for others.
if [ "$draft" = no ]; then
    (cd "$root" && PATH="$root/.tools/bin:$PATH" cargo --offline cyclonedx --quiet --format json --spec-version 1.5 \
        --no-build-deps --target "$host" --override-filename sbom.cdx) || fail 'cargo cyclonedx failed'
    for program in $programs; do
        sed "s|path+file://$root|path+file:///warmcast|g" "$root/$program/sbom.cdx.json" >"$parts/doc/sbom/$program.cdx.json"
        cp "$parts/doc/sbom/$program.cdx.json" "$out/"
    done
    rm -f "$root"/*/sbom.cdx.json
else
    rmdir "$parts/doc/sbom"
fi

# The tarball: everything under one folder, to be put where a machine has its programs.
name=warmcast-$version-$(uname -m)-linux
mkdir "$scratch/$name"
cp -R "$parts/." "$scratch/$name/"
cp -R "$root/config/systemd" "$scratch/$name/systemd"
cp -R "$here/etc" "$scratch/$name/etc"
# The units' LoadCredential= names it: without it they do not start.
mkdir -p "$scratch/$name/etc/warmcast/credentials"
mv "$scratch/$name/doc/README.md" "$scratch/$name/doc"/LICENSE-* "$scratch/$name/doc/THIRD-PARTY-LICENCES" "$scratch/$name/"

# The Debian package: the same, where Debian wants it.
tree=$scratch/deb
doc=$tree/usr/share/doc/warmcast
mkdir -p "$tree/DEBIAN" "$tree/usr/bin" "$tree/usr/lib/systemd/system" "$tree/usr/share/man/man1" "$doc" \
    "$tree/usr/share/bash-completion/completions" "$tree/usr/share/zsh/vendor-completions" \
    "$tree/usr/share/fish/vendor_completions.d" "$tree/usr/share/lintian/overrides" "$tree/etc/warmcast/credentials"
cp "$parts/bin"/* "$tree/usr/bin/"
cp "$root/config/systemd"/*.service "$tree/usr/lib/systemd/system/"
cp "$parts/man"/*.1 "$tree/usr/share/man/man1/"
for program in $programs; do
    cp "$parts/completions/$program.bash" "$tree/usr/share/bash-completion/completions/$program"
    cp "$parts/completions/_$program" "$tree/usr/share/zsh/vendor-completions/"
    cp "$parts/completions/$program.fish" "$tree/usr/share/fish/vendor_completions.d/"
done
cp -R "$parts/doc/." "$doc/"
# Debian has the texts of these in /usr/share/common-licenses and in the file `copyright`.
rm "$doc"/LICENSE-*
cp -R "$here/etc/." "$tree/etc/"
cp "$here/debian/lintian-overrides" "$tree/usr/share/lintian/overrides/warmcast"
{
    cat "$here/debian/copyright"
    sed -e '1,/^$/d' -e 's/^$/./' -e 's/^/ /' "$root/LICENSE-MIT"
} >"$doc/copyright"
cat >"$doc/changelog" <<END
warmcast ($version) stable; urgency=medium

  * Release $version.

 -- $maintainer  $(date -u -R -d "@$epoch")
END
find "$tree/usr/share/man" "$doc/changelog" "$doc/THIRD-PARTY-LICENCES" -type f -exec gzip -9n {} +
for script in postinst prerm postrm; do
    cp "$here/debian/$script" "$tree/DEBIAN/$script"
    chmod 755 "$tree/DEBIAN/$script"
done
(cd "$tree" && find etc -type f | sort | sed 's|^|/|') >"$tree/DEBIAN/conffiles"
(cd "$tree" && find usr -type f -print0 | sort -z | xargs -0 md5sum) >"$tree/DEBIAN/md5sums"
# The libraries that the programs are linked to, with the versions that have the symbols they use.
mkdir -p "$scratch/debian"
printf 'Source: warmcast\n\nPackage: warmcast\nArchitecture: any\n' >"$scratch/debian/control"
depends=$(cd "$scratch" && dpkg-shlibdeps -O "$tree/usr/bin/aggregator" "$tree/usr/bin/cache-writer" 2>"$scratch/shlibdeps.log" |
    sed -n 's/^shlibs:Depends=//p') || true
[ -n "$depends" ] || fail "dpkg-shlibdeps does not tell what the programs depend on: $(cat "$scratch/shlibdeps.log")"
sed -e "s|@VERSION@|$version|" -e "s|@ARCHITECTURE@|$architecture|" -e "s|@DEPENDS@|$depends|" -e "s|@MAINTAINER@|$maintainer|" \
    -e "s|@SIZE@|$(du -k -s --apparent-size --exclude DEBIAN "$tree" | cut -f 1)|" "$here/debian/control" >"$tree/DEBIAN/control"

find "$scratch" -exec touch --no-dereference --date "@$epoch" {} +
chmod -R u=rwX,go=rX "$scratch/$name" "$tree"
chmod 700 "$tree/etc/warmcast/credentials" "$scratch/$name/etc/warmcast/credentials"
chmod 640 "$tree"/etc/default/* "$scratch/$name"/etc/default/*
compress='-9n'
method='-Zxz'
if [ "$draft" = yes ]; then compress='-1n' method='-Znone'; fi
deb=$out/warmcast_${version}_$architecture.deb
dpkg-deb --root-owner-group "$method" --build "$tree" "$deb" >/dev/null
if [ "$draft" = no ]; then
    tar -C "$scratch" --sort=name --format=gnu --mtime="@$epoch" --owner=0 --group=0 --numeric-owner -cf - "$name" |
        gzip "$compress" >"$out/$name.tar.gz"
    (cd "$out/debug" && tar --sort=name --format=gnu --mtime="@$epoch" --owner=0 --group=0 --numeric-owner -cf - -- *.debug) |
        gzip "$compress" >"$out/$name-debug.tar.gz"
fi
rm -rf "$out/debug"
(cd "$out" && find . -maxdepth 1 -type f ! -name SHA256SUMS -printf '%f\0' | sort -z | xargs -0 sha256sum) >"$scratch/sums"
mv "$scratch/sums" "$out/SHA256SUMS"
rm -rf "$scratch"
cat "$out/SHA256SUMS"
