import * as v from "valibot";

import type { ImageHost } from "../host.ts";
import type { Credentials } from "../registry/credentials.ts";
import type { RegistriesConfig } from "./config.ts";
import { checkDocument, FileIssue, parseJson } from "./file-issue.ts";
import { reasonOf } from "./reloading.ts";

const timeoutMs = 10_000;
const maxOutputBytes = 64 << 10;
/** What helpers print instead of credentials, by their protocol. */
const notFound = "credentials not found in native keychain";

const text = v.string("must be a string");
const answerSchema = v.object({ Username: text, Secret: text }, "must be an object");

/** A name that can only lead to a program `docker-credential-NAME` in PATH. */
export function isHelperName(name: string): boolean {
  return /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(name);
}

export interface HelperParts {
  readonly host: Pick<ImageHost, "run" | "which">;
  readonly environment: RegistriesConfig["helperEnvironment"];
}

/**
 * Asks `docker-credential-NAME get` about a server; undefined if it knows nothing. Its output is nobody's to see.
 *
 * @throws {FileIssue} when the helper is missing, fails, takes longer than 10 s or answers nonsense.
 * @see https://github.com/docker/docker-credential-helpers#development
 */
export async function askCredentialHelper(
  parts: HelperParts,
  helper: string,
  server: string,
): Promise<Credentials | undefined> {
  if (!isHelperName(helper)) throw new FileIssue(`credential helper ${JSON.stringify(helper)} has no valid name`);
  const { environment: env, host } = parts;
  const program = await host.which(`docker-credential-${helper}`, env.PATH);
  if (program === undefined) throw new FileIssue(`docker-credential-${helper} is not in PATH`);
  const answer = await runHelper(host, { argv: [program, "get"], env, input: server }, helper);
  if (answer === undefined) return undefined;
  const { Username: username, Secret: secret } = checkDocument(answerSchema, parseJson(answer));
  if (secret === "") return undefined;
  if (username === "<token>") return { kind: "identity", identityToken: secret };
  return { kind: "basic", username, password: secret };
}

async function runHelper(
  host: HelperParts["host"],
  command: { argv: [string, ...string[]]; env: Readonly<Record<string, string>>; input: string },
  helper: string,
): Promise<string | undefined> {
  try {
    const result = await host.run({ ...command, maxOutputBytes, signal: AbortSignal.timeout(timeoutMs) });
    const output = result.stdout.toString("utf8");
    if (result.status.kind === "exited" && result.status.code === 0 && !result.truncated) return output;
    if (output.includes(notFound)) return undefined;
    const { status } = result;
    throw new FileIssue(
      `docker-credential-${helper} failed with ${status.kind === "exited" ? `code ${status.code}` : "a signal"}`,
    );
  } catch (thrown) {
    if (thrown instanceof FileIssue) throw thrown;
    throw new FileIssue(`docker-credential-${helper} failed: ${reasonOf(thrown)}`, { cause: thrown });
  }
}
