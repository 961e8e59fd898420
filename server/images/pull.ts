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

/** Pulls one image to its end and answers its id. What is drawn of the progress is gone then. */
async function pullOne({ client, flags, terminal }: Invocation, image: string, password: string): Promise<string> {
  let id = "";
  using view = createProgressView(terminal);
  const request = { image, username: flags.username ?? "", password };
  for await (const { progress, imageRef } of client.stream("FollowPull", request)) {
    if (progress === null) id = imageRef;
    else if (flags.json) await write(terminal.out, formatJson(progress));
    else view.show(progress);
  }
  return id;
}

export async function pullImages(invocation: Invocation): Promise<void> {
  const { names, flags, terminal } = invocation;
  const password = await readPassword(invocation);
  for (const image of names) {
    const id = await pullOne(invocation, image, password);
    await write(terminal.out, flags.json ? formatJson({ image, id }) : `${id}\n`);
  }
}
