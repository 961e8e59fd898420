import { diedAtOnce, oomMessage } from "./container-ending.ts";
import type { Container } from "./container.ts";
import { explainExecFailure } from "./exec-failure.ts";
import { containerPathsOf } from "./layout.ts";
import type { Layout } from "./layout.ts";
import { readLastErrors } from "./log-tail.ts";
import { runtimeOf } from "./runtimes.ts";
import type { Runtimes } from "./runtimes.ts";

/** Why a container ended, as far as its log or the kernel's tells more than its exit did; "" where neither does. */
export async function lastWordsOf(
  container: Container,
  parts: { readonly runtimes: Runtimes; readonly layout: Layout },
): Promise<string> {
  if (container.state !== "exited") return "";
  if (container.reason === "OOMKilled") {
    const kill = await runtimeOf(parts, container.runtime).findOomKill(container.id);
    return kill ? oomMessage(container.resources.memoryLimitInBytes, kill) : "";
  }
  if (!diedAtOnce(container)) return "";
  const errors = await readLastErrors(container.logPath);
  return await explainExecFailure(errors, container, containerPathsOf(parts.layout, container.id).rootfs);
}
