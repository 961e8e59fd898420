#!/bin/sh
# Fetches what the benchmark needs: Debian's containerd, and a pause program for the pause image that it wants.
set -eu
cd "$(dirname "$0")/../.."
say() { printf 'bench: %s\n' "$*" >&2; }

sh e2e/containerd.sh
case "$(.cache/containerd/usr/bin/containerd --version)" in
  *" 1.6.20"*) ;;
  *) say "the marks are ratios to Debian 12's containerd 1.6.20; this is $(.cache/containerd/usr/bin/containerd --version)" ;;
esac
mkdir -p .cache/bench
gcc -static -O2 -s -o .cache/bench/pause e2e/conformance/programs/pause.c
