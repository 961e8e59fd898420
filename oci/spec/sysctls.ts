import { invalid, quote } from "./invalid.ts";
import { assertNoControlCharacters } from "./text.ts";

/** Which namespaces of its own a pod has: only in those may a sysctl be set (CVE-2022-0532). */
export interface SysctlFacts {
  readonly hasNetworkNamespace: boolean;
  readonly hasIpcNamespace: boolean;
}

const ipcSysctls = /^(?:kernel\.(?:shm[a-z_]*|msg[a-z_]*|sem|sem_next_id)|fs\.mqueue\.[a-z_]+)$/;
const netSysctls = /^net(?:\.[A-Za-z0-9_@-]+)+$/;
const maxNameLength = 255;
const maxValueLength = 4096;

/**
 * Checks a pod's sysctls against the list of those that a namespace keeps to itself, and returns them with dots as
 * separators (`net/ipv4/ip_forward` is the same name). One outside the list is an error, not a warning: whoever set it
 * relies on it, and written anywhere else it would change the node (CVE-2022-0811).
 *
 * @throws {CriError} `InvalidArgument` naming the sysctl.
 */
export function validateSysctls(
  sysctls: Readonly<Record<string, string>>,
  facts: SysctlFacts,
): Readonly<Record<string, string>> {
  return Object.fromEntries(
    Object.entries(sysctls).map(([key, value]) => {
      const name = canonicalName(key);
      checkNamespace(name, facts);
      assertNoControlCharacters(`sysctl ${name} value`, value);
      if (value.length > maxValueLength) throw invalid(`sysctl ${name} value is longer than ${maxValueLength} bytes`);
      return [name, value];
    }),
  );
}

function canonicalName(key: string): string {
  const usesSlashes = key.includes("/");
  if (key.length > maxNameLength || (usesSlashes && key.includes("."))) {
    throw invalid(`sysctl ${quote(key)} is malformed`);
  }
  return usesSlashes ? key.replaceAll("/", ".") : key;
}

function checkNamespace(name: string, facts: SysctlFacts): void {
  const isIpc = ipcSysctls.test(name);
  if (!isIpc && !netSysctls.test(name)) throw invalid(`sysctl ${quote(name)} is not one that a pod may set`);
  if (isIpc && !facts.hasIpcNamespace) {
    throw invalid(`sysctl ${quote(name)} cannot be set in a pod that uses the host's IPC namespace`);
  }
  if (!isIpc && !facts.hasNetworkNamespace) {
    throw invalid(`sysctl ${quote(name)} cannot be set in a pod that uses the host's network namespace`);
  }
}
