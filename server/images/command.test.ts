import { join } from "node:path";
import { PassThrough } from "node:stream";
import { expect, test } from "vitest";
import { makeScratch } from "../testing.ts";
import { runImages } from "./command.ts";

async function images(...args: readonly string[]): Promise<{ code: number; out: string; err: string }> {
  const [out, err] = [new PassThrough(), new PassThrough()];
  const code = await runImages(args, { out, err });
  const said = (stream: PassThrough): string => String(stream.read() ?? "");
  return { code, out: said(out), err: said(err) };
}

test.each([
  [[], "images needs a command"],
  [["frobnicate"], 'no command "frobnicate"'],
  [["list", "--repair"], "Unknown option '--repair'"],
  [["list", "a", "b"], '"b" is too much for list'],
  [["pull"], "pull needs a name"],
  [["pull", "busybox", "--username", "me"], "--username and --password-stdin go together"],
  [["prune", "--older-than", "soon"], '"soon" is no time'],
])("the command line %j is refused with a reason and the usage", async (args, reason) => {
  const { code, out, err } = await images(...args);
  expect({ code, out }).toEqual({ code: 2, out: "" });
  expect(err).toContain(`berth: ${reason}`);
  expect(err).toContain("Usage: berth images");
});

test("a daemon that does not run is told as that", async () => {
  await using scratch = await makeScratch();
  const socket = join(scratch.path, "no.sock");
  expect(await images("list", "--socket", socket)).toEqual({
    code: 1,
    out: "",
    err: `berth: nobody listens on "${socket}": is the daemon running?\n`,
  });
});

test("a wrong configuration is told like everywhere", async () => {
  const { code, err } = await images("list", "--socket", "relative");
  expect({ code, err }).toEqual({
    code: 1,
    err: 'berth: command line: socket: must be an absolute path without // or . or .. in it, not "relative"\n',
  });
});
