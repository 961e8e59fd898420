#!/bin/sh
# Runs a command in a network namespace of its own with loopback up, so that ports, bridges and firewall rules stay
# inside and die with it. Mounts, cgroups and processes are the machine's: "ip netns exec" would hide the cgroups.
set -eu
exec unshare --net -- sh -c 'ip link set lo up && exec "$@"' sh "$@"
