#!/bin/sh
# Unpacks crun and runc of Debian sid beside the system's own: user namespaces need a runtime that can map mounts, which
# Debian 12's crun 1.8 and runc 1.1 and Debian 13's runc 1.1 cannot. They bring their C library and run with it alone.
# Nothing is installed and the system's apt is left as it is. Idempotent; every package is pinned by digest.
# usage: newer-runtimes.sh DIRECTORY    (the programs end up in DIRECTORY/bin)
set -eu
target="${1:?usage: newer-runtimes.sh DIRECTORY}"
mkdir -p "$(dirname "$target")"
target="$(cd "$(dirname "$target")" && pwd)/$(basename "$target")"
pins="$(cd "$(dirname "$0")" && pwd)/newer-runtimes.sha256"

# The programs name their loader by its whole path, so a folder that was moved is made anew.
made="$(printf '%s\n' "$target"; cat "$pins")"
[ "$(cat "$target/.pin" 2>/dev/null || true)" = "$made" ] && exit 0

work="$(mktemp -d "${TMPDIR:-/tmp}/newer-runtimes.XXXXXX")"
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/state/lists/partial" "$work/cache/archives/partial" "$work/packages" "$work/root" "$work/made/bin" \
  "$work/made/lib"
: > "$work/state/status"

# The mirror and key that this machine trusts already.
mirror="$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' | grep -v security | head -n 1)"
[ -n "$mirror" ] || { echo "newer-runtimes: no Debian mirror known to apt; run apt-get update first" >&2; exit 1; }
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

apt() {
  apt-get -q -o APT::Sandbox::User=root -o Acquire::Check-Valid-Until=false -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false \
    -o "Dir::State=$work/state" -o "Dir::State::status=$work/state/status" -o "Dir::Cache=$work/cache" \
    -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=- "$@"
}

# Names as "name_version_architecture.deb", with "%3a" for the colon of an epoch.
missing() {
  awk '{ print $2 }' "$pins" | while read -r package; do
    [ -e "$work/packages/$package" ] && continue
    versioned="${package%_*}"
    echo "${versioned%%_*}=${versioned#*_}" | sed 's/%3a/:/'
  done
}

# A version that has moved on from sid lives in testing for a while; patchelf is one that runs on Debian 12.
for suite in sid oldstable testing stable; do
  wanted="$(missing)"
  [ -n "$wanted" ] || break
  echo "deb [signed-by=$keyring] $mirror $suite main" > "$work/sources.list"
  apt update >&2 || continue
  for package in $wanted; do
    (cd "$work/packages" && apt download "$package" >&2) || echo "newer-runtimes: $suite has no $package" >&2
  done
done
(cd "$work/packages" && sha256sum --check --strict --quiet "$pins" >&2)

for package in "$work/packages"/*.deb; do dpkg-deb --extract "$package" "$work/root"; done
libraries="$work/root/usr/lib/x86_64-linux-gnu"
find "$libraries" -maxdepth 1 -name '*.so*' -exec cp -a {} "$work/made/lib/" \;
cp "$work/root/usr/bin/crun" "$work/root/usr/sbin/runc" "$work/made/bin/"
# Not a wrapper that calls the loader: runc executes /proc/self/exe again. RPATH counts for the libraries' own ones too.
for program in crun runc; do
  "$work/root/usr/bin/patchelf" --set-interpreter "$target/lib/ld-linux-x86-64.so.2" \
    --force-rpath --set-rpath "$target/lib" "$work/made/bin/$program"
done
printf '%s\n' "$made" > "$work/made/.pin"
rm -rf "$target"
mv "$work/made" "$target"
"$target/bin/crun" --version | head -n 1 >&2
"$target/bin/runc" --version | head -n 1 >&2
