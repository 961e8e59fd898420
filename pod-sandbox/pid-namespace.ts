import { open } from "node:fs/promises";
import { Code, CriError } from "../cri-api/index.ts";
import type { cri } from "../cri-api/index.ts";
import { isAlive } from "../native/index.ts";
import type { ProcessIdentity } from "../native/index.ts";
import type { PidNamespace } from "../oci/index.ts";
import type { Host } from "./host.ts";
import type { SandboxIn } from "./sandbox.ts";

/** A container's PID namespace; the path in it holds good until this is disposed. */
export type HeldPidNamespace = AsyncDisposable & { readonly pid: PidNamespace };

/**
 * The PID namespace that a container asks for: its own, the host's, the pod's, or that of a container it is to look into.
 *
 * @throws {CriError} `InvalidArgument`, `NotFound`, or `FailedPrecondition` where the one to share has ended.
 */
export async function openPidNamespace(
  config: cri.ContainerConfig,
  sandbox: SandboxIn<"ready">,
  host: Pick<Host, "containers">,
): Promise<HeldPidNamespace> {
  const options = config.linux?.securityContext?.namespaceOptions;
  const mode = options?.pid ?? "POD";
  switch (mode) {
    case "CONTAINER":
      return held({ kind: "new" });
    case "NODE":
      return held({ kind: "host" });
    case "TARGET":
      return await holdNamespaceOf(targetOf(options?.targetId ?? "", sandbox, host));
    case "POD":
      if (sandbox.pause) return await holdNamespaceOf(sandbox.pause);
      throw new CriError(Code.InvalidArgument, `pod sandbox "${sandbox.id}" has no pod-wide PID namespace to share`);
  }
}

function targetOf(targetId: string, sandbox: SandboxIn<"ready">, host: Pick<Host, "containers">): ProcessIdentity {
  const target = host.containers.require(targetId);
  if (target.sandboxId !== sandbox.id) {
    throw new CriError(Code.InvalidArgument, `target container "${targetId}" is not in pod sandbox "${sandbox.id}"`);
  }
  if (target.state === "running") return target.init;
  throw new CriError(Code.FailedPrecondition, `target container "${targetId}" is not running`);
}

/**
 * By a descriptor, not by /proc/PID: when the process ends before the runtime looks, its pid may be one of the host's,
 * and the container would land among the host's processes.
 */
async function holdNamespaceOf(owner: ProcessIdentity): Promise<HeldPidNamespace> {
  const file = await open(`/proc/${owner.pid}/ns/pid`).catch(() => undefined);
  if (!file || !isAlive(owner)) {
    await file?.close();
    throw new CriError(Code.FailedPrecondition, "the process whose PID namespace is to be shared has ended");
  }
  return held({ kind: "path", path: `/proc/${process.pid}/fd/${file.fd}` }, () => file.close());
}

function held(pid: PidNamespace, release: () => Promise<void> = async () => undefined): HeldPidNamespace {
  return { pid, [Symbol.asyncDispose]: release };
}
