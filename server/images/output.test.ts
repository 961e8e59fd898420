import { PassThrough } from "node:stream";
import { describe, expect, test } from "vitest";
import type { berth } from "../../cri-api/index.ts";
import { parseAge } from "./options.ts";
import { formatBytes, formatJson, formatTable } from "./output.ts";
import { createProgressView } from "./progress.ts";

const half: berth.PullProgress = {
  image: "docker.io/library/busybox:latest",
  phase: "fetching",
  host: "docker.io",
  elapsedMs: 4200n,
  layers: 8n,
  layersDone: 3n,
  totalBytes: 200_000_000n,
  downloadedBytes: 100_000_000n,
  unpackedBytes: 1n,
  bytesPerSecond: 23_400_000n,
};

function show(isTTY: boolean, ...steps: readonly berth.PullProgress[]): string {
  const err = Object.assign(new PassThrough(), { isTTY, columns: 100 });
  {
    using view = createProgressView({ out: new PassThrough(), err });
    for (const step of steps) view.show(step);
  }
  return String(err.read());
}

describe("the progress of a pull", () => {
  const facts = "3/8 layers, 100.0 MB of 200.0 MB, 23.4 MB/s from docker.io, 4s";
  test("is a bar that is drawn over on a terminal and wiped at the end", () => {
    expect(show(true, half)).toBe(`\r\u001B[K[============>           ] ${facts}\r\u001B[K`);
  });
  test("fits the terminal's width", () => {
    const err = Object.assign(new PassThrough(), { isTTY: true, columns: 40 });
    createProgressView({ out: new PassThrough(), err }).show(half);
    expect(String(err.read())).toHaveLength("\r\u001B[K".length + 39);
  });
  test("is there in full on a terminal that does not know its width", () => {
    const err = Object.assign(new PassThrough(), { isTTY: true, columns: 0 });
    createProgressView({ out: new PassThrough(), err }).show(half);
    expect(String(err.read())).toContain("23.4 MB/s");
  });
  test("is a line for each phase elsewhere, not one for each step", () => {
    const start = { ...half, phase: "resolving" };
    expect(show(false, start, half, half, half)).toBe(
      `${half.image}: resolving from docker.io, 4s\n${half.image}: ${facts}\n`,
    );
  });
});

test.each([
  [0, "0 B"],
  [999, "999 B"],
  [1000n, "1.0 kB"],
  [999_949, "999.9 kB"],
  [999_950, "1.0 MB"],
  [5_000_000_000n, "5.0 GB"],
])("%s bytes are %s", (bytes, text) => {
  expect(formatBytes(bytes)).toBe(text);
});

test("a table's columns line up, without blanks at the end", () => {
  expect(
    formatTable([
      ["A", "B"],
      ["long", ""],
      ["x", "y"],
    ]),
  ).toBe("A     B\nlong\nx     y\n");
});

test("64-bit numbers are numbers in JSON", () => {
  expect(formatJson({ size: 5n })).toBe('{"size":5}\n');
});

test("ages are digits and a unit", () => {
  expect(["90s", "2m", "12h", "30d"].map(parseAge)).toEqual([90_000, 120_000, 43_200_000, 2_592_000_000]);
  for (const text of ["", "5", "h", "1w", "-1h", "1.5h"]) expect(() => parseAge(text)).toThrow("is no time");
});
