import { createHash, randomUUID } from "node:crypto";
import { mkdir, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";

import type { cri, Logger } from "../../cri-api/index.ts";
import type { ImageHost } from "../host.ts";
import { isShortName, parseImageReference, repositoryOf, splitTag } from "../reference.ts";
import { type Credentials, credentialsFingerprint, credentialsOf, registryHostOf } from "../registry/credentials.ts";
import { type AuthFile, parseAuthFile } from "./auth-file.ts";
import { FileIssue } from "./file-issue.ts";
import { reasonOf } from "./reloading.ts";

/** What one pull proves itself with, before the node's own credentials. */
export interface PullAuth {
  /** Of the request. */
  readonly credentials: Credentials | undefined;
  /** The registry they are for; empty: the image's own. */
  readonly server: string;
  /** Left by a credential provider for this pull. */
  readonly namespaced: AuthFile | undefined;
  /** Equal for equal credentials, and holds none. */
  readonly fingerprint: string;
}

export interface NamespacedAuth {
  /** Absent: there is no such folder. */
  readonly directory: string | undefined;
  readonly host: Pick<ImageHost, "readFileBounded">;
  readonly log: Logger;
}

const maxFileBytes = 1 << 20;
/** A namespace's name is a DNS label; nothing else may become part of a path. */
const namespacePattern = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;

/** Takes the credentials away that a provider has left for this one pull; a second pull finds its own or none. */
async function claim(parts: NamespacedAuth, namespace: string, image: string): Promise<string | undefined> {
  const { directory, host } = parts;
  if (directory === undefined || !namespacePattern.test(namespace)) return undefined;
  for (const repository of repositoriesOf(image)) {
    const hash = createHash("sha256").update(repository).digest("hex");
    const taken = join(inUse(directory), `${namespace}-${hash}-${randomUUID()}.json`);
    try {
      await rename(join(directory, `${namespace}-${hash}.json`), taken);
    } catch (thrown) {
      if (reasonOf(thrown) !== "ENOENT") throw thrown;
      continue;
    }
    try {
      return (await host.readFileBounded(taken, maxFileBytes))?.toString("utf8");
    } finally {
      await rm(taken, { force: true });
    }
  }
  return undefined;
}

/** A provider may have spelled the host as the pod's author did. */
function repositoriesOf(image: string): ReadonlySet<string> {
  const repository = repositoryOf(parseImageReference(image));
  const { name } = splitTag(image.split("@", 1)[0] ?? "");
  return new Set([repository, ...(isShortName(image) ? [] : [name])]);
}

function inUse(directory: string): string {
  return join(directory, "in-use");
}

async function namespacedAuth(
  parts: NamespacedAuth,
  namespace: string,
  image: string,
): Promise<{ file: AuthFile; text: string } | undefined> {
  try {
    const text = await claim(parts, namespace, image);
    return text === undefined ? undefined : { file: parseAuthFile(text, "auth.json"), text };
  } catch (thrown) {
    const issue = thrown instanceof FileIssue ? thrown.message : reasonOf(thrown);
    parts.log.error({ namespace, image, issue }, "the credentials of the pod's namespace cannot be used");
    return undefined;
  }
}

/**
 * Makes the folder ready for pulls: what one that was cut short has claimed is removed. Where it cannot be written, pulls
 * go without it.
 */
export async function openNamespacedAuth({ directory, log }: Pick<NamespacedAuth, "directory" | "log">): Promise<void> {
  const isThere = directory !== undefined && (await readdir(directory).catch(() => undefined)) !== undefined;
  if (!isThere) return;
  try {
    await rm(inUse(directory), { recursive: true, force: true });
    await mkdir(inUse(directory), { mode: 0o700 });
  } catch (thrown) {
    log.error({ directory, issue: reasonOf(thrown) }, "credentials of namespaces cannot be taken from their folder");
  }
}

/**
 * The credentials of a request and of its pod's namespace.
 *
 * @throws {CriError} `InvalidArgument` for a malformed image name or `auth` field.
 */
export async function pullAuthOf(parts: NamespacedAuth, request: cri.PullImageRequest): Promise<PullAuth> {
  const credentials = credentialsOf(request.auth);
  const server = registryHostOf(request.auth?.serverAddress ?? "");
  const namespace = request.sandboxConfig?.metadata?.namespace ?? "";
  const namespaced = await namespacedAuth(parts, namespace, request.image?.image ?? "");
  const fingerprint = credentialsFingerprint(namespaced ? [credentials ?? null, namespaced.text] : credentials);
  return { credentials, server, namespaced: namespaced?.file, fingerprint };
}
