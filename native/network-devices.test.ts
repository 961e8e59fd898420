import { expect, test } from "vitest";
import { parseNetworkDevices } from "./network-devices.ts";

const head = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
`;

test("counts of both directions, whatever the names look like", () => {
  const text = `${head}    lo:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0
  eth0:18446744073709551615 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16
eth0:1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16
`;
  const traffic = (bytes: bigint, packets: bigint, errors: bigint, dropped: bigint) => ({
    bytes,
    packets,
    errors,
    dropped,
  });
  expect(parseNetworkDevices(text)).toEqual([
    { name: "lo", received: traffic(0n, 0n, 0n, 0n), transmitted: traffic(0n, 0n, 0n, 0n) },
    { name: "eth0", received: traffic(2n ** 64n - 1n, 2n, 3n, 4n), transmitted: traffic(9n, 10n, 11n, 12n) },
    { name: "eth0:1", received: traffic(1n, 2n, 3n, 4n), transmitted: traffic(9n, 10n, 11n, 12n) },
  ]);
});

test("lines that are none are left out", () => {
  for (const text of ["", head, `${head}eth0: 1 2 3\n`, `${head}\n:\nno colon 1 2 3\n`])
    expect(parseNetworkDevices(text)).toEqual([]);
});
