#!/bin/sh
# Builds crictl, critest and ginkgo at the versions of go.mod into .cache/conformance/<key>, once per key; prints where.
set -eu
cd "$(dirname "$0")"
command -v go > /dev/null || {
  echo "conformance: Go is missing; crictl and critest are Go programs, see https://go.dev/dl/" >&2
  exit 1
}
cache="$(cd ../.. && pwd)/.cache/conformance"
key="$( (cat go.mod go.sum build.sh && go version) | sha256sum | cut -c1-16)"
if [ ! -e "$cache/$key/done" ]; then
  echo "conformance: building crictl and critest" >&2
  rm -rf "$cache"
  mkdir -p "$cache/$key"
  version="$(go list -m -mod=readonly -f '{{.Version}}' sigs.k8s.io/cri-tools)"
  flags="-s -w -X sigs.k8s.io/cri-tools/pkg/version.Version=$version"
  export GOFLAGS="-mod=readonly -trimpath -buildvcs=false" CGO_ENABLED=0
  nice go build -ldflags "$flags" -o "$cache/$key/crictl" sigs.k8s.io/cri-tools/cmd/crictl
  nice go build -ldflags "-s -w" -o "$cache/$key/ginkgo" github.com/onsi/ginkgo/v2/ginkgo
  nice go test -c -ldflags "$flags" -o "$cache/$key/critest" sigs.k8s.io/cri-tools/cmd/critest
  touch "$cache/$key/done"
fi
ln -sfn "$key" "$cache/current"
