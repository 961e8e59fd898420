import { readFileBounded } from "../native/index.ts";
import type { SelinuxDefaults } from "./spec/security-labels.ts";

const maxFileBytes = 64 * 1024;
/** What every policy with containers has had since container-selinux gave them these names. */
const usualDefaults: SelinuxDefaults = {
  process: "system_u:system_r:container_t:s0",
  file: "system_u:object_r:container_file_t:s0",
};

/**
 * The contexts of containers in the policy that this kernel enforces, or would; undefined without SELinux or a policy.
 *
 * @see https://man7.org/linux/man-pages/man5/lxc_contexts.5.html (libselinux)
 */
export async function readSelinuxDefaults(): Promise<SelinuxDefaults | undefined> {
  const [enforce, own] = await Promise.all([read("/sys/fs/selinux/enforce"), read("/proc/self/attr/current")]);
  if (enforce === "" || !own.includes(":")) return undefined; // before a policy is loaded all is "kernel"
  const policy = /^SELINUXTYPE=([A-Za-z0-9_-]+)\s*$/m.exec(await read("/etc/selinux/config"))?.[1];
  return policy === undefined
    ? usualDefaults
    : parseContainerContexts(await read(`/etc/selinux/${policy}/contexts/lxc_contexts`));
}

/** Reads lines such as `process = "system_u:system_r:container_t:s0"`; what is not there has its usual name. */
export function parseContainerContexts(text: string): SelinuxDefaults {
  const valueOf = (key: keyof SelinuxDefaults): string => {
    const line = new RegExp(String.raw`^\s*${key}\s*=\s*"([^"\s:]+:[^"\s:]+:[^"\s:]+:[^"\s]+)"\s*$`, "m");
    return line.exec(text)?.[1] ?? usualDefaults[key];
  };
  return { process: valueOf("process"), file: valueOf("file") };
}

async function read(path: string): Promise<string> {
  const bytes = await readFileBounded(path, maxFileBytes).catch(() => undefined);
  return bytes?.toString("utf8") ?? "";
}
