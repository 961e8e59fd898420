#!/bin/sh
# Compiles the addon (berth.node) and the helper (berth-helper) into native/build, if a source is newer.
# With --sanitize: both under AddressSanitizer and UBSan, into native/build/sanitized.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
headers=$here/../node_modules/node-api-headers/include
out=$here/build
warnings="-std=gnu17 -D_GNU_SOURCE -Wall -Wextra -Wshadow -Wpointer-arith -Wstrict-prototypes -Werror"
hardening="-O2 -fstack-protector-strong -D_FORTIFY_SOURCE=2"
helper_flags="-Os -static -nostdlib -ffreestanding -fno-stack-protector -fno-asynchronous-unwind-tables -fno-pie -no-pie \
  -Wl,--build-id=none -Wl,-z,noexecstack -Wl,-z,norelro -s"
if [ "${1:-}" = "--sanitize" ]; then
  out=$here/build/sanitized
  sanitizers="-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer"
  hardening="-O1 -g $sanitizers"
  helper_flags="-O1 -g $sanitizers -DBERTH_HOSTED"
fi
compiler=${CC:-gcc}
mkdir -p "$out"

# Writes aside and renames, so that a running daemon or a build beside this one never sees half a file.
compile() {
  target=$1
  sources=$2
  shift 2
  if [ -e "$target" ] && [ -z "$(find $sources "$here/build.sh" -newer "$target")" ]; then
    return
  fi
  "$compiler" "$@" -o "$target.$$"
  mv -f "$target.$$" "$target"
}

# shellcheck disable=SC2086 # the flags are lists of words
compile "$out/berth.node" "$here/addon" $warnings $hardening -fPIC -fvisibility=hidden -shared -pthread \
  -DNAPI_VERSION=8 -isystem "$headers" -Wl,-z,nodelete -Wl,-z,relro,-z,now "$here"/addon/*.c -lisal
# shellcheck disable=SC2086
compile "$out/berth-helper" "$here/helper" $warnings $helper_flags "$here"/helper/*.c
