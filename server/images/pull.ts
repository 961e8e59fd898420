import { text } from "node:stream/consumers";

import type { Invocation } from "./command.ts";
import { UsageError } from "./options.ts";
import { formatJson, write } from "./output.ts";
import { createProgressView } from "./progress.ts";

/** @throws {UsageError} for a password without a user, or a user without a password. */
async function readPassword({ flags }: Invocation): Promise<string> {
  const isGiven = flags["password-stdin"] === true;
  if (isGiven !== (flags.username !== undefined)) throw new UsageError("--username and --password-stdin go together");
  return isGiven ? (await text(process.stdin)).replace(/\r?\n$/, "") : "";
}

export async function pullImages(invocation: Invocation): Promise<void> {
  const { client, names, flags, terminal } = invocation;
  const password = await readPassword(invocation);
  for (const image of names) {
    let id = "";
    using view = createProgressView(terminal);
    for await (const { progress, imageRef } of client.stream("FollowPull", {
      image,
      username: flags.username ?? "",
      password,
    })) {
      if (progress === null) id = imageRef;
      else if (flags.json) await write(terminal.out, formatJson(progress));
      else view.show(progress);
    }
    await write(terminal.out, flags.json ? formatJson({ image, id }) : `${id}\n`);
  }
}
