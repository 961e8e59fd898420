import { writeFile } from "node:fs/promises";
import path from "node:path";
import { runCommand, tryCommand } from "./run-command.ts";
import type { Workspace } from "./workspace.ts";

/** Where Debian's containernetworking-plugins are. */
export const pluginDirectory = "/usr/lib/cni";
export const podSubnet = "10.88.0.0/16";

/** A conflist as an operator would write it: a bridge, addresses from host-local, host ports by portmap. */
export async function writeConflist(workspace: Workspace): Promise<void> {
  const bridge = {
    type: "bridge",
    bridge: workspace.bridge,
    isGateway: true,
    ipMasq: true,
    hairpinMode: true,
    ipam: {
      type: "host-local",
      dataDir: workspace.ipamDir,
      ranges: [[{ subnet: podSubnet }]],
      routes: [{ dst: "0.0.0.0/0" }],
    },
  };
  const portmap = { type: "portmap", capabilities: { portMappings: true } };
  const conflist = { cniVersion: "1.0.0", name: "berth-e2e", plugins: [bridge, portmap] };
  await writeFile(path.join(workspace.cniConfDir, "10-berth.conflist"), JSON.stringify(conflist, null, 2));
}

/** Removes what the CNI plugins keep on a node by design: the bridge and portmap's own base chains. */
export async function removeNodeNetwork(workspace: Workspace): Promise<void> {
  await tryCommand(["ip", "link", "delete", workspace.bridge]);
  await runCommand(["nft", "flush", "ruleset"]);
}

/** Whether a trace stays on a node by design: the bridge, portmap's base chains, the filters that crun has built. */
export function isOfNode(workspace: Workspace, line: string): boolean {
  if (line === `links: ${workspace.bridge}`) return true;
  if (line.startsWith(`files: ${workspace.state}/runtimes/`) && line.includes("/root/.cache/")) return true;
  return line.startsWith("firewall: ") && !/10\.88\.|CNI-DN-|CNI-[0-9a-f]{24}/u.test(line);
}
