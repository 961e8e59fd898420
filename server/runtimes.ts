import { join } from "node:path";
import type { Logger } from "../cri-api/index.ts";
import { NewerSchemaError, which } from "../native/index.ts";
import { createRuntime } from "../oci/index.ts";
import type { Runtime } from "../oci/index.ts";
import type { Config, Environment } from "./config.ts";

interface Parts {
  readonly config: Config;
  readonly environment: Environment;
  readonly log: Logger;
}

async function findProgram(parts: Parts, what: string, program: string): Promise<string> {
  const path = await which(program, parts.environment.path);
  if (path === undefined) throw new Error(`${what}: "${program}" is no program here; berth doctor tells more`);
  return path;
}

/**
 * Opens a runtime for each handler whose program is there.
 *
 * @throws {Error} where the monitor or the default handler's program is missing or broken.
 * @throws {NewerSchemaError} where a newer Berth has left containers of any handler.
 */
export async function openRuntimes(parts: Parts): Promise<ReadonlyMap<string, Runtime>> {
  const { config, log } = parts;
  const monitorPath = await findProgram(parts, "monitor", config.monitor);
  const open = async (handler: string, program: string): Promise<readonly [string, Runtime]> => {
    const directory = join(config.state, "runtimes", handler);
    const runtime = await createRuntime(
      {
        handler,
        path: await findProgram(parts, `runtime handler "${handler}"`, program),
        root: join(directory, "root"),
        stateDir: join(directory, "state"),
        monitorPath,
        cgroupDriver: config.cgroupDriver,
      },
      { log },
    );
    return [handler, runtime];
  };
  const opened = await Promise.all(
    Object.entries(config.runtimes).map(([handler, { path }]) =>
      open(handler, path).catch((thrown: unknown) => {
        if (handler === config.defaultRuntime || thrown instanceof NewerSchemaError) throw thrown;
        log.warn({ runtimeHandler: handler, err: thrown }, "runtime handler left out");
        return undefined;
      }),
    ),
  );
  return new Map(opened.filter((entry) => entry !== undefined));
}
