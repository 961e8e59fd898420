import { mkdtempSync, openSync, closeSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { decodeName, encodeName, syscalls } from "./index.ts";

const names: readonly (readonly [string, readonly number[]])[] = [
  ["caf\uDCE9", [0x63, 0x61, 0x66, 0xe9]],
  ["é€😀", [...Buffer.from("é€😀")]],
  ["\uDCFFé\uDC80\uDCC3", [0xff, 0xc3, 0xa9, 0x80, 0xc3]],
  ["\uDCED\uDCA0\uDC80", [0xed, 0xa0, 0x80]], // a surrogate in UTF-8's clothes
  ["\uDCC0\uDCAF", [0xc0, 0xaf]], // a slash, two bytes long
  ["\uDCF0\uDC9F\uDC98", [0xf0, 0x9f, 0x98]], // half of a code point
  ["\uFFFD\uDCFE", [0xef, 0xbf, 0xbd, 0xfe]],
];

test.each(names)("%j is a name of its own bytes", (text, bytes) => {
  expect(decodeName(Buffer.from(bytes))).toBe(text);
  expect([...encodeName(text)]).toEqual(bytes);
});

test("system calls make files of just these bytes, and find them again", () => {
  const directory = mkdtempSync(join(tmpdir(), "berth-names-"));
  const fd = openSync(directory, "r");
  try {
    for (const [name] of names) syscalls.mkdirat(fd, name, 0o700);
    const found = readdirSync(directory, { encoding: "latin1" }); // a character a byte
    expect(new Set(found)).toEqual(new Set(names.map(([, bytes]) => Buffer.from(bytes).toString("latin1"))));
    syscalls.symlinkat("to \uDCE9", fd, "link");
    expect(syscalls.readlinkat(fd, "link")).toEqual(Buffer.from([0x74, 0x6f, 0x20, 0xe9]));
  } finally {
    closeSync(fd);
    rmSync(directory, { recursive: true });
  }
});
