import { chmod, mkdir, rm, writeFile } from "node:fs/promises";
import path from "node:path";

/** Real programs behind scripts that fail when told to; for the plugins and runtimes of a daemon. */
export interface Misbehaving {
  /** `word` is a CNI command (`DEL`) or a runtime's (`delete`): from now on, calls with it fail. */
  fail(program: string, word: string): Promise<void>;
  /** All do what they should again. */
  heal(): Promise<void>;
}

/** Puts scripts named as the programs are into `directory`. */
export async function createMisbehaving(directory: string, programs: readonly string[]): Promise<Misbehaving> {
  const orders = path.join(directory, "orders");
  await mkdir(orders, { recursive: true });
  for (const program of programs) {
    const script = path.join(directory, path.basename(program));
    await writeFile(script, scriptFor(program, orders));
    await chmod(script, 0o755);
  }
  return {
    fail: (program, word) => writeFile(path.join(orders, `${program}-${word}`), ""),
    async heal() {
      await rm(orders, { recursive: true });
      await mkdir(orders);
    },
  };
}

/** A plugin is told its command by the environment, a runtime by an argument. */
function scriptFor(program: string, orders: string): string {
  const order = `${orders}/${path.basename(program)}`;
  return `#!/bin/sh
for word in "$CNI_COMMAND" "$@"; do
  case "$word" in */* | "") continue ;; esac
  [ ! -e "${order}-$word" ] || {
    echo '{"cniVersion": "1.0.0", "code": 100, "msg": "told to fail"}'
    echo "told to fail" >&2
    exit 1
  }
done
exec ${program} "$@"
`;
}
