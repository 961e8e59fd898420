import type { Config } from "../config.ts";
import type { Finding } from "./finding.ts";
import type { Machine } from "./machine.ts";

const packages: Readonly<Record<string, string>> = { crun: "crun", runc: "runc", conmon: "conmon" };

function installCure(program: string): { cure?: string } {
  const name = packages[program.split("/").at(-1) ?? ""];
  return name === undefined ? {} : { cure: `apt-get install ${name}` };
}

interface Program {
  readonly subject: string;
  readonly name: string;
  /** Nothing runs without it. */
  readonly isNeeded: boolean;
  /** Runs it, and says what it is. */
  describe(path: string): Promise<string>;
}

async function checkProgram(machine: Machine, program: Program): Promise<Finding> {
  const { subject, name, isNeeded } = program;
  const level = isNeeded ? "fail" : "warn";
  const path = await machine.findProgram(name);
  if (path === undefined) {
    const text = `"${name}" is not there${isNeeded ? "" : "; this handler will be left out"}`;
    return { level, subject, text, ...installCure(name) };
  }
  try {
    return { level: "ok", subject, text: `${path}, ${await program.describe(path)}` };
  } catch (thrown) {
    const reason = thrown instanceof Error ? thrown.message : String(thrown);
    return { level, subject, text: `${path} does not run: ${reason}` };
  }
}

async function describeRuntime(machine: Machine, path: string): Promise<string> {
  const { name, version, features } = await machine.runtimeFacts(path);
  const lacking = [
    ...(features.userNamespaces ? [] : ["user namespaces (crun from 1.9 or runc from 1.2, Linux from 5.19)"]),
    ...(features.recursiveReadOnlyMounts ? [] : ["recursive read-only mounts (crun from 1.4 or runc from 1.1)"]),
  ];
  return `${name} ${version}${lacking.length === 0 ? "" : `, without ${lacking.join(" and ")}`}`;
}

/** Runtimes with their abilities, and the monitor. */
export async function checkPrograms(machine: Machine, config: Config): Promise<Finding[]> {
  const runtimes = Object.entries(config.runtimes).map(([handler, { path }]) =>
    checkProgram(machine, {
      subject: `runtime ${handler}`,
      name: path,
      isNeeded: handler === config.defaultRuntime,
      describe: (program) => describeRuntime(machine, program),
    }),
  );
  const monitor = {
    subject: "monitor",
    name: config.monitor,
    isNeeded: true,
    describe: (program: string) => machine.versionOf(program),
  };
  return await Promise.all([...runtimes, checkProgram(machine, monitor)]);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

/** The plugin types of a network configuration, with those of their IPAM; undefined for what is no such file. */
function pluginTypesOf(text: string | undefined): string[] | undefined {
  try {
    const list: unknown = JSON.parse(text ?? "");
    if (!isRecord(list)) return undefined;
    const plugins: unknown[] = Array.isArray(list["plugins"]) ? list["plugins"] : [list];
    return plugins.flatMap((plugin) => {
      if (!isRecord(plugin)) return [];
      const ipam = isRecord(plugin["ipam"]) ? plugin["ipam"]["type"] : undefined;
      return [plugin["type"], ipam].filter((type) => typeof type === "string");
    });
  } catch {
    return undefined;
  }
}

async function checkHostPorts(machine: Machine, types: readonly string[]): Promise<Finding[]> {
  if (!types.includes("portmap")) return [];
  const tools = await Promise.all(["iptables", "nft"].map((tool) => machine.findProgram(tool)));
  const found = tools.find((tool) => tool !== undefined);
  if (found !== undefined) return [{ level: "ok", subject: "host ports", text: found }];
  const text = "the portmap plugin needs iptables or nft";
  return [{ level: "warn", subject: "host ports", text, cure: "apt-get install iptables" }];
}

/** The network that pods will get, and whether its plugins are there. */
export async function checkNetwork(machine: Machine, config: Config): Promise<Finding[]> {
  const { confDir, pluginDirs } = config.cni;
  const files = (await machine.listNames(confDir)).filter((name) => /\.(?:conflist|conf|json)$/.test(name));
  const [first] = files;
  if (first === undefined) {
    const text = `no configuration in ${confDir}; only pods on the host's network will run`;
    return [{ level: "warn", subject: "network", text, cure: `cp deploy/10-berth-bridge.conflist ${confDir}/` }];
  }
  const types = pluginTypesOf(await machine.readText(`${confDir}/${first}`));
  if (types === undefined) return [{ level: "warn", subject: "network", text: `${confDir}/${first} is not JSON` }];
  const present = new Set((await Promise.all(pluginDirs.map((directory) => machine.listNames(directory)))).flat());
  const missing = types.filter((type) => !present.has(type));
  const subject = "network";
  if (missing.length > 0) {
    const text = `plugins of ${first} are in none of ${pluginDirs.join(", ")}: ${missing.join(", ")}`;
    return [{ level: "warn", subject, text, cure: "apt-get install containernetworking-plugins" }];
  }
  return [
    { level: "ok", subject, text: `${first} with ${types.join(", ")}` },
    ...(await checkHostPorts(machine, types)),
  ];
}

/** What operators have written of registries: a broken file is not used, and what it said is not known at a start. */
export async function checkRegistries(machine: Machine, config: Config): Promise<Finding[]> {
  const subject = "registries";
  const problems = await machine.registryProblems(config.registries);
  if (problems.length === 0) return [{ level: "ok", subject, text: "all files on them can be used" }];
  return problems.map((text) => ({ level: "fail", subject, text, cure: "mend the file; no restart is needed" }));
}
