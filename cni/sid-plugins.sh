#!/bin/sh
# Unpacks the CNI plugins of Debian sid beside the system's own: only they know GC and STATUS (spec 1.1.0), which the
# tests need. Nothing is installed and the system's apt is left as it is. Idempotent; the package is pinned by digest.
# usage: sid-plugins.sh DIRECTORY    (the plugins end up in DIRECTORY/usr/lib/cni)
set -eu
target="${1:?usage: sid-plugins.sh DIRECTORY}"
pin="$(cd "$(dirname "$0")" && pwd)/sid-plugins.sha256"
package="$(awk '{ print $2 }' "$pin")" # name_version_arch.deb, "%3a" for the colon of an epoch
name="${package%%_*}"
version="${package#*_}"
version="${version%_*}"

[ "$(cat "$target/.pin" 2>/dev/null || true)" = "$(cat "$pin")" ] && exit 0

work="$(mktemp -d "${TMPDIR:-/tmp}/sid-plugins.XXXXXX")"
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/state/lists/partial" "$work/cache/archives/partial" "$work/root"
: > "$work/state/status"

# The mirror and key that this machine trusts already.
mirror="$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' | grep -v security | head -n 1)"
[ -n "$mirror" ] || { echo "sid-plugins: no Debian mirror known to apt; run apt-get update first" >&2; exit 1; }
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

apt() {
  apt-get -q -o APT::Sandbox::User=root -o Acquire::Check-Valid-Until=false -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false \
    -o "Dir::State=$work/state" -o "Dir::State::status=$work/state/status" -o "Dir::Cache=$work/cache" \
    -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=- "$@"
}

# A version that has moved on from sid lives in testing for a while.
for suite in sid testing; do
  echo "deb [signed-by=$keyring] $mirror $suite main" > "$work/sources.list"
  apt update >&2
  (cd "$work" && apt download "$name=$version" >&2) && break
done
(cd "$work" && sha256sum --check --strict "$pin" >&2)
dpkg-deb --extract "$work/$package" "$work/root"
cp "$pin" "$work/root/.pin"
rm -rf "$target"
mkdir -p "$(dirname "$target")"
mv "$work/root" "$target"
