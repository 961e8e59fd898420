import { readdir, readFile, readlink } from "node:fs/promises";
import path from "node:path";
import { runCommand } from "./run-command.ts";
import type { Workspace } from "./workspace.ts";

/** What exists on the machine because of one workspace, by kind; each entry is a line a person can act on. */
export type Traces = Readonly<Record<(typeof kinds)[number], readonly string[]>>;
const kinds = ["mounts", "namespaces", "cgroups", "processes", "links", "firewall", "leases", "files"] as const;

interface Scope {
  readonly workspace: Workspace;
  /** Ids of pods and containers: anything named after one of them is ours, wherever it is. */
  readonly ids: ReadonlySet<string>;
}

/**
 * Looks for everything that a daemon and its pods can leave. Bound to the workspace's folder, its cgroup parent, the
 * ids and this process's network namespace, so that other work on the same machine does not disturb the answer.
 */
export async function findTraces(scope: Scope): Promise<Traces> {
  const [mounts, namespaces, cgroups, processes, links, firewall, leases, files] = await Promise.all([
    findMounts(scope),
    findNamespaces(scope),
    findCgroups(scope),
    findProcesses(scope),
    listLinks(),
    listFirewall(),
    listTree(scope.workspace.ipamDir, (name) => !/\/(?:|lock|last_reserved_ip\.\d+)$/u.test(name)),
    findFiles(scope),
  ]);
  return { mounts, namespaces, cgroups, processes, links, firewall, leases, files };
}

/** The lines of `after` that `before` did not have, each with its kind; empty when nothing was left. */
export function compareTraces(before: Traces, after: Traces): readonly string[] {
  return kinds.flatMap((kind) => {
    const known = new Set(before[kind]);
    return after[kind].filter((line) => !known.has(line)).map((line) => `${kind}: ${line}`);
  });
}

/** A process needs a moment to die, and longer on a machine that does much else. */
const patienceMs = 20_000;

interface LeakSearch {
  /** What is there on purpose. */
  readonly isExpected?: (line: string) => boolean;
}

/** Looks again for a while as long as there is something; returns what is left. */
export async function waitForNoLeaks(
  before: Traces,
  scope: Scope,
  search: LeakSearch = {},
): Promise<readonly string[]> {
  const deadline = Date.now() + patienceMs;
  for (;;) {
    const left = compareTraces(before, await findTraces(scope)).filter((line) => search.isExpected?.(line) !== true);
    if (left.length === 0 || Date.now() > deadline) return left;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

function isOurs(scope: Scope, text: string): boolean {
  if (text.includes(`${scope.workspace.directory}/`)) return true;
  if (text.includes(`${scope.workspace.cgroupParent}/`)) return true;
  return [...scope.ids].some((id) => text.includes(id));
}

async function findMounts(scope: Scope): Promise<string[]> {
  const table = await readFile("/proc/self/mountinfo", "utf8");
  // Mount and peer group numbers are reused; the place and the source tell what it is.
  return table.split("\n").flatMap((line) => {
    const [fields = "", source = ""] = line.split(" - ");
    const [, , , root = "", mountPoint = ""] = fields.split(" ");
    return isOurs(scope, line) ? [`${mountPoint} (${source.split(" ", 2).join(" ")}, root ${root})`] : [];
  });
}

async function findNamespaces(scope: Scope): Promise<string[]> {
  const names = await readdir("/run/netns").catch(() => []);
  return names.filter((name) => isOurs(scope, name)).map((name) => `/run/netns/${name}`);
}

async function findCgroups(scope: Scope): Promise<string[]> {
  const found: string[] = [];
  const walk = async (directory: string): Promise<void> => {
    const entries = await readdir(directory, { withFileTypes: true }).catch(() => []);
    for (const entry of entries) {
      if (!entry.isDirectory()) continue;
      const child = path.join(directory, entry.name);
      if (isOurs(scope, child)) found.push(child);
      await walk(child);
    }
  };
  await walk("/sys/fs/cgroup");
  return found;
}

async function findProcesses(scope: Scope): Promise<string[]> {
  const network = await readlink("/proc/self/ns/net");
  const names = (await readdir("/proc")).filter((name) => /^\d+$/u.test(name));
  const lines = await Promise.all(names.map((pid) => describeIfOurs(scope, network, pid)));
  return lines.filter((line) => line !== undefined);
}

/** Ours is what runs in this network namespace, names a thing of ours, or lives in a cgroup or on files of ours. */
async function describeIfOurs(scope: Scope, network: string, pid: string): Promise<string | undefined> {
  const read = (name: string): Promise<string> => readFile(`/proc/${pid}/${name}`, "utf8").catch(() => "");
  const stat = await read("stat");
  // Fields after the command, which may itself hold blanks and brackets: state, then ppid; starttime is the 20th.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const isOfTestRunner = fields[1] === String(process.pid) || fields[1] === String(process.ppid);
  if (stat === "" || fields[0] === "Z" || isOfTestRunner) return undefined;
  const commandLine = (await read("cmdline")).replaceAll("\0", " ").trim();
  const cgroups = await read("cgroup");
  const isFound =
    (await readlink(`/proc/${pid}/ns/net`).catch(() => "")) === network ||
    isOurs(scope, commandLine) ||
    isOurs(scope, cgroups) ||
    isOnOurFiles(scope, await read("mountinfo"));
  if (!isFound) return undefined;
  const container = /berth-[0-9a-f]{64}/u.exec(cgroups)?.[0];
  const name = commandLine || stat.slice(0, stat.lastIndexOf(")") + 1);
  return `${pid} started ${fields[19]}: ${name}${container ? ` in ${container}` : ""}`;
}

/** A container sees our folders at places of its own; the host sees them where they are. */
function isOnOurFiles(scope: Scope, mountTable: string): boolean {
  const { directory } = scope.workspace;
  return mountTable
    .split("\n")
    .some((line) => line.includes(directory) && !(line.split(" ")[4] ?? "").startsWith(directory));
}

async function listLinks(): Promise<string[]> {
  const links: unknown = JSON.parse(await runCommand(["ip", "-json", "link", "show"]));
  if (!Array.isArray(links)) return [];
  return links.map((link: { ifname?: string; link?: string }) => `${link.ifname ?? "?"} ${link.link ?? ""}`.trim());
}

async function listFirewall(): Promise<string[]> {
  const ruleset = await runCommand(["nft", "list", "ruleset"]);
  let place = "";
  return ruleset.split("\n").flatMap((line) => {
    const text = line.trim().replace(/counter packets \d+ bytes \d+/u, "counter");
    if (text.startsWith("table ") || text.startsWith("chain ")) place = text.replace(" {", "");
    return text === "" || text === "}" || text.startsWith("#") ? [] : [`${place}: ${text}`];
  });
}

async function findFiles(scope: Scope): Promise<string[]> {
  const { root, state, temporary, cniCacheDir } = scope.workspace;
  const own = await Promise.all([root, state, temporary, cniCacheDir].map((directory) => listTree(directory)));
  const elsewhere = ["/run", "/tmp", "/var/tmp", "/run/crun", "/run/runc", "/run/conmon", "/var/lib/cni", "/dev/shm"];
  const named = await Promise.all(
    elsewhere.map(async (directory) =>
      (await readdir(directory).catch(() => []))
        .filter((name) => [...scope.ids].some((id) => name.includes(id)))
        .map((name) => path.join(directory, name)),
    ),
  );
  return [...own, ...named].flat();
}

async function listTree(directory: string, keep: (name: string) => boolean = () => true): Promise<string[]> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true }).catch(() => []);
  return entries
    .map((entry) => path.join(entry.parentPath, entry.name) + (entry.isDirectory() ? "/" : ""))
    .filter((name) => keep(name));
}
