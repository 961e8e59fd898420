#!/bin/sh
# Builds a Debian 13 guest: a disk, a kernel, an initrd and the qemu to run them, in .cache/guest/<key>, once per version
# of this script; prints where. Nothing of it is installed on this machine but what makes disks.
# usage: build.sh [selinux]    (with Debian's SELinux policy instead of AppArmor: it alone takes a minute to install)
set -eu
umask 022
variant="${1:-apparmor}"
cache="$(cd "$(dirname "$0")/../.." && pwd)/.cache/guest"
version="$(sha256sum < "$0" | cut -c1-16)"
key="$version-$variant"
suite=trixie
packages=systemd,systemd-sysv,dbus,udev,kmod,iproute2,procps,ca-certificates,sudo,nftables,iptables
packages=$packages,libisal2,crun,runc,conmon,containernetworking-plugins,docker-registry
case "$variant" in
  apparmor) packages=$packages,apparmor ;;
  selinux) packages=$packages,selinux-policy-default,policycoreutils,selinux-utils ;;
  *) echo "usage: build.sh [selinux]" >&2 && exit 64 ;;
esac
modules="virtio_blk"
say() { printf 'guest: %s\n' "$*" >&2; }

install_missing_packages() {
  missing=""
  for package in debootstrap e2fsprogs cpio xz-utils busybox-static; do
    case "$(dpkg-query -W -f='${Status}' "$package" 2> /dev/null || true)" in
      "install ok installed") continue ;;
    esac
    # Debian's busybox comes in two that exclude each other; the one for initrds is unpacked below, not installed.
    [ "$package" = busybox-static ] || missing="$missing $package"
  done
  [ -n "$missing" ] || return 0
  say "installing$missing"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q >&2
  # shellcheck disable=SC2086 # a list of names
  apt-get install -q -y --no-install-recommends $missing < /dev/null >&2
}

# The mirror this machine takes its own packages from.
mirror() {
  found="$(sed -n 's/^URIs: *\([^ ]*\/debian\)\/\{0,1\}$/\1/p' /etc/apt/sources.list.d/*.sources 2> /dev/null | head -n 1)"
  [ -n "$found" ] || found="$(sed -n 's/^deb  *\([^ []*\/debian\)\/\{0,1\} .*/\1/p' /etc/apt/sources.list 2> /dev/null | head -n 1)"
  printf '%s' "$found"
}

bootstrap() {
  say "installing Debian $suite into a folder"
  # shellcheck disable=SC2046 # no mirror is no argument
  debootstrap --variant=minbase --include="$packages" "$suite" root $(mirror) >&2
  chroot root apt-get download -q "$(kernel_package)" busybox-static >&2
  dpkg-deb -x root/linux-image-*.deb kernel
  dpkg-deb -x root/busybox-static_*.deb busybox
  rm root/*.deb
  unpack_emulator
  rm -rf root/var/cache/apt/* root/var/lib/apt/lists/* root/usr/share/doc root/usr/share/man root/usr/share/locale
}

# Debian 12's qemu 7.2 translates code while another processor writes it, and V8 writes much: a third of Node's starts
# ended with a fault. (Since 8.1 pages are locked for that.) The guest's own release has a newer one, which runs here by
# its own loader and libraries.
unpack_emulator() {
  chroot root apt-get clean
  chroot root apt-get install -q -y --download-only --no-install-recommends qemu-system-x86 < /dev/null >&2
  mkdir -p emulator/usr/lib/x86_64-linux-gnu
  for package in root/var/cache/apt/archives/*.deb; do dpkg-deb -x "$package" emulator; done
  find root/usr/lib/x86_64-linux-gnu -maxdepth 1 -name '*.so*' -exec cp -a {} emulator/usr/lib/x86_64-linux-gnu/ \;
}

kernel_package() {
  chroot root apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: *\(linux-image-[0-9].*\)$/\1/p' | head -n 1
}

install_kernel() {
  release="$(ls kernel/lib/modules 2> /dev/null || ls kernel/usr/lib/modules)"
  cp kernel/boot/vmlinuz-* vmlinuz
  mkdir -p root/usr/lib/modules
  cp -a kernel/*/modules/"$release" root/usr/lib/modules/ 2> /dev/null || cp -a kernel/usr/lib/modules/"$release" root/usr/lib/modules/
  chroot root depmod "$release"
}

# What a node has beyond its packages: a name, no services but ours, and the unit that runs what is asked of the guest.
configure() {
  echo berth-guest > root/etc/hostname
  printf '127.0.0.1 localhost berth-guest\n::1 localhost\n' > root/etc/hosts
  : > root/etc/machine-id
  printf '/dev/vda / ext4 rw,noatime 0 1\n' > root/etc/fstab
  printf 'overlay\nbr_netfilter\n' > root/etc/modules-load.d/berth.conf
  printf 'net.ipv4.ip_forward = 1\n' > root/etc/sysctl.d/90-berth.conf
  chroot root systemctl disable docker-registry.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
    e2scrub_all.timer fstrim.timer getty@tty1.service >&2 || true
  chroot root systemctl mask serial-getty@ttyS0.service serial-getty@ttyS1.service systemd-udev-settle.service >&2
  # Of the policy only what concerns runtimes: loading a hundred profiles of desktop programs takes a third of a boot.
  [ "$variant" != apparmor ] || find root/etc/apparmor.d -maxdepth 1 -type f ! -name crun ! -name runc -delete
  mkdir -p root/payload root/results
  cat > root/etc/systemd/system/guest-run.service <<'UNIT'
[Unit]
Description=What was asked of this guest
After=multi-user.target

[Service]
Type=oneshot
StandardInput=null
StandardOutput=file:/dev/ttyS1
StandardError=inherit
ExecStart=/bin/sh -c 'mount -o ro /dev/vdb /payload && mount /dev/vdc /results && exec /bin/sh /payload/run.sh'
ExecStopPost=/bin/sh -c 'umount /results; systemctl poweroff --no-block'
TimeoutStartSec=infinity
UNIT
  mkdir -p root/etc/systemd/system/guest.target.wants
  cat > root/etc/systemd/system/guest.target <<'UNIT'
[Unit]
Description=A node with a task
Requires=multi-user.target
After=multi-user.target
AllowIsolate=yes
UNIT
  ln -s ../guest-run.service root/etc/systemd/system/guest.target.wants/guest-run.service
  ln -sf guest.target root/etc/systemd/system/default.target
}

# The kernel's command line says whether the policy is enforced.
label() {
  [ "$variant" = selinux ] || return 0
  printf 'SELINUX=permissive\nSELINUXTYPE=default\n' > root/etc/selinux/config
  chroot root setfiles -F /etc/selinux/default/contexts/files/file_contexts / >&2
}

make_initrd() {
  mkdir -p initrd/bin initrd/dev initrd/proc initrd/sys initrd/new initrd/lib
  cp busybox/usr/bin/busybox initrd/bin/busybox 2> /dev/null || cp busybox/bin/busybox initrd/bin/busybox
  for module in $modules; do
    found="$(find root/usr/lib/modules -name "$module.ko*" | head -n 1)"
    case "$found" in
      *.xz) xz -dc "$found" > "initrd/lib/$module.ko" ;;
      *.ko) cp "$found" initrd/lib/ ;;
      *) say "no module $module, taken as built in" ;;
    esac
  done
  cat > initrd/init <<'INIT'
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
for module in /lib/*.ko; do /bin/busybox insmod "$module"; done
/bin/busybox mount -t ext4 -o rw,noatime /dev/vda /new
/bin/busybox umount /proc /sys
/bin/busybox mount --move /dev /new/dev
exec /bin/busybox switch_root /new /lib/systemd/systemd
INIT
  chmod 755 initrd/init
  ln -s busybox initrd/bin/sh
  (cd initrd && find . | cpio --quiet -o -H newc | gzip -1) > initrd.gz
}

if [ ! -e "$cache/$key/done" ]; then
  [ "$(id -u)" = 0 ] || { say "must be root"; exit 1; }
  install_missing_packages
  for old in "$cache"/*; do
    case "$old" in "$cache/$version"-*) ;; *) rm -rf "$old" ;; esac
  done
  rm -rf "${cache:?}/$key"
  mkdir -p "$cache/$key"
  cd "$cache/$key"
  bootstrap
  install_kernel
  configure
  label
  make_initrd
  say "making the disk"
  truncate -s 6G disk.img
  mkfs.ext4 -q -F -E lazy_itable_init=1,nodiscard -d root disk.img
  rm -rf root kernel busybox initrd
  touch done
fi
printf '%s\n' "$cache/$key"
