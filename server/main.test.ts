import { readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { join } from "node:path";
import { expect, test } from "vitest";
import { run } from "../native/index.ts";
import { configTemplate } from "./config-template.ts";
import { makeScratch } from "./testing.ts";

const mainPath = fileURLToPath(new URL("./main.ts", import.meta.url));

async function berth(...args: readonly string[]): Promise<{ code: number; out: string; err: string }> {
  const argv = [process.execPath, mainPath, ...args] as const;
  const { status, stdout, stderr } = await run({
    argv,
    env: { PATH: "/nowhere" },
    signal: AbortSignal.timeout(20_000),
  });
  const code = status.kind === "exited" ? status.code : -status.signal;
  return { code, out: stdout.toString("utf8"), err: stderr.toString("utf8") };
}

test("berth version prints the version of package.json", async () => {
  const { version } = JSON.parse(await readFile(new URL("../package.json", import.meta.url), "utf8")) as {
    version: string;
  };
  expect(await berth("version")).toEqual({ code: 0, out: `berth ${version}\n`, err: "" });
});

test("--config-default prints the template", async () => {
  expect(await berth("serve", "--config-default")).toEqual({ code: 0, out: configTemplate, err: "" });
});

test("--config-check says ok, or everything that is wrong", async () => {
  await using scratch = await makeScratch();
  const config = join(scratch.path, "berth.toml");
  await writeFile(config, configTemplate);
  expect(await berth("serve", "--config", config, "--config-check")).toEqual({ code: 0, out: "berth: ok\n", err: "" });
  await writeFile(config, "roof = 1\nroot = 2");
  const wrong = await berth("serve", "--config", config, "--config-check", "--socket", "relative");
  expect(wrong.code).toBe(1);
  expect(wrong.err.trimEnd().split("\n").toSorted()).toEqual([
    `berth: ${config}:1: roof: is not a known key`,
    `berth: ${config}:2: root: must be a string, not 2`,
    'berth: command line: socket: must be an absolute path without // or . or .. in it, not "relative"',
  ]);
});

test.each([[["frobnicate"]], [["serve", "more"]], [["serve", "--frobnicate"]], [[]]])(
  "the command line %j is refused with the usage",
  async (args) => {
    const { code, out, err } = await berth(...args);
    expect({ code, out }).toEqual({ code: 2, out: "" });
    expect(err).toContain("Usage: berth");
  },
);

test("doctor finds a node without programs broken, in words or as JSON", async () => {
  await using scratch = await makeScratch();
  const config = join(scratch.path, "berth.toml");
  await writeFile(config, configTemplate);
  const [text, json] = await Promise.all([
    berth("doctor", "--config", config),
    berth("doctor", "--config", config, "--json"),
  ]);
  expect([text.code, json.code]).toEqual([1, 1]);
  const findings = JSON.parse(json.out) as readonly { level: string; cure?: string }[];
  const broken = findings.filter(({ level }) => level === "fail");
  expect(broken.length).toBeGreaterThan(0);
  for (const { cure } of broken) expect(text.out).toContain(cure ?? "no cure");
});

test("serve without its programs says so and ends", async () => {
  await using scratch = await makeScratch();
  const config = join(scratch.path, "berth.toml");
  const directories = { root: join(scratch.path, "root"), state: join(scratch.path, "state") };
  const socket = join(scratch.path, "run", "berth.sock");
  await writeFile(config, `root = "${directories.root}"\nstate = "${directories.state}"\nsocket = "${socket}"`);
  const { code, err } = await berth("serve", "--config", config);
  expect(code).toBe(1);
  expect(err).toContain("cannot start");
  expect(err).toContain('\\"conmon\\" is no program here');
});
