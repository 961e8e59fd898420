import { expect, test } from "vitest";

import { createRandom } from "../../cri-api/testing.ts";
import { parseChallenges } from "./challenge.ts";

test("reads realm, service and a scope with commas", () => {
  const header =
    'Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push"';
  expect(parseChallenges(header)).toEqual([
    {
      scheme: "bearer",
      parameters: {
        realm: "https://auth.example/token",
        service: "registry.example",
        scope: "repository:a/b:pull,push",
      },
    },
  ]);
});

test("reads several challenges, odd spacing, bare tokens and escapes", () => {
  const parsed = parseChallenges('Basic realm = "a \\"b\\"" , BEARER Realm=x , service="s"');
  expect(parsed.map(({ scheme }) => scheme)).toEqual(["basic", "bearer"]);
  expect(parsed[0]?.parameters["realm"]).toBe('a "b"');
  expect(parsed[1]?.parameters["realm"]).toBe("x");
});

test.each([
  [""],
  ["="],
  ['realm="x"'],
  ["Bearer realm="],
  ['Bearer realm="unterminated'],
  ["Bearer ,,,,=,"],
  ["\0\0"],
  ["é"],
])("survives %j", (header) => {
  for (const { parameters } of parseChallenges(header)) expect(parameters["realm"]).toBeUndefined();
});

test("a parameter cannot reach an object's own machinery", () => {
  const [challenge] = parseChallenges('Bearer __proto__="x",constructor="y"');
  expect(challenge?.parameters["realm"]).toBeUndefined();
  expect(Object.getPrototypeOf({})).toBe(Object.prototype);
});

test("hostile headers cost linear time", () => {
  const startMs = performance.now();
  for (const header of [
    "Bearer ".repeat(100_000),
    '"'.repeat(100_000),
    "a=".repeat(100_000),
    `B a="${"\\".repeat(1e5)}`,
  ])
    parseChallenges(header);
  expect(performance.now() - startMs).toBeLessThan(1000);
});

test("whatever a registry sends, what is read of it was sent", () => {
  const random = createRandom(5);
  const pieces = [
    "Bearer",
    "Basic",
    " ",
    ",",
    "=",
    '"',
    "\\",
    "realm",
    "https://a/",
    "scope",
    "\0",
    "é",
    "\t",
    "__proto__",
    '"a"',
    "x",
  ];
  for (let round = 0; round < 5000; round += 1) {
    const length = Math.floor(random() * 24);
    const header = Array.from({ length }, () => pieces[Math.floor(random() * pieces.length)]).join("");
    const sent = header.toLowerCase().replaceAll("\\", "");
    for (const { scheme, parameters } of parseChallenges(header)) {
      expect(sent).toContain(scheme);
      for (const [name, value] of Object.entries(parameters)) {
        expect(sent).toContain(name);
        expect(sent).toContain(value.toLowerCase().replaceAll("\\", ""));
      }
    }
  }
});
