import { join } from "node:path";
import type { Config } from "../config.ts";
import type { Finding } from "./finding.ts";
import type { FileSystem, Machine } from "./machine.ts";

/** kubelet's own limits: below them it evicts pods to make room. */
const wantedFreeShare = 0.15;
const wantedFreeInodeShare = 0.05;
const tmpfsMagic = 0x0102_1994;
const ramfsMagic = 0x8584_58f6;

function gigabytes(bytes: number): string {
  return `${(bytes / 2 ** 30).toFixed(1)} GiB`;
}

function checkRoom(path: string, disk: FileSystem): Finding {
  const subject = "disk";
  const cure = "remove images that no container uses, or give it a larger disk";
  if (disk.freeBytes < disk.totalBytes * wantedFreeShare) {
    const text = `${gigabytes(disk.freeBytes)} of ${gigabytes(disk.totalBytes)} are free for "${path}"; kubelet evicts below 15 %`;
    return { level: "warn", subject, text, cure };
  }
  if (disk.freeInodes < disk.totalInodes * wantedFreeInodeShare) {
    const text = `${disk.freeInodes} of ${disk.totalInodes} inodes are free for "${path}"; kubelet evicts below 5 %`;
    return { level: "warn", subject, text, cure };
  }
  return { level: "ok", subject, text: `${gigabytes(disk.freeBytes)} free for "${path}"` };
}

/** Room for images and containers, and whether a reboot clears what it is meant to clear. */
export async function checkDisk(machine: Machine, config: Config): Promise<Finding[]> {
  const [root, state] = await Promise.all([machine.fileSystemOf(config.root), machine.fileSystemOf(config.state)]);
  const findings = root === undefined ? [] : [checkRoom(config.root, root)];
  if (state !== undefined && state.type !== tmpfsMagic && state.type !== ramfsMagic) {
    const text = `state "${config.state}" is not on a tmpfs; after a reboot it holds names of things that are gone`;
    findings.push({ level: "warn", subject: "disk", text, cure: "put it on a tmpfs, as /run is with systemd" });
  }
  return findings;
}

async function checkLeftMounts(machine: Machine, config: Config): Promise<Finding[]> {
  const below = [`${config.root}/`, `${config.state}/`];
  const left = (await machine.mounts()).filter(({ mountPoint }) => below.some((start) => mountPoint.startsWith(start)));
  if (left.length === 0) return [];
  const text = `no daemon runs, and ${left.length} mounts of its pods are there: they go on, or wait for its next start`;
  return [{ level: "ok", subject: "state", text }];
}

/** The socket, and what a daemon before left: pods that wait for the next one, and what it could not read. */
export async function checkState(machine: Machine, config: Config): Promise<Finding[]> {
  const directories = ["pod-sandboxes", "containers", "images"].map((name) => join(config.root, name));
  const names = await Promise.all(directories.map((directory) => machine.listNames(directory)));
  const corrupt = directories.flatMap((directory, index) =>
    (names[index] ?? []).filter((name) => name.endsWith(".corrupt")).map((name) => join(directory, name)),
  );
  const taken = await machine.whyTaken(config.socket);
  const findings: Finding[] =
    taken === undefined
      ? [
          { level: "ok", subject: "socket", text: `"${config.socket}" is free` },
          ...(await checkLeftMounts(machine, config)),
        ]
      : [{ level: taken.includes("is listening") ? "ok" : "fail", subject: "socket", text: taken }];
  if (corrupt.length > 0) {
    const text = `records that could not be read were put aside; what they told of was taken down: ${corrupt.join(", ")}`;
    findings.push({ level: "warn", subject: "state", text, cure: `look why, then: rm ${corrupt.join(" ")}` });
  }
  return findings;
}
