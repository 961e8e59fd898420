import { expect, test } from "vitest";
import { Code, type Init, type MethodName, type Methods } from "../cri-api/index.ts";
import { openStream, readToEnd } from "./harness/cri-stream.ts";
import { useDaemon } from "./harness/fixture.ts";

const berth = useDaemon();

async function read<Name extends MethodName>(
  name: Name,
  request?: Init<Methods[Name]["request"]>,
): Promise<readonly Methods[Name]["response"][]> {
  using open = openStream(berth.daemon.socketPath, name, request);
  return await readToEnd(open);
}

test("a stream has what its list has", async () => {
  const pod = await berth.runPod({ config: { labels: { app: "streamed" } } });
  const other = await berth.runPod();
  const running = await berth.startContainer(pod, { labels: { tier: "front" } });
  const created = await berth.createContainer(other);

  const { items } = await berth.call("ListPodSandbox");
  expect(await read("StreamPodSandboxes")).toEqual([{ podSandboxes: items }]);
  const { containers } = await berth.call("ListContainers");
  expect(containers.map(({ id }) => id)).toEqual([running, created]);
  expect(await read("StreamContainers")).toEqual([{ containers }]);
  const { images } = await berth.call("ListImages");
  expect(await read("StreamImages")).toEqual([{ images }]);

  const [containerStats] = await read("StreamContainerStats");
  expect(containerStats?.containerStats.map(({ attributes }) => attributes?.id)).toEqual([running, created]);
  expect(containerStats?.containerStats[0]?.cpu?.usageCoreNanoSeconds?.value).toBeGreaterThan(0n);
  const [podStats] = await read("StreamPodSandboxStats");
  expect(podStats?.podSandboxStats.map(({ attributes }) => attributes?.id)).toEqual([pod.id, other.id]);

  const filtered = await read("StreamPodSandboxes", { filter: { labelSelector: { app: "streamed" } } });
  expect(filtered.map(({ podSandboxes }) => podSandboxes.map(({ id }) => id))).toEqual([[pod.id]]);
  const ofState = await read("StreamContainers", { filter: { state: { state: "CONTAINER_CREATED" } } });
  expect(ofState.map(({ containers: each }) => each.map(({ id }) => id))).toEqual([[created]]);
});

test("nothing to list is no message and a good end", async () => {
  expect(await read("StreamPodSandboxes")).toEqual([]);
  expect(await read("StreamContainers", { filter: { id: "f00" } })).toEqual([]);
  expect(await read("StreamContainerStats")).toEqual([]);
  expect(await read("StreamPodSandboxStats")).toEqual([]);
  expect(await read("StreamImages", { filter: { image: { image: "no.such/image:1" } } })).toEqual([]);
});

test("what the list refuses, the stream refuses", async () => {
  const request = { filter: { image: { image: "Not An Image" } } };
  await berth.expectFailure("ListImages", request, Code.InvalidArgument, /Not An Image/u);
  await expect(read("StreamImages", request)).rejects.toMatchObject({ code: Code.InvalidArgument });
});
