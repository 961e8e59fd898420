import { access, cp, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { cacheDirectory, repository } from "../harness/repository.ts";
import { runCommand } from "../harness/run-command.ts";
import { prepareStandIns } from "./stand-ins.ts";

/** What of the working tree a node gets; e2e is there for the programs that run inside. */
const installed = ["cni", "cri-api", "e2e", "image-service", "native", "oci", "pod-sandbox", "server", "deploy"];

/**
 * Makes the disk that the guest mounts at /payload: Berth with the modules that production needs, the Kubernetes tools,
 * a registry's data with stand-ins for critest's images, and the command.
 */
export async function makePayload(command: readonly string[]): Promise<string> {
  const directory = path.join(cacheDirectory, "guest/payload");
  const image = `${directory}.img`;
  await rm(directory, { recursive: true, force: true });
  await mkdir(path.join(directory, "bin"), { recursive: true });
  await installBerth(path.join(directory, "berth"));
  for (const tool of ["crictl", "critest", "ginkgo"]) {
    await cp(path.join(cacheDirectory, "conformance/current", tool), path.join(directory, "bin", tool));
  }
  await cp(await prepareStandIns(), path.join(directory, "registry"), { recursive: true });
  await cp(path.join(import.meta.dirname, "run.sh"), path.join(directory, "run.sh"));
  await writeFile(path.join(directory, "command.sh"), commandScript(command));
  await label(directory);
  await rm(image, { force: true });
  const [kilobytes] = (await runCommand(["du", "-sk", directory])).split("\t");
  const sizeMiB = Math.ceil((Number(kilobytes) * 1.3) / 1024) + 64;
  await runCommand(["truncate", "-s", `${sizeMiB}M`, image]);
  await runCommand(["mkfs.ext4", "-q", "-F", "-d", directory, image], { timeoutMs: 600_000 });
  await rm(directory, { recursive: true });
  return image;
}

/** As a package would have it under SELinux. */
async function label(directory: string): Promise<void> {
  const helper = path.join(repository, "native/build/berth-helper");
  await runCommand([helper, "relabel", "system_u:object_r:bin_t:s0", directory]);
}

async function installBerth(target: string): Promise<void> {
  await mkdir(path.join(target, "node_modules/.bin"), { recursive: true });
  const options = { recursive: true, dereference: false, verbatimSymlinks: true } as const;
  for (const name of [...installed, "package.json"]) {
    await cp(path.join(repository, name), path.join(target, name), options);
  }
  for (const name of await productionModules()) {
    await cp(path.join(repository, name), path.join(target, name), {
      ...options,
      filter: (source) => !source.includes("/node_modules/node/node_modules"), // its binary was copied out of there
    });
  }
  await runCommand(["ln", "-s", "../node/bin/node", path.join(target, "node_modules/.bin/node")]);
}

/** As the lock file has them; those for other platforms are not there. */
async function productionModules(): Promise<readonly string[]> {
  const lock = JSON.parse(await readFile(path.join(repository, "package-lock.json"), "utf8")) as {
    readonly packages: Readonly<Record<string, { readonly dev?: boolean; readonly devOptional?: boolean }>>;
  };
  const names: string[] = [];
  for (const [name, { dev, devOptional }] of Object.entries(lock.packages)) {
    const isWanted =
      name !== "" && dev !== true && devOptional !== true && !name.startsWith("node_modules/@typescript/");
    if (isWanted && (await isThere(path.join(repository, name)))) names.push(name);
  }
  return names;
}

function commandScript(command: readonly string[]): string {
  const [line = "", ...others] = command;
  if (others.length === 0) return `${line}\n`;
  return `exec ${command.map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(" ")}\n`;
}

async function isThere(file: string): Promise<boolean> {
  return access(file).then(
    () => true,
    () => false,
  );
}
