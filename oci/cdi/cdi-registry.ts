import { readdir } from "node:fs/promises";
import { extname, join } from "node:path";
import { Code, CriError } from "../../cri-api/index.ts";
import type { Logger } from "../../cri-api/index.ts";
import { readFileBounded } from "../../native/index.ts";
import { joinCdiEdits } from "./cdi-edits.ts";
import type { CdiEdits, CdiSpec } from "./cdi-edits.ts";
import { parseCdiFile } from "./cdi-file.ts";

/** The devices that the files of this node offer. */
export interface CdiRegistry {
  /**
   * What the devices change in a container, in the order asked. The files are read afresh, so what was written before
   * the call counts in it; what has not changed is not parsed again.
   *
   * @param names Fully qualified: `vendor.com/class=name`.
   * @throws {CriError} `FailedPrecondition` naming devices that no file has, or two of one directory have.
   */
  resolve(names: readonly string[]): Promise<CdiEdits>;
}

export interface CdiRegistryParts {
  /** A later directory's device takes the place of an earlier one's. */
  readonly specDirs: readonly string[];
  readonly log: Pick<Logger, "warn">;
}

/** Vendors' files are some ten kilobytes; parsing a larger one would hold up everybody. */
const maxFileBytes = 1024 * 1024;
const maxFiles = 1000;

type Parsed = { readonly spec: CdiSpec } | { readonly error: string };

interface CdiFile {
  readonly path: string;
  readonly priority: number;
  readonly parsed: Parsed;
}

interface Offer {
  readonly file: string;
  readonly priority: number;
  readonly spec: CdiSpec;
  readonly edits: CdiEdits;
  /** The files of the same directory that have the device too. */
  readonly rivals: readonly string[];
}

export function createCdiRegistry({ specDirs, log }: CdiRegistryParts): CdiRegistry {
  let known = new Map<string, { readonly bytes: Buffer; readonly parsed: Parsed }>();

  async function load(path: string, seen: typeof known): Promise<Parsed | undefined> {
    try {
      const bytes = await readFileBounded(path, maxFileBytes);
      if (!bytes) return undefined; // removed since it was listed
      const before = known.get(path);
      const parsed = before?.bytes.equals(bytes) ? before.parsed : await parse(path, bytes);
      seen.set(path, { bytes, parsed });
      return parsed;
    } catch (thrown) {
      return { error: `cannot be read: ${thrown instanceof Error ? thrown.message : String(thrown)}` };
    }
  }

  async function parse(path: string, bytes: Buffer): Promise<Parsed> {
    try {
      return { spec: await parseCdiFile(bytes, extname(path) === ".json" ? "json" : "yaml") };
    } catch (thrown) {
      const error = firstLine(thrown);
      log.warn({ file: path, error }, "a CDI file cannot be used");
      return { error };
    }
  }

  async function readAll(): Promise<readonly CdiFile[]> {
    const seen: typeof known = new Map();
    const files: CdiFile[] = [];
    for (const [priority, directory] of specDirs.entries()) {
      const names = (await readdir(directory).catch(() => [])).filter((name) => /\.(?:json|yaml)$/.test(name)).sort();
      for (const path of names.slice(0, maxFiles).map((name) => join(directory, name))) {
        const parsed = await load(path, seen);
        if (parsed) files.push({ path, priority, parsed });
      }
    }
    known = seen;
    return files;
  }

  return {
    async resolve(names) {
      const files = await readAll();
      const offers = offersOf(files);
      const wanted = names.map((name) => ({ name, offer: offers.get(name) }));
      const missing = wanted.flatMap(({ name, offer }) =>
        offer && offer.rivals.length === 0 ? [] : [{ name, offer }],
      );
      if (missing.length > 0) throw unresolvable(missing, files);
      const specs = new Set<CdiSpec>();
      const edits = wanted.flatMap(({ offer }) => {
        if (!offer) return [];
        const common = specs.has(offer.spec) ? [] : [offer.spec.containerEdits];
        specs.add(offer.spec);
        return [...common, offer.edits];
      });
      return joinCdiEdits(edits);
    },
  };
}

function offersOf(files: readonly CdiFile[]): ReadonlyMap<string, Offer> {
  const offers = new Map<string, Offer>();
  for (const { path, priority, parsed } of files) {
    if ("error" in parsed) continue;
    const { spec } = parsed;
    for (const [device, edits] of spec.devices) {
      const name = `${spec.kind}=${device}`;
      const before = offers.get(name);
      const rivals = before?.priority === priority ? [...before.rivals, before.file] : [];
      offers.set(name, { file: path, priority, spec, edits, rivals });
    }
  }
  return offers;
}

const maxMessageBytes = 1024;

/** In the words that users of other runtimes search for, and what may be behind it. */
function unresolvable(
  missing: readonly { readonly name: string; readonly offer: Offer | undefined }[],
  files: readonly CdiFile[],
): CriError {
  const names = missing.map(({ name }) => name).join(", ");
  const conflicts = missing.flatMap(({ name, offer }) =>
    offer ? [`"${name}" is in ${[...offer.rivals, offer.file].map((file) => `"${file}"`).join(" and ")}`] : [],
  );
  const broken = files.flatMap(({ path, parsed }) => ("error" in parsed ? [`"${path}": ${parsed.error}`] : []));
  const text = [`CDI device injection failed: unresolvable CDI devices ${names}`, ...conflicts, ...broken].join("; ");
  return new CriError(Code.FailedPrecondition, text.slice(0, maxMessageBytes));
}

/** Parsers quote the place, over several lines. */
function firstLine(thrown: unknown): string {
  const [line = ""] = (thrown instanceof Error ? thrown.message : String(thrown)).split("\n");
  return line.slice(0, 200);
}
