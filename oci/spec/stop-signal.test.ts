import { constants } from "node:os";
import { Code } from "../../cri-api/index.ts";
import { expect, test } from "vitest";
import { stopSignalName, stopSignalNumber } from "./stop-signal.ts";

test.each([
  ["SIGNAL_RUNTIME_DEFAULT", "", 15],
  ["SIGNAL_RUNTIME_DEFAULT", "SIGQUIT", 3],
  ["SIGNAL_SIGUSR1", "SIGQUIT", 10],
  ["SIGNAL_SIGIOT", "", 6],
  ["SIGNAL_SIGPOLL", "", 29],
  ["SIGNAL_SIGRTMIN", "", 34],
  ["SIGNAL_SIGRTMINPLUS3", "", 37],
  ["SIGNAL_SIGRTMINPLUS15", "", 49],
  ["SIGNAL_SIGRTMAXMINUS14", "", 50],
  ["SIGNAL_SIGRTMAXMINUS1", "", 63],
  ["SIGNAL_SIGRTMAX", "", 64],
] as const)("%s over the image's %j is %i", (signal, image, expected) => {
  expect(stopSignalNumber(signal, image)).toBe(expected);
});

test.each([
  ["TERM", 15],
  ["sigterm", 15],
  ["15", 15],
  ["SIGRTMIN+3", 37],
  ["RTMIN+3", 37],
  ["SIGRTMAX-0", 64],
  ["rtmax-1", 63],
  ["RTMIN", 34],
  ["SIGWINCH", 28],
  ["64", 64],
])("reads the image's %j as %i", (image, expected) => {
  expect(stopSignalNumber("SIGNAL_RUNTIME_DEFAULT", image)).toBe(expected);
});

test.each(["0", "65", "32", "-1", "+15", "SIG", "SIGSIGTERM", "SIGRTMIN+31", "SIGRTMAX-31", "TERM\n", "constructor"])(
  "refuses the stop signal %j of an image",
  (image) => {
    if (image === "RTMIN") return expect(stopSignalNumber("SIGNAL_RUNTIME_DEFAULT", image)).toBe(34);
    expect(() => stopSignalNumber("SIGNAL_RUNTIME_DEFAULT", image)).toThrow(
      expect.objectContaining({ code: Code.InvalidArgument }),
    );
  },
);

test("agrees with the machine's own numbers", () => {
  for (const [name, number] of Object.entries(constants.signals)) {
    expect(stopSignalNumber("SIGNAL_RUNTIME_DEFAULT", name)).toBe(number);
  }
});

test("names every number so that it comes back the same", () => {
  for (let number = 1; number <= 64; number++) {
    const name = stopSignalName(number);
    if (number === 32 || number === 33) expect(name).toBe("SIGNAL_RUNTIME_DEFAULT");
    else expect(stopSignalNumber(name, "")).toBe(number);
  }
});
