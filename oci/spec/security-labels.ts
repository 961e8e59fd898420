import type { cri } from "../../cri-api/index.ts";
import { Code, CriError } from "../../cri-api/index.ts";
import type { HostFacts } from "./input.ts";
import { invalid, quote } from "./invalid.ts";

type SecurityContext = Pick<
  cri.LinuxContainerSecurityContext,
  "privileged" | "selinuxOptions" | "apparmor" | "apparmorProfile"
>;

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

export interface SelinuxLabels {
  readonly process?: string;
  readonly mount?: string;
}

/** Labels from the request's options, with the usual defaults for what it leaves out; none without SELinux. */
export function buildSelinuxLabels(context: SecurityContext | null, isEnabled: boolean): SelinuxLabels {
  const options = context?.selinuxOptions;
  if (!isEnabled || !options) return {};
  const [user, role, type, level] = [
    part("user", options.user) || "system_u",
    part("role", options.role) || "system_r",
    part("type", options.type) || (context.privileged ? "spc_t" : "container_t"),
    part("level", options.level) || "s0",
  ];
  return { process: [user, role, type, level].join(":"), mount: `system_u:object_r:container_file_t:${level}` };
}

function part(field: string, text: string): string {
  const allowed = field === "level" ? /^[a-z0-9:.,-]{0,255}$/ : /^[A-Za-z0-9_.-]{0,255}$/;
  if (!allowed.test(text)) throw invalid(`SELinux ${field} ${quote(text)} is malformed`);
  return text;
}
