import type { Logger } from "../../cri-api/index.ts";
import { type Credentials, registryHostOf } from "../registry/credentials.ts";
import { type AuthFile, authFor, helperFor } from "./auth-file.ts";
import { askCredentialHelper, type HelperParts } from "./credential-helper.ts";
import { FileIssue } from "./file-issue.ts";
import { authFilesHelper } from "./registries-conf.ts";

export interface CredentialSources extends HelperParts {
  readonly log: Logger;
  /** In the order in which they are asked. */
  readonly files: readonly AuthFile[];
  /** `credential-helpers` of registries.conf. */
  readonly helpers: readonly string[];
}

/** A helper that fails is told in the log, and costs no more than its credentials. */
async function ask(sources: CredentialSources, helper: string, server: string): Promise<Credentials | undefined> {
  try {
    return await askCredentialHelper(sources, helper, server);
  } catch (thrown) {
    if (!(thrown instanceof FileIssue)) throw thrown;
    sources.log.warn({ helper, server, issue: thrown.message }, "a credential helper did not answer");
    return undefined;
  }
}

async function inFile(sources: CredentialSources, file: AuthFile, location: string): Promise<Credentials | undefined> {
  const helper = helperFor(file, location);
  if (helper === undefined) return authFor(file, location);
  return (await ask(sources, helper.helper, helper.server)) ?? authFor(file, location);
}

/** The node's own credentials for a repository, `host[:port]/path`: the first that any source has. */
export async function findCredentials(sources: CredentialSources, location: string): Promise<Credentials | undefined> {
  for (const helper of sources.helpers) {
    if (helper !== authFilesHelper) {
      const found = await ask(sources, helper, registryHostOf(location));
      if (found !== undefined) return found;
      continue;
    }
    for (const file of sources.files) {
      const found = await inFile(sources, file, location);
      if (found !== undefined) return found;
    }
  }
  return undefined;
}
