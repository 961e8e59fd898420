#!/bin/sh
# Inside the guest, from the second disk: installs Berth as a user would, starts the service, runs what was asked.
# Whatever happens, the exit code and the journal go to /results.
set -u
payload=/payload
stty -F /dev/ttyS1 raw 2> /dev/null # no carriage returns
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root RESULTS=/results
say() { echo "guest: $* ($(cut -d' ' -f1 /proc/uptime) s after boot)"; }

install_berth() {
  mkdir -p /usr/lib/berth /etc/berth/berth.toml.d /etc/cni/net.d
  mount --bind "$payload/berth" /usr/lib/berth # in place of a copy, which takes long here
  cp /usr/lib/berth/deploy/berth.toml /etc/berth/
  cp /usr/lib/berth/deploy/10-berth-bridge.conflist /etc/cni/net.d/
  cp /usr/lib/berth/deploy/crictl.yaml /etc/
  cp /usr/lib/berth/deploy/berth.service /etc/systemd/system/
  cp "$payload"/bin/* /usr/local/bin/
  ln -sf /usr/lib/berth/node_modules/.bin/node /usr/local/bin/node
  for program in conformance node-checks reboot-checks; do
    printf '#!/bin/sh\nexec node /usr/lib/berth/e2e/guest/%s.ts "$@"\n' "$program" > "/usr/local/bin/$program"
    chmod 755 "/usr/local/bin/$program"
  done
  printf 'cgroup_driver = "systemd"\nlog_level = "debug"\n' > /etc/berth/berth.toml.d/10-guest.toml
  mkdir -p /etc/containers/registries.conf.d
  {
    printf '[[registry]]\nlocation = "127.0.0.1:5000"\ninsecure = true\n'
    for host in registry.k8s.io k8s.gcr.io gcr.io public.ecr.aws; do
      printf '[[registry]]\nlocation = "%s"\n' "$host"
      printf '[[registry.mirror]]\nlocation = "127.0.0.1:5000"\ninsecure = true\n'
    done
  } > /etc/containers/registries.conf.d/10-guest.conf
  sed -i 's/^timeout: .*/timeout: 120/' /etc/crictl.yaml # of crictl's own calls, ten times slower here
}

start_registry() {
  cat > /run/registry.json <<'JSON'
{ "version": "0.1", "log": { "level": "warn", "accesslog": { "disabled": true } },
  "storage": { "filesystem": { "rootdirectory": "/payload/registry/data" },
    "maintenance": { "uploadpurging": { "enabled": false }, "readonly": { "enabled": true } } },
  "http": { "addr": "127.0.0.1:5000", "secret": "tests need none" } }
JSON
  systemd-run --quiet --unit=registry --setenv=OTEL_TRACES_EXPORTER=none docker-registry serve /run/registry.json
}

# Of a machine that is slow by itself and may have little of the one it runs on.
be_patient() {
  mkdir -p /etc/systemd/system/berth.service.d
  printf '[Service]\nTimeoutStartSec=600\nTimeoutStopSec=600\nWatchdogSec=180\n' > /etc/systemd/system/berth.service.d/emulation.conf
}

# Under SELinux the payload has its labels from where it was made, and what is installed gets those of the policy, as
# it knows them of another runtime. A node's package would bring the same.
label() {
  [ -e /sys/fs/selinux/enforce ] || return 0
  chcon -t var_log_t /results
  for pair in /var/lib/berth:/var/lib/containerd /run/berth:/run/containerd /etc/berth:/etc/containerd; do
    echo "${pair%:*} ${pair#*:}" >> /etc/selinux/default/contexts/files/file_contexts.subs
  done
  mkdir -p /var/lib/berth /run/berth /var/log/pods
  restorecon -RF /etc/berth /etc/cni /etc/systemd/system /usr/local/bin /var/lib/berth /run/berth /var/log/pods
}

run() {
  install_berth
  label
  be_patient
  start_registry
  systemctl daemon-reload
  say "starting Berth"
  systemctl start berth.service || { systemctl status --no-pager berth.service; return 1; }
  say "Berth is $(systemctl is-active berth.service)"
  cd /root || return 1
  sh "$payload/command.sh"
}

run
code=$?
say "ended with $code"
journalctl --no-pager -o short-monotonic > /results/journal.log 2>&1
echo "$code" > /results/exit-code
exit 0
