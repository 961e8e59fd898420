import { readdir } from "node:fs/promises";
import { join } from "node:path";

import * as v from "valibot";
import { parse } from "yaml";

import { readFileBounded } from "../../native/index.ts";
import { canonicalPlace, type ImageReference } from "../reference.ts";
import { scopesOf } from "./policy-scope.ts";

/** Where the signatures of an image are. */
export interface SignaturePlaces {
  /** URL that OpenPGP signatures lie below. */
  readonly lookaside: string;
  /** Whether sigstore's signatures are read from the registry itself. */
  readonly useAttachments: boolean;
}

const maxFileBytes = 1 << 20;
/** What holds where no file says otherwise. */
const builtIn: SignaturePlaces = { lookaside: "file:///var/lib/containers/sigstore", useAttachments: false };

const url = v.pipe(v.string(), v.regex(/^(?:https?|file):\/\/[^\s?#]*$/, "must be a http, https or file URL"));
const section = v.strictObject({
  lookaside: v.optional(url),
  "lookaside-staging": v.optional(v.string()),
  sigstore: v.optional(url),
  "sigstore-staging": v.optional(v.string()),
  "use-sigstore-attachments": v.optional(v.boolean()),
});
type Section = v.InferOutput<typeof section>;
const file = v.nullable(
  v.strictObject({
    "default-docker": v.optional(section),
    docker: v.optional(v.record(v.string(), section), {}),
  }),
);

function parseFile(name: string, bytes: Buffer): readonly (readonly [scope: string, section: Section])[] {
  let document: unknown;
  try {
    document = parse(bytes.toString("utf8"), { schema: "core", maxAliasCount: 0, prettyErrors: false });
  } catch (thrown) {
    throw new Error(`${JSON.stringify(name)} is not YAML`, { cause: thrown });
  }
  const parsed = v.safeParse(file, document);
  if (!parsed.success) {
    const [issue] = parsed.issues;
    throw new Error(`${JSON.stringify(name)} is malformed at ${JSON.stringify(v.getDotPath(issue) ?? "")}`);
  }
  const { docker = {}, "default-docker": fallback } = parsed.output ?? {};
  return [...Object.entries(docker), ...(fallback === undefined ? [] : [["", fallback] as const])];
}

/** All files of the folder by scope, `""` for the default. @throws {Error} where two tell of one scope. */
async function readSections(directory: string): Promise<ReadonlyMap<string, Section>> {
  const sections = new Map<string, Section>();
  const names = await readdir(directory).catch((): string[] => []);
  for (const name of names.filter((each) => each.endsWith(".yaml")).sort()) {
    const bytes = await readFileBounded(join(directory, name), maxFileBytes);
    for (const [written, found] of bytes === undefined ? [] : parseFile(name, bytes)) {
      const scope = canonicalPlace(written);
      if (sections.has(scope)) throw new Error(`${JSON.stringify(name)} tells of ${JSON.stringify(scope)} once more`);
      sections.set(scope, found);
    }
  }
  return sections;
}

/**
 * Looks up where an image's signatures are: of each setting, the most specific section that has it decides, as in the
 * library that Podman and CRI-O share.
 *
 * @throws {Error} for a file that cannot be understood, or contradicts another.
 * @see https://github.com/containers/image/blob/v5.36.0/docs/containers-registries.d.5.md
 */
export async function readSignaturePlaces(directory: string, reference: ImageReference): Promise<SignaturePlaces> {
  const sections = await readSections(directory);
  const found = [...scopesOf(reference), ""].flatMap((scope) => sections.get(scope) ?? []);
  const [lookaside = builtIn.lookaside] = found.flatMap((each) => each.lookaside ?? each.sigstore ?? []);
  const [useAttachments = builtIn.useAttachments] = found.flatMap((each) => each["use-sigstore-attachments"] ?? []);
  return { lookaside, useAttachments };
}
