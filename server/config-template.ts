/** What `berth serve --config-default` prints and deploy/berth.toml holds: every key, with its default. */
export const configTemplate = `# Configuration of Berth. Every key is optional; the values below are the defaults.
# Files in berth.toml.d/ beside this one are read after it, in the order of their names: their tables are
# merged into these, their other values replace these. Check the result with: berth serve --config-check

# What outlives a reboot: images, layers, records of pods and containers.
root = "/var/lib/berth"

# What a reboot clears: namespaces, bundles, sockets. Not inside root, nor root in it.
state = "/run/berth"

# Where kubelet and crictl find Berth. Mode 0660, root:root.
socket = "/run/berth/berth.sock"

# debug (one line per call and child process), info, warn or error. JSON lines on stderr.
log_level = "info"

# Who writes cgroups, "cgroupfs" or "systemd". kubelet asks for it at its start and must agree.
cgroup_driver = "cgroupfs"

# The runtime handler of pods that name none: one of the tables of [runtimes].
default_runtime = "crun"

# The monitor that stays with each container while Berth restarts: a path, or a name to find in PATH.
monitor = "conmon"

# Images that kubelet's garbage collection shall keep: names, or full names with * for any text, as in
# "registry.k8s.io/pause:*". RemoveImage removes them all the same.
pinned_images = []

# Volumes that images declare: "mkdir" makes the missing ones in the container's root filesystem, "bind" gives each
# container a directory on disk, filled with what the image has there and removed with it, "ignore" does nothing.
image_volumes = "mkdir"

# A pull ends when for so many seconds no byte of a layer was downloaded or unpacked; there is no other limit to its time.
pull_progress_timeout_s = 300

# Which images may be pulled and run: a file as containers-policy.json(5) describes it. Empty: /etc/containers/policy.json,
# and without that file every image is accepted; a file that is named here must be there. <namespace>.json in the
# directory counts instead for the pods of that namespace. Edits count at once.
signature_policy = ""
signature_policy_dir = "/etc/berth/policies"

# Where signatures are found: files as containers-registries.d(5) describes them.
signature_sources_dir = "/etc/containers/registries.d"

# Where the files (.json, .yaml) of CDI devices are, read whenever a container asks for one; a later directory's
# device takes the place of an earlier one's.
cdi_spec_dirs = ["/etc/cdi", "/var/run/cdi"]

# One table per runtime handler (RuntimeClass.handler); path is a path, or a name to find in PATH.
# These two exist even if no file names them. A handler other than the default one whose program is missing is
# left out, with a warning.
[runtimes.crun]
path = "crun"

[runtimes.runc]
path = "runc"

[cni]
# Network configurations; the first file by name is used, unless default_network names a network.
conf_dir = "/etc/cni/net.d"
plugin_dirs = ["/opt/cni/bin", "/usr/lib/cni"]
cache_dir = "/var/lib/cni"
default_network = ""

# Prometheus metrics of the daemon, at http://address:port/metrics. Port 0 is off.
[metrics]
address = "127.0.0.1"
port = 0

# Where the URLs of Exec, Attach and PortForward lead; kubelet must reach it. Port 0 is any free port.
# With a certificate and its key (and a client CA, to ask clients for theirs) it speaks TLS.
[streaming]
address = "127.0.0.1"
port = 0
tls_cert = ""
tls_key = ""
tls_client_ca = ""
# A connection over which nothing moves for so long is closed; 0 is never.
idle_timeout_s = 14400

# How registries are reached, and as whom. All of it is read anew at each pull; a broken edit changes nothing, and is told
# in the log, in Status and by berth doctor. Where registries.conf says nothing of an image, hosts.toml does.
[registries]
# containers-registries.conf(5), version 2: mirrors, rewriting, blocked and insecure registries, short names.
conf_file = "/etc/containers/registries.conf"
conf_dir = "/etc/containers/registries.conf.d"
short_name_aliases_file = "/var/cache/containers/short-name-aliases.conf"
# containerd's certs.d, of HOST/hosts.toml; usually "/etc/containerd/certs.d". Empty: it is not read.
hosts_dir = ""
# HOST:PORT/*.crt are authorities beside the system's, NAME.cert with NAME.key a client certificate.
certs_dirs = ["/etc/containers/certs.d", "/etc/docker/certs.d"]
# Asked after a pull's own credentials and before $REGISTRY_AUTH_FILE, /run/containers/0/auth.json,
# ~/.config/containers/auth.json, ~/.docker/config.json and ~/.dockercfg.
auth_file = ""
# Where a kubelet credential provider leaves NAMESPACE-SHA256.json for one pull. Empty: none are looked for.
namespaced_auth_dir = "/etc/crio/auth"
`;
