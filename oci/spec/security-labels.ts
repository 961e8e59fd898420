import type { cri } from "../../cri-api/index.ts";
import { Code, CriError } from "../../cri-api/index.ts";
import type { HostFacts } from "./input.ts";
import { invalid, quote } from "./invalid.ts";

type SecurityContext = Pick<cri.LinuxContainerSecurityContext, "privileged" | "apparmor" | "apparmorProfile">;

/**
 * The AppArmor profile for the process; undefined is none. Without one in the request, or with RuntimeDefault, it is
 * the host's default profile where one is loaded. Privileged containers have none.
 *
 * @throws {CriError} `InvalidArgument` for a localhost profile without a name, `FailedPrecondition` for one on a host
 * without AppArmor.
 */
export function buildApparmorProfile(
  context: SecurityContext | null,
  apparmor: HostFacts["apparmor"],
): string | undefined {
  const asked = askedProfile(context);
  if (asked.kind === "localhost") {
    if (asked.name === "") throw invalid("empty localhost AppArmor profile is forbidden");
    if (!/^[A-Za-z0-9_./:-]{1,255}$/.test(asked.name)) {
      throw invalid(`AppArmor profile ${quote(asked.name)} is malformed`);
    }
    if (!apparmor) {
      throw new CriError(Code.FailedPrecondition, `AppArmor profile ${quote(asked.name)}: this host has no AppArmor`);
    }
  }
  if (!apparmor || context?.privileged) return undefined;
  if (asked.kind === "localhost") return asked.name;
  return asked.kind === "unconfined" ? "unconfined" : apparmor.defaultProfile;
}

type AskedProfile = { readonly kind: "default" | "unconfined" } | { readonly kind: "localhost"; readonly name: string };

function askedProfile(context: SecurityContext | null): AskedProfile {
  const profile = context?.apparmor;
  if (!profile) return askedByString(context?.apparmorProfile ?? "");
  switch (profile.profileType) {
    case "RuntimeDefault":
      return { kind: "default" };
    case "Unconfined":
      return { kind: "unconfined" };
    case "Localhost":
      return { kind: "localhost", name: withoutPrefix(profile.localhostRef) };
  }
}

function askedByString(text: string): AskedProfile {
  if (text === "" || text === "runtime/default") return { kind: "default" };
  if (text === "unconfined") return { kind: "unconfined" };
  if (text.startsWith("localhost/")) return { kind: "localhost", name: withoutPrefix(text) };
  throw invalid(`unknown AppArmor profile ${quote(text)}`);
}

function withoutPrefix(name: string): string {
  return name.startsWith("localhost/") ? name.slice("localhost/".length) : name;
}

/** The contexts that the host's policy has for containers, each `user:role:type:level`. */
export interface SelinuxDefaults {
  readonly process: string;
  readonly file: string;
}

/** What a container's processes run as, and what the files are labelled that they may write. */
export type SelinuxLabels = SelinuxDefaults;

type SelinuxSandbox = Pick<cri.PodSandboxConfig, "linux">;
type SelinuxContext = Pick<cri.LinuxContainerSecurityContext, "privileged" | "selinuxOptions" | "namespaceOptions">;

/** What is confined by nothing but its user's own rights, as a container is that may see the host's processes. */
const unconfinedType = "spc_t";
const noCategories = "s0";

/**
 * The labels of a container, or of the pod itself where `context` is null: what its own options say, then the pod's,
 * then the policy. All of a pod share a level, and with it their files, the IPC namespace and its shared memory.
 * Privileged containers and those with the host's PID or IPC namespace are `spc_t` and of no category, but their own
 * files are the pod's.
 *
 * @param host The policy's defaults, and the level that this pod alone has; without a policy there are no labels.
 * @throws {CriError} `InvalidArgument` for a part that is malformed.
 */
export function buildSelinuxLabels(
  sandbox: SelinuxSandbox,
  context: SelinuxContext | null,
  host: { readonly defaults?: SelinuxDefaults | undefined; readonly level?: string | undefined },
): SelinuxLabels | undefined {
  if (!host.defaults) return undefined;
  const pod = sandbox.linux?.securityContext;
  const asked = (field: keyof cri.SELinuxOption): string =>
    part(field, context?.selinuxOptions?.[field] || pod?.selinuxOptions?.[field] || "");
  const [user, role, type, level] = splitContext(host.defaults.process);
  const [fileUser, fileRole, fileType] = splitContext(host.defaults.file);
  const processType = asked("type") || (isUnconfined(sandbox, context) ? unconfinedType : type);
  const fileLevel = asked("level") || (host.level ?? level);
  const processLevel = asked("level") || (processType === unconfinedType ? noCategories : fileLevel);
  return {
    process: [asked("user") || user, asked("role") || role, processType, processLevel].join(":"),
    file: [fileUser, fileRole, fileType, fileLevel].join(":"),
  };
}

function isUnconfined(sandbox: SelinuxSandbox, context: SelinuxContext | null): boolean {
  const pod = sandbox.linux?.securityContext;
  if (pod?.namespaceOptions?.ipc === "NODE") return true;
  return (context?.privileged ?? false) || (context ?? pod)?.namespaceOptions?.pid === "NODE";
}

/** Whether processes with these labels may do with any file what they like: then no file is labelled for them. */
export function isUnconfinedBySelinux({ process }: SelinuxLabels): boolean {
  return splitContext(process)[2] === unconfinedType;
}

function splitContext(context: string): readonly [string, string, string, string] {
  const [user = "", role = "", type = "", ...level] = context.split(":");
  return [user, role, type, level.join(":")];
}

const sensitivity = String.raw`s\d{1,2}(?::c\d{1,4}(?:[.,]c\d{1,4})*)?`;
const levelPattern = new RegExp(`^(?:${sensitivity}(?:-${sensitivity})?)?$`);

function part(field: keyof cri.SELinuxOption, text: string): string {
  const isFine = text.length < 256 && (field === "level" ? levelPattern : /^[A-Za-z0-9_.-]*$/).test(text);
  if (!isFine) throw invalid(`SELinux ${field} ${quote(text)} is malformed`);
  return text;
}
