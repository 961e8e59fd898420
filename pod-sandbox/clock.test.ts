import { expect, it } from "vitest";
import { createClock, createdAfter, nowNs } from "./clock.ts";

it("goes on when the system's clock stands still or is set back", () => {
  const readings = [5, 5, 4, 6];
  const clock = createClock(() => readings.shift() ?? 0);
  expect([clock(), clock(), clock(), clock()]).toEqual([5_000_000n, 5_000_001n, 5_000_002n, 6_000_000n]);
});

it("makes what is created now younger than its elders, also those of a later time", () => {
  const [startedAtNs, tomorrowNs] = [nowNs(), nowNs() + 86_400_000_000_000n];
  expect(createdAfter([{ createdAtNs: tomorrowNs }, { createdAtNs: 5n }])).toBe(tomorrowNs + 1n);
  expect(createdAfter([{ createdAtNs: 5n }])).toBeGreaterThanOrEqual(startedAtNs);
});
