import { expect, test } from "vitest";
import { defaultApparmorProfile } from "./apparmor.ts";

test("the default profile names itself in every rule about its own processes", () => {
  const text = defaultApparmorProfile("some-name");
  expect(text).toMatch(/^profile some-name flags=\(attach_disconnected,mediate_deleted\) \{\n[\s\S]*\n\}\n$/);
  expect(text.match(/peer=some-name,/g)).toHaveLength(2);
});

test("the default profile needs no file of the host's own policy", () => {
  expect(defaultApparmorProfile("some-name")).not.toMatch(/^\s*(?:#?include|abi)\b|@\{/m);
});
