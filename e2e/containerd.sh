#!/bin/sh
# Fetches Debian's containerd and ctr into .cache, for tests of what travels between it and Berth and for the benchmark.
# Unpacked and not installed: nothing of it runs but what a test starts. Idempotent.
set -eu
cd "$(dirname "$0")/.."
[ ! -x .cache/containerd/usr/bin/containerd ] || exit 0
echo "containerd.sh: downloading containerd" >&2
rm -rf .cache/containerd .cache/containerd.part
mkdir -p .cache/containerd.part
(
  cd .cache/containerd.part
  apt-get -q -o APT::Sandbox::User=root download containerd >&2 || {
    apt-get update -q >&2
    apt-get -q -o APT::Sandbox::User=root download containerd >&2
  }
  dpkg -x containerd_*.deb .
  rm containerd_*.deb
)
mv .cache/containerd.part .cache/containerd
