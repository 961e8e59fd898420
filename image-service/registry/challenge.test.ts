import { expect, test } from "vitest";

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
