import { describe, expect, test } from "vitest";

import { createRandom } from "../../cri-api/testing.ts";
import { createTestLogger, refusalOf } from "../testing.ts";
import type { Credentials } from "../registry/credentials.ts";
import { authFor, helperFor, parseAuthFile } from "./auth-file.ts";
import { FileIssue } from "./file-issue.ts";
import { type CredentialSources, findCredentials } from "./find-credentials.ts";
import { openNamespacedAuth } from "./pull-auth.ts";

const encode = (text: string): string => Buffer.from(text).toString("base64");
const basic = (username: string, password = "p"): Credentials => ({ kind: "basic", username, password });
const authOf = (user: string): { auth: string } => ({ auth: encode(`${user}:p`) });

describe("auth.json", () => {
  const file = parseAuthFile(
    JSON.stringify({
      auths: {
        "r.io": authOf("host"),
        "r.io/team": authOf("team"),
        "r.io/team/app": authOf("app"),
        "https://index.docker.io/v1/": authOf("hub"),
        "https://old.io/v2/": authOf("old"),
        "quay.io": { identitytoken: "i" },
        "gcr.io": { registrytoken: "r" },
        "helped.io": {},
        "Spelled.io:443/team": authOf("spelled"),
      },
      credHelpers: { "helped.io": "here" },
    }),
    "auth.json",
  );

  test.each([
    ["r.io/team/app", basic("app")],
    ["r.io/team/app/deeper", basic("app")],
    ["r.io/team/other", basic("team")],
    ["r.io/teams", basic("host")],
    ["r.io:5000/team", undefined],
    ["docker.io/library/busybox", basic("hub")],
    ["old.io/x", basic("old")],
    ["spelled.io/team/app", basic("spelled")],
    ["R.io:443/team/other", basic("team")],
    ["OLD.io:443/x", basic("old")],
    ["quay.io/x", { kind: "identity", identityToken: "i" }],
    ["gcr.io/x", { kind: "registry", registryToken: "r" }],
    ["helped.io/x", undefined],
    ["constructor/x", undefined],
  ])("knows %s by the longest key", (location, expected) => {
    expect(authFor(file, location)).toEqual(expected);
  });

  test("names its helpers by host, and Docker's store for the rest", () => {
    expect(helperFor(file, "helped.io/x")).toEqual({ helper: "here", server: "helped.io" });
    expect(helperFor(file, "r.io/x")).toBeUndefined();
    const store = parseAuthFile('{"credsStore":"pass","credHelpers":{"a.io":"b"}}', "auth.json");
    expect(helperFor(store, "a.io/x")?.helper).toBe("b");
    expect(helperFor(store, "docker.io/library/x")).toEqual({ helper: "pass", server: "https://index.docker.io/v1/" });
  });

  test("in its first form holds the registries themselves", () => {
    expect(authFor(parseAuthFile(JSON.stringify({ "r.io": authOf("u") }), "legacy"), "r.io/x")).toEqual(basic("u"));
  });

  test.each([
    ["", "not JSON"],
    ['{"auths":{"r.io":{"auth":"s3cretWithoutColon"}}}', 'the auth of "r.io"'],
    ['{"auths":{"r.io":"s3cret"}}', "auths.r.io: must be an object"],
    ['{"auths":{"r.io":{"auth":["s3cret"]}}}', "auths.r.io.auth: must be a string"],
    ['{"auths":["s3cret"]}', "auths"],
    ['"s3cret"', "must be an object"],
    ['{"auths":{}} s3cret', "not JSON"],
  ])("%s is refused by key, and nothing of it repeated", (text, told) => {
    const message = refusalOf(() => parseAuthFile(text, "auth.json"));
    expect(message).toContain(told);
    expect(message).not.toContain("s3cret");
  });

  test("whatever stands in it, it is read or refused, and the refusal holds nothing of it", () => {
    const random = createRandom(7);
    const pieces = [
      "{",
      "}",
      '"auths"',
      ":",
      ",",
      '"r.io"',
      '"auth"',
      '"s3cret"',
      '"czNjcmV0OnA="',
      "[",
      "]",
      "null",
      "1e9",
      '"credHelpers"',
      '"__proto__"',
      "\0",
      "\\",
    ];
    for (let round = 0; round < 3000; round += 1) {
      const text = Array.from(
        { length: Math.floor(random() * 14) },
        () => pieces[Math.floor(random() * pieces.length)],
      ).join("");
      try {
        parseAuthFile(text, round % 2 === 0 ? "auth.json" : "legacy");
      } catch (thrown) {
        expect(thrown).toBeInstanceOf(FileIssue);
        expect(String(thrown)).not.toContain("s3cret");
      }
    }
    expect(Object.getPrototypeOf({})).toBe(Object.prototype);
  });
});

describe("credentials are looked for", () => {
  const asked: string[] = [];
  const answers: Record<string, { code: number; output: string }> = {
    "docker-credential-good": { code: 0, output: '{"ServerURL":"x","Username":"from-helper","Secret":"p"}' },
    "docker-credential-token": { code: 0, output: '{"Username":"<token>","Secret":"i"}' },
    "docker-credential-none": { code: 1, output: "credentials not found in native keychain\n" },
    "docker-credential-bad": { code: 1, output: "s3cret" },
    "docker-credential-odd": { code: 0, output: "s3cret" },
  };
  const log = createTestLogger();
  const sources = (helpers: readonly string[], ...files: readonly object[]): CredentialSources => ({
    host: {
      which: async (name, path) => (name in answers ? `${path}/${name}` : undefined),
      run: async ({ argv: [program], input }) => {
        const name = program.split("/").at(-1) ?? "";
        asked.push(`${name} ${String(input)}`);
        const { code, output } = answers[name] ?? { code: 0, output: "" };
        return { status: { kind: "exited", code }, stdout: Buffer.from(output), stderr: Buffer.of(), truncated: false };
      },
    },
    environment: { PATH: "/helpers", HOME: "/" },
    log,
    files: files.map((file) => parseAuthFile(JSON.stringify(file), "auth.json")),
    helpers,
  });

  test("in the files in their order, and before an entry at its helper", async () => {
    const first = { auths: { "r.io": authOf("first") } };
    const second = { auths: { "r.io": authOf("second"), "s.io": authOf("second") } };
    const files = sources(["containers-auth.json"], first, second);
    expect(await findCredentials(files, "r.io/x")).toEqual(basic("first"));
    expect(await findCredentials(files, "s.io/x")).toEqual(basic("second"));
    expect(await findCredentials(files, "t.io/x")).toBeUndefined();
    const helped = sources(["containers-auth.json"], { ...first, credHelpers: { "r.io": "good" } });
    expect(await findCredentials(helped, "r.io/x")).toEqual(basic("from-helper"));
    const empty = sources(["containers-auth.json"], { ...first, credHelpers: { "r.io": "none" } });
    expect(await findCredentials(empty, "r.io/x")).toEqual(basic("first"));
  });

  test("at the helpers of registries.conf in their order, by the registry's host", async () => {
    asked.length = 0;
    const file = { auths: { "r.io": authOf("file") } };
    expect(await findCredentials(sources(["none", "token", "containers-auth.json"], file), "r.io/a/b")).toEqual({
      kind: "identity",
      identityToken: "i",
    });
    expect(asked).toEqual(["docker-credential-none r.io", "docker-credential-token r.io"]);
    expect(await findCredentials(sources(["none", "containers-auth.json"], file), "r.io/a")).toEqual(basic("file"));
  });

  test.each([["bad"], ["odd"], ["absent"]])(
    "past a helper that is %s, which the log tells without its output",
    async (name) => {
      log.lines.length = 0;
      const file = { auths: { "r.io": authOf("file") }, credHelpers: { "r.io": name } };
      expect(await findCredentials(sources(["containers-auth.json"], file), "r.io/x")).toEqual(basic("file"));
      expect(log.lines.map(({ level }) => level)).toEqual(["warn"]);
      expect(JSON.stringify(log.lines)).not.toContain("s3cret");
    },
  );

  test("never at a program outside of PATH", async () => {
    asked.length = 0;
    for (const name of ["../../bin/sh", "a b", "-x", "a/b", ""])
      await findCredentials(sources(["containers-auth.json"], { credHelpers: { "r.io": name } }), "r.io/x");
    expect(asked).toEqual([]);
  });
});

test("a folder of namespaces' credentials that cannot be written is told, and keeps nobody from starting", async () => {
  const log = createTestLogger();
  await openNamespacedAuth({ directory: "/proc/self", log }); // where nothing can be made, not even by root
  expect(log.lines).toEqual([
    expect.objectContaining({ level: "error", fields: { directory: "/proc/self", issue: "ENOENT" } }),
  ]);
  await openNamespacedAuth({ directory: "/absent", log });
  await openNamespacedAuth({ directory: undefined, log });
  expect(log.lines).toHaveLength(1);
});
