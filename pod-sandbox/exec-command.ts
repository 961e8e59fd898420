import { Code, CriError } from "../cri-api/index.ts";
import type { ExecCommand } from "../oci/index.ts";
import { readSpec } from "./bundle.ts";
import { imageNameOf } from "./container.ts";
import type { ContainerIn } from "./container.ts";
import type { Host } from "./host.ts";
import { containerPathsOf } from "./layout.ts";
import { hostUserOf } from "./user-namespace.ts";

/** A command to be run as a running container's own process is. @throws {CriError} `FailedPrecondition` for one that goes. */
export async function execCommandOf(
  container: ContainerIn<"running">,
  command: { readonly args: readonly string[]; readonly terminal: boolean },
  host: Host,
): Promise<ExecCommand> {
  const { bundle } = containerPathsOf(host.layout, container.id);
  const spec = await readSpec(bundle);
  if (!spec) throw new CriError(Code.FailedPrecondition, `container "${container.id}" is being removed`);
  const { process } = spec;
  const sandbox = host.sandboxes.get(container.sandboxId);
  return {
    id: container.id,
    bundle,
    process: { ...process, ...command },
    imageName: imageNameOf(container),
    ...(sandbox ? hostUserOf(sandbox.config, process.user) : {}),
  };
}
