import { expect, it } from "vitest";
import { createClock } from "./clock.ts";

it("goes on when the system's clock stands still or is set back", () => {
  const readings = [5, 5, 4, 6];
  const clock = createClock(() => readings.shift() ?? 0);
  expect([clock(), clock(), clock(), clock()]).toEqual([5_000_000n, 5_000_001n, 5_000_002n, 6_000_000n]);
});
