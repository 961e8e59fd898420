import path from "node:path";
import { afterEach, expect, test } from "vitest";
import { useDaemon } from "./harness/fixture.ts";
import { nodeProgram, repository } from "./harness/repository.ts";
import { tryCommand } from "./harness/run-command.ts";

const berth = useDaemon({ pull: [] });

/** Runs `berth images …` against the daemon of this file. */
function images(...args: readonly string[]): ReturnType<typeof tryCommand> {
  return tryCommand([
    nodeProgram,
    path.join(repository, "server/main.ts"),
    "images",
    ...args,
    "--socket",
    berth.daemon.socketPath,
  ]);
}

async function succeed(...args: readonly string[]): Promise<string> {
  const { exitCode, stdout, stderr } = await images(...args);
  expect(exitCode, stderr).toBe(0);
  return stdout;
}

afterEach(async () => {
  for (const { id } of (await berth.call("ListImages")).images)
    await berth.call("RemoveImage", { image: { image: id } });
});

test("images are pulled with progress, listed, inspected and removed", async () => {
  const name = berth.image("busybox");
  const { stdout, stderr, exitCode } = await images("pull", name);
  expect(exitCode, stderr).toBe(0);
  const id = stdout.trim();
  expect(await succeed("list")).toMatch(
    new RegExp(String.raw`^IMAGE +ID +SIZE\n${name} +${id.slice(7, 19)} +[\d.]+ [kM]B\n$`, "u"),
  );
  expect(JSON.parse(await succeed("list", "--json"))).toMatchObject([{ id, repoTags: [name], pinned: false }]);
  expect(JSON.parse(await succeed("inspect", id.slice(7, 17)))).toMatchObject({
    status: { id },
    imageSpec: { os: "linux" },
  });
  expect(await succeed("remove", name)).toBe(`removed ${name}\nremoved ${id}\n`);
  expect((await berth.call("ListImages")).images).toEqual([]);
});

test("a pull tells its progress as JSON, and its last line the image's id", async () => {
  const lines = (await succeed("pull", "--json", berth.image("busybox"))).trim().split("\n");
  const messages = lines.map((line) => JSON.parse(line) as Record<string, unknown>);
  const { images: known } = await berth.call("ListImages");
  expect(messages.at(-1)).toEqual({ image: berth.image("busybox"), id: known[0]?.id });
  for (const progress of messages.slice(0, -1))
    expect(progress).toMatchObject({ image: berth.image("busybox"), phase: expect.any(String) });
});

test("a pull that fails says which host was tried", async () => {
  const { exitCode, stdout, stderr } = await images("pull", `${berth.image("busybox")}-absent`);
  expect({ exitCode, stdout }).toEqual({ exitCode: 1, stdout: "" });
  expect(stderr).toContain(berth.image("busybox").split("/")[0]);
});

test("prune removes what no container uses, and by age only what is old enough", async () => {
  await succeed("pull", berth.image("busybox"));
  await succeed("pull", berth.image("configured"));
  const pod = await berth.runPod();
  await berth.createContainer(pod);
  expect(await succeed("prune", "--older-than", "1h")).toContain("0 B freed");
  expect(await succeed("prune")).toContain(`removed ${berth.image("configured")}\n`);
  const { images: left } = await berth.call("ListImages");
  expect(left.flatMap((image) => image.repoTags)).toEqual([berth.image("busybox")]);
  await berth.removePod(pod.id);
});

test.each([
  [["remove", "registry.example/none:1"], 'image "registry.example/none:1" not found'],
  [["inspect", "Not//valid"], "invalid image reference"],
])("%j fails with a reason", async (args, text) => {
  const { exitCode, stdout, stderr } = await images(...args);
  expect({ exitCode, stdout }).toEqual({ exitCode: 1, stdout: "" });
  expect(stderr).toContain(text);
  expect(stderr).not.toMatch(/\n\s+at /u);
});
