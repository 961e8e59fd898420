#!/bin/sh
# Brings a Debian machine from "Node and npm" to "can build and test Berth". Idempotent; a second run only looks.
# Ends with what must be true of the kernel here: crun 1.8 needs the hugetlb controller mounted on a hybrid layout.
# usage: setup.sh [tests]    (with "tests" also what only the tests need)
set -eu
cd "$(dirname "$0")/.."
say() { printf 'setup: %s\n' "$*" >&2; }

install_missing_packages() {
  wanted="ca-certificates gcc libc6-dev libisal-dev crun runc conmon containernetworking-plugins nftables iptables \
    docker-registry openssl skopeo umoci gnupg iproute2 util-linux tar"
  missing=""
  for package in $wanted; do
    case "$(dpkg-query -W -f='${Status}' "$package" 2>/dev/null || true)" in
      "install ok installed") ;;
      *) missing="$missing $package" ;;
    esac
  done
  [ -n "$missing" ] || return 0
  say "installing$missing"
  # A test's registry runs on its own: the package must not start one on this machine (invoke-rc.d asks this file).
  if [ ! -e /usr/sbin/policy-rc.d ]; then
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q >&2
  # shellcheck disable=SC2086 # a list of names
  apt-get install -q -y --no-install-recommends $missing < /dev/null >&2
}

# The packages that test images are made of are unpacked, never installed.
download_image_packages() {
  [ -e .cache/packages/done ] && return 0
  say "downloading the packages that test images are made of"
  rm -rf .cache/packages
  mkdir -p .cache/packages/part
  (
    cd .cache/packages/part
    apt-get -q -o APT::Sandbox::User=root download busybox libc6 >&2 || {
      apt-get update -q >&2
      apt-get -q -o APT::Sandbox::User=root download busybox libc6 >&2
    }
  )
  mv .cache/packages/part/*.deb .cache/packages/
  rmdir .cache/packages/part
  touch .cache/packages/done
}

install_node_modules() {
  [ node_modules/.package-lock.json -nt package-lock.json ] && [ -x node_modules/.bin/node ] && return 0
  say "installing node modules"
  # The machine's own Node, however old, only fetches the pinned one: npm leaves out packages that do not suit the Node
  # it runs on.
  version="$(sed -n 's/^ *"node": "\([0-9.]*\)",*$/\1/p' package.json)"
  npm install --prefix .cache/node --no-save --loglevel=error "node@$version" < /dev/null >&2
  PATH="$PWD/.cache/node/node_modules/.bin:$PATH" npm ci --loglevel=error < /dev/null >&2
  touch node_modules/.package-lock.json
}

# Fetched here, since the tests run in a network namespace that reaches nothing.
unpack_newer_packages() {
  sh cni/sid-plugins.sh .cache/cni-sid >&2 && sh e2e/newer-runtimes.sh .cache/newer-runtimes >&2 && sh e2e/containerd.sh
}

mount_hugetlb() {
  layout="$(stat -f -c %T /sys/fs/cgroup)"
  [ "$layout" = tmpfs ] || return 0
  grep -q '^hugetlb' /proc/cgroups || return 0
  grep -q ' - cgroup [^ ]* .*hugetlb' /proc/self/mountinfo && return 0
  say "mounting the hugetlb controller"
  mkdir -p /sys/fs/cgroup/hugetlb
  mount -t cgroup -o hugetlb cgroup /sys/fs/cgroup/hugetlb
}

[ "$(id -u)" = 0 ] || { say "must be root: it installs packages, and containers need it"; exit 1; }
install_missing_packages
download_image_packages
[ "${1:-}" != tests ] || unpack_newer_packages || { apt-get update -q >&2 && unpack_newer_packages; }
install_node_modules
mount_hugetlb
PATH="$PWD/node_modules/.bin:$PATH" sh native/build.sh >&2
