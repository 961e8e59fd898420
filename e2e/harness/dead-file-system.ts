import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, readFile, rm } from "node:fs/promises";
import { runCommand } from "./run-command.ts";
import { waitUntil } from "./wait-until.ts";

/** A mounted file system whose server never answers. */
export interface DeadFileSystem extends AsyncDisposable {
  readonly place: string;
  /** Ends the server: from now on every look is an error, and who hung goes on. */
  end(): Promise<void>;
}

/**
 * Mounts FUSE at a place with somebody who opened the device and reads nothing: what looks at it waits in the kernel, as
 * on a network file system whose server is gone, and only SIGKILL brings it back.
 */
export async function mountDeadFileSystem(place: string): Promise<DeadFileSystem> {
  await mkdir(place, { recursive: true });
  const script =
    'exec 3<>/dev/fuse; mount -i -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0,allow_other dead "$1" && exec sleep 3600';
  const server = spawn("sh", ["-c", script, "sh", place], { stdio: "ignore" });
  const ended = once(server, "exit");
  await waitUntil("the dead file system", async () =>
    (await readFile("/proc/self/mountinfo", "utf8")).includes(` ${place} `) ? true : undefined,
  );
  const end = async (): Promise<void> => {
    server.kill("SIGKILL");
    await ended;
  };
  return {
    place,
    end,
    async [Symbol.asyncDispose]() {
      await end();
      await runCommand(["umount", "--lazy", place]);
      await rm(place, { recursive: true });
    },
  };
}
