import type { Call, cri, Init } from "../cri-api/index.ts";
import { removeContainerRecord } from "./container-remove.ts";
import type { Host } from "./host.ts";
import { sandboxPathsOf } from "./layout.ts";
import { removeSandboxFiles } from "./sandbox-files.ts";
import { takeDown } from "./sandbox-stop.ts";
import { settleTogether } from "./undo.ts";

/** Stops a pod sandbox if need be and drops it with all its containers. Idempotent; an unknown id succeeds. */
export async function removePodSandbox(
  call: Call,
  request: cri.RemovePodSandboxRequest,
  host: Host,
): Promise<Init<cri.RemovePodSandboxResponse>> {
  const sandbox = host.sandboxes.find(request.podSandboxId);
  if (sandbox) await host.operations.run(sandbox.id, call.signal, () => dropSandbox(sandbox.id, host));
  return {};
}

async function dropSandbox(id: string, host: Host): Promise<void> {
  await takeDown(id, host);
  const containers = host.containers.all().filter((container) => container.sandboxId === id);
  await settleTogether(containers.map((container) => removeContainerRecord(container.id, host)));
  await removeSandboxFiles(sandboxPathsOf(host.layout, id));
  await host.sandboxes.remove(id);
  host.log.info({ podSandboxId: id }, "pod sandbox removed");
}
