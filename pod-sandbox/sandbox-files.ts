import { mkdir } from "node:fs/promises";
import type { Call } from "../cri-api/index.ts";
import { mountTmpfs, readFileBounded, removeTree, unmount, writeFileAtomically } from "../native/index.ts";
import { resolvConfText } from "../oci/index.ts";
import type { Host } from "./host.ts";
import { exists } from "./layout.ts";
import type { SandboxPaths } from "./layout.ts";
import { hostnameOf, namespaceOptionsOf } from "./sandbox.ts";
import type { SandboxIn } from "./sandbox.ts";
import { labelFiles, selinuxLabelsOf } from "./selinux.ts";
import { teardownDeadlineMs } from "./undo.ts";
import { giveToPodRoot, podRootOf } from "./user-namespace.ts";

const shmSizeBytes = 64 * 1024 * 1024;
/** Of /etc/hosts, which ad blockers fill. */
const maxHostFileBytes = 16 * 1024 * 1024 - 1;

/** Makes what the pod's containers share as files: resolv.conf, hostname, hosts, and /dev/shm with the IPC namespace. */
export async function writeSandboxFiles(
  call: Call,
  sandbox: SandboxIn<"creating">,
  paths: SandboxPaths,
  host: Pick<Host, "facts">,
): Promise<void> {
  const { config } = sandbox;
  const labels = selinuxLabelsOf(host, sandbox);
  const dns = config.dnsConfig;
  const resolvConf = dns ? resolvConfText(dns) : "";
  const contents = new Map([
    [paths.resolvConf, resolvConf || ((await readFileBounded("/etc/resolv.conf", maxHostFileBytes)) ?? "")],
    [paths.hostname, `${hostnameOf(sandbox)}\n`],
    [paths.hosts, (await readFileBounded("/etc/hosts", maxHostFileBytes)) ?? "127.0.0.1\tlocalhost\n::1\tlocalhost\n"],
  ]);
  const asFile = { mode: 0o644, survives: "kill" } as const;
  await Promise.all([...contents].map(([path, text]) => writeFileAtomically(path, text, asFile)));
  const files = [...contents.keys()];
  await giveToPodRoot(config, files);
  await labelFiles(call.signal, labels, files);
  if (namespaceOptionsOf(config).ipc === "NODE") return;
  await mkdir(paths.shm, { mode: 0o1777 });
  const root = podRootOf(config);
  const options = [
    ...(root ? [`uid=${root.uid}`, `gid=${root.gid}`] : []),
    ...(labels ? [`context="${labels.file}"`] : []),
  ];
  await mountTmpfs({ target: paths.shm, sizeBytes: shmSizeBytes, mode: 0o1777, options });
}

/** Unmounts and deletes everything of `writeSandboxFiles`, and the directory. Idempotent. */
export async function removeSandboxFiles(paths: SandboxPaths): Promise<void> {
  if (!(await exists(paths.directory))) return;
  await unmount(paths.shm, { signal: AbortSignal.timeout(teardownDeadlineMs) });
  await removeTree(paths.directory);
}
