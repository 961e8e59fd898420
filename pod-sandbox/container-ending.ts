import type { ContainerExit, OomKill } from "../oci/index.ts";
import { advanceContainer } from "./container.ts";
import type { Container, ContainerIn, Ending, LiveContainer } from "./container.ts";

/**
 * The record of a live container once it has ended: never before it started, as the times have it where the system's
 * clock was set back.
 */
export function endContainer(container: LiveContainer, ending: Ending): ContainerIn<"exited"> {
  const { init: _init, monitor: _monitor, killAtNs: _killAtNs, wantedResources: _wanted, ...kept } = container;
  const finishedAtNs = ending.finishedAtNs < ending.startedAtNs ? ending.startedAtNs : ending.finishedAtNs;
  const exited = { ...kept, ...ending, finishedAtNs, state: "exited" } as const;
  return container.state === "created" ? advanceContainer(container, exited) : advanceContainer(container, exited);
}

/** How a container ended whose process did. */
export function endingOf(container: LiveContainer, exit: ContainerExit): Ending {
  return {
    startedAtNs: container.state === "running" ? container.startedAtNs : 0n,
    finishedAtNs: exit.finishedAtNs,
    exitCode: exit.exitCode,
    reason: exitReason(exit),
    message: exit.oomKilled ? oomMessage(container.resources.memoryLimitInBytes) : "",
  };
}

/** kubelet matches these words exactly. */
function exitReason(exit: ContainerExit): string {
  if (exit.oomKilled) return "OOMKilled";
  return exit.exitCode === 0 ? "Completed" : "Error";
}

/** @param kill As the kernel's log has it, which takes a while to read: absent until then. */
export function oomMessage(limitBytes: bigint, kill?: OomKill): string {
  const who = kill ? `process "${kill.task.replaceAll(/[^ -~]/g, "?")}" was killed` : "killed";
  const whose = {
    container: "",
    pod: ", as the pod's limit was reached",
    node: ", as the node has none left",
  }[kill?.limit ?? "container"];
  const limit = limitBytes > 0n ? `; the container's limit is ${limitBytes} bytes` : "";
  return `${who} for want of memory${whose}${limit}`;
}

/** One that ran longer has told its user more than the last lines could. */
const shortLifeNs = 5_000_000_000n;

/** Whether its log is worth a look to say why it ended. */
export function diedAtOnce(container: Container): container is ContainerIn<"exited"> {
  if (container.state !== "exited" || container.exitCode === 0 || container.message !== "") return false;
  return container.startedAtNs > 0n && container.finishedAtNs - container.startedAtNs < shortLifeNs;
}
