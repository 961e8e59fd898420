import { join } from "node:path";
import { expect, test } from "vitest";
import { Code, CriError } from "../cri-api/index.ts";
import { startDaemon } from "./daemon.ts";
import type { HandlerTable } from "./handlers.ts";
import type { Notification } from "./notify.ts";
import { createLogBook, makeScratch, tableWith } from "./testing.ts";
import { callStatus, startWatchdog } from "./watchdog.ts";

interface Watched extends AsyncDisposable {
  readonly socket: string;
}

async function serve(handlers: Partial<HandlerTable>): Promise<Watched> {
  await using undo = new AsyncDisposableStack();
  const scratch = undo.use(await makeScratch());
  const socket = join(scratch.path, "berth.sock");
  const { log } = createLogBook();
  const openRooms = async () => ({ handlers: tableWith(handlers), [Symbol.asyncDispose]: async () => undefined });
  const daemon = await startDaemon({ socket, privateDirectories: [], log, graceMs: 0, openRooms });
  undo.defer(() => daemon.stop());
  const keep = undo.move();
  return { socket, [Symbol.asyncDispose]: () => keep.disposeAsync() };
}

const patience = (): AbortSignal => AbortSignal.timeout(10_000);

test("an answered call is no error, whatever is failed or cut short is one", async () => {
  let answer: () => Promise<object> = async () => ({});
  await using served = await serve({ Status: () => answer() });
  await callStatus(served.socket, patience());
  answer = () => Promise.reject(new CriError(Code.Internal, "rooms are on fire"));
  await expect(callStatus(served.socket, patience())).rejects.toThrow(/code 13: rooms/);
  answer = () => new Promise(() => undefined);
  await expect(callStatus(served.socket, AbortSignal.timeout(50))).rejects.toThrow(/timeout/);
  await expect(callStatus(`${served.socket}.absent`, patience())).rejects.toThrow(/ENOENT/);
});

test("systemd hears that we live as long as calls are answered, and no longer", async () => {
  let isAnswering = true;
  await using served = await serve({
    Status: async () => {
      if (!isAnswering) throw new CriError(Code.Internal, "stuck");
      return {};
    },
  });
  const { log, lines } = createLogBook();
  const heard: Notification[] = [];
  const notify = (notification: Notification): void => void heard.push(notification);
  await using _watchdog = startWatchdog({ socket: served.socket, timeoutMs: 400, notify, log });
  await expect.poll(() => heard.length).toBeGreaterThan(2);
  isAnswering = false;
  const late = lines.length; // calls that a busy machine has not answered in time
  await expect.poll(() => lines.length).toBeGreaterThan(late);
  const count = heard.length;
  await expect.poll(() => lines.length).toBeGreaterThan(late + 2);
  expect(heard.slice(count)).toEqual([]);
  expect(new Set(lines.map(({ level }) => level))).toEqual(new Set(["error"]));
  expect(new Set(heard)).toEqual(new Set(["WATCHDOG=1"]));
});

test("a watchdog that is stopped is quiet at once, also in the middle of a call", async () => {
  await using served = await serve({ Status: () => new Promise(() => undefined) });
  const { log, lines } = createLogBook();
  const watchdog = startWatchdog({ socket: served.socket, timeoutMs: 60_000, notify: () => undefined, log });
  await watchdog[Symbol.asyncDispose]();
  expect(lines).toEqual([]);
});
