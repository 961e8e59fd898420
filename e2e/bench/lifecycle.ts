import type { Contestant } from "./contestant.ts";
import type { Recorder } from "./measurements.ts";
import { type PodSettings, preparePod, waitForSleeper } from "./pods.ts";

/** One pod with one container from RunPodSandbox to RemovePodSandbox; each call is a step of its own name. */
export async function runLifecycle(
  settings: PodSettings,
  contestant: Contestant,
  name: string,
  recorder: Recorder,
): Promise<void> {
  const { client } = contestant;
  const { pod, container, logFile } = await preparePod(settings, contestant, name);
  const { podSandboxId } = await recorder.time("RunPodSandbox", () => client.call("RunPodSandbox", { config: pod }));
  const { containerId } = await recorder.time("CreateContainer", () =>
    client.call("CreateContainer", { podSandboxId, config: container, sandboxConfig: pod }),
  );
  await recorder.time("StartContainer", () => client.call("StartContainer", { containerId }));
  await waitForSleeper(logFile);
  const { exitCode } = await recorder.time("ExecSync", () =>
    client.call("ExecSync", { containerId, cmd: ["true"], timeout: 10n }),
  );
  if (exitCode !== 0) throw new Error(`true ended with ${exitCode} in ${contestant.name}`);
  await recorder.time("StopContainer", () => client.call("StopContainer", { containerId, timeout: 30n }));
  await recorder.time("RemoveContainer", () => client.call("RemoveContainer", { containerId }));
  await recorder.time("StopPodSandbox", () => client.call("StopPodSandbox", { podSandboxId }));
  await recorder.time("RemovePodSandbox", () => client.call("RemovePodSandbox", { podSandboxId }));
}
