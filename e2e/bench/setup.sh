#!/bin/sh
# Fetches what only the benchmark needs: Debian's containerd, unpacked into .cache and not installed (nothing of it runs
# but what the benchmark starts), and a pause program for the pause image that containerd wants.
set -eu
cd "$(dirname "$0")/../.."
say() { printf 'bench: %s\n' "$*" >&2; }

if [ ! -x .cache/containerd/usr/bin/containerd ]; then
  say "downloading containerd"
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
fi
case "$(.cache/containerd/usr/bin/containerd --version)" in
  *" 1.6.20"*) ;;
  *) say "the marks are ratios to Debian 12's containerd 1.6.20; this is $(.cache/containerd/usr/bin/containerd --version)" ;;
esac
mkdir -p .cache/bench
gcc -static -O2 -s -o .cache/bench/pause e2e/conformance/programs/pause.c
