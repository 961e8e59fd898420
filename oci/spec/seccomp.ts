import type { cri } from "../../cri-api/index.ts";
import { Code, CriError } from "../../cri-api/index.ts";
import { invalid, quote } from "./invalid.ts";
import type { OciSeccomp } from "./oci-types.ts";
import { defaultSeccompProfile } from "./seccomp-default.ts";
import type { SeccompTarget } from "./seccomp-default.ts";
import { resolveSeccompProfile } from "./seccomp-file.ts";
import type { SeccompProfile } from "./seccomp-file.ts";
import { cleanAbsolutePath } from "./text.ts";

/** What the CRI asked for: no filter, ours, or a file on the host. */
export type SeccompChoice =
  | { readonly kind: "unconfined" }
  | { readonly kind: "default" }
  | { readonly kind: "localhost"; readonly path: string };

type SecurityContext = Pick<cri.LinuxContainerSecurityContext, "privileged" | "seccomp" | "seccompProfilePath">;

/**
 * The structured field beats the deprecated string; nothing at all, like a privileged container, is unconfined.
 *
 * @throws {CriError} `InvalidArgument` for a profile that is none of the known ones or whose path is not absolute.
 */
export function chooseSeccomp(context: SecurityContext | null): SeccompChoice {
  if (!context || context.privileged) return { kind: "unconfined" };
  const { seccomp, seccompProfilePath } = context;
  if (!seccomp) return fromDeprecated(seccompProfilePath);
  switch (seccomp.profileType) {
    case "RuntimeDefault":
      return { kind: "default" };
    case "Unconfined":
      return { kind: "unconfined" };
    case "Localhost":
      return localhost(seccomp.localhostRef);
  }
}

function fromDeprecated(text: string): SeccompChoice {
  if (text === "" || text === "unconfined") return { kind: "unconfined" };
  if (text === "runtime/default" || text === "docker/default") return { kind: "default" };
  if (text.startsWith("localhost/")) return localhost(text.slice("localhost/".length));
  throw invalid(`unknown seccomp profile ${quote(text)}`);
}

function localhost(reference: string): SeccompChoice {
  if (reference === "") throw invalid("empty localhost seccomp profile");
  return { kind: "localhost", path: cleanAbsolutePath("localhost seccomp profile", reference) };
}

/** The profile file that the caller has to read and parse for this container; undefined where it needs none. */
export function localhostSeccompPath(config: cri.ContainerConfig): string | undefined {
  const choice = chooseSeccomp(config.linux?.securityContext ?? null);
  return choice.kind === "localhost" ? choice.path : undefined;
}

/**
 * The filter for config.json; undefined is none. On a kernel without seccomp RuntimeDefault runs without a filter, as
 * in CRI-O; a profile asked for by name does not.
 *
 * @throws {CriError} `FailedPrecondition` for a localhost profile that cannot be applied.
 */
export function buildSeccomp(
  choice: SeccompChoice,
  target: SeccompTarget,
  source: { readonly isSupported: boolean; readonly localhost: SeccompProfile | undefined },
): OciSeccomp | undefined {
  switch (choice.kind) {
    case "unconfined":
      return undefined;
    case "default":
      return source.isSupported ? defaultSeccompProfile(target) : undefined;
    case "localhost": {
      const failed = `localhost seccomp profile ${quote(choice.path)}`;
      if (!source.isSupported) throw new CriError(Code.FailedPrecondition, `${failed}: the kernel has no seccomp`);
      if (!source.localhost) throw new CriError(Code.FailedPrecondition, `${failed} was not loaded`);
      return resolveSeccompProfile(source.localhost, target);
    }
  }
}
