import { expect, test } from "vitest";
import { createVanguard } from "./vanguard.ts";

const soon = (): AbortSignal => AbortSignal.timeout(10_000);

/** Notes when an ADD begins and ends; it ends when it is told to. */
function createAdds() {
  const log: string[] = [];
  const add = (name: string) => {
    const end = Promise.withResolvers<string>();
    const work = async (): Promise<string> => {
      log.push(`${name} begins`);
      return await end.promise.finally(() => log.push(`${name} ends`));
    };
    return { work, succeed: () => end.resolve(name), fail: () => end.reject(new Error(name)) };
  };
  return { log, add };
}

test("the others of a kind wait for the first one, and then run beside each other", async () => {
  const vanguard = createVanguard();
  const { log, add } = createAdds();
  const [a, b, c, other] = [add("a"), add("b"), add("c"), add("other")];
  const all = [a, b, c].map(({ work }) => vanguard.run("net", soon(), work));
  const ofOther = vanguard.run("net2", soon(), other.work);
  await expect.poll(() => log).toEqual(["a begins", "other begins"]);
  a.succeed();
  await expect.poll(() => log).toEqual(["a begins", "other begins", "a ends", "b begins", "c begins"]);
  for (const { succeed } of [b, c, other]) succeed();
  expect(await Promise.all([...all, ofOther])).toEqual(["a", "b", "c", "other"]);
});

test("where the first fails, the next is the first", async () => {
  const vanguard = createVanguard();
  const { log, add } = createAdds();
  const [a, b, c] = [add("a"), add("b"), add("c")];
  const all = Promise.allSettled([a, b, c].map(({ work }) => vanguard.run("net", soon(), work)));
  a.fail();
  await expect.poll(() => log).toEqual(["a begins", "a ends", "b begins"]);
  b.succeed();
  c.succeed();
  expect((await all).map(({ status }) => status)).toEqual(["rejected", "fulfilled", "fulfilled"]);
  expect(log).toEqual(["a begins", "a ends", "b begins", "b ends", "c begins", "c ends"]);
});

test("nobody waits for long for one that hangs, nor longer than the caller", async () => {
  const vanguard = createVanguard(50);
  const { log, add } = createAdds();
  const [hung, patient, impatient] = [add("hung"), add("patient"), add("impatient")];
  const first = vanguard.run("net", soon(), hung.work);
  const gone = vanguard.run("net", AbortSignal.timeout(1), impatient.work);
  await expect(gone).rejects.toMatchObject({ name: "TimeoutError" });
  patient.succeed();
  expect(await vanguard.run("net", soon(), patient.work)).toBe("patient");
  hung.succeed();
  expect(await first).toBe("hung");
  expect(log).toEqual(["hung begins", "patient begins", "patient ends", "hung ends"]);
});
