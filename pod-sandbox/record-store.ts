import { readdir, rename } from "node:fs/promises";
import { join } from "node:path";
import { Code, CriError } from "../cri-api/index.ts";
import type { Logger } from "../cri-api/index.ts";
import {
  createKeyedLock,
  NewerSchemaError,
  readFileBounded,
  removeFiles,
  writeFileAtomically,
} from "../native/index.ts";

/** A record must be read again by the next daemon, also when it has grown by what happens to its object. */
const maxNewRecordBytes = 16 * 1024 * 1024;
const maxRecordBytes = 2 * maxNewRecordBytes;

export interface StoredObject {
  readonly id: string;
  readonly name: string;
  readonly createdAtNs: bigint;
}

/** How a kind of record is written and read; `parse` throws on anything it does not know to be whole. */
export interface RecordFormat<T> {
  /** "pod sandbox" or "container", as error messages call it. */
  readonly kind: string;
  serialize(record: T): string;
  parse(text: string): T;
  /** Records in creation are not found by clients. */
  isVisible(record: T): boolean;
  /**
   * The next daemon finds out by itself what this record tells, from an older one: its object has only gone further
   * towards its end. Where the disk takes no write, it may stay in memory, so that what fills the disk can be removed.
   */
  isFoundAgain(record: T): boolean;
}

/**
 * All records of one kind: in memory for every reader, one JSON file each on disk for the next daemon.
 * A change is on disk before memory, and so any client, sees it; only an end goes on where the disk takes no write.
 */
export interface RecordStore<T extends StoredObject> {
  get(id: string): T | undefined;
  byName(name: string): T | undefined;
  /** A visible record by full id or unambiguous prefix. @throws {CriError} `InvalidArgument` when a prefix is ambiguous. */
  find(idOrPrefix: string): T | undefined;
  /** As `find`. @throws {CriError} `NotFound` when there is none. */
  require(idOrPrefix: string): T;
  /** Visible records in order of their creation. */
  list(): readonly T[];
  all(): readonly T[];
  save(record: T): Promise<void>;
  /** Applies `change` to the record as it is when its turn comes; returning the same object changes nothing. */
  update(id: string, change: (current: T) => T): Promise<T | undefined>;
  remove(id: string): Promise<void>;
  /** Tells of every change from now on, in the order in which readers come to see them; `listen` must not throw. */
  onChange(listen: ChangeListener<T>): void;
}

/** What a reader saw before and sees now; undefined is no record. */
export type ChangeListener<T> = (before: T | undefined, after: T | undefined) => void;

/** Reads every record below `directory`; one that cannot be read is put aside as `<file>.corrupt` and the rest served. */
export async function openRecordStore<T extends StoredObject>(
  directory: string,
  format: RecordFormat<T>,
  log: Logger,
): Promise<RecordStore<T>> {
  const records: T[] = [];
  for (const file of await readdir(directory)) {
    const path = join(directory, file);
    if (!/^[0-9a-f]{64}\.json$/.test(file)) {
      if (/^\.[0-9a-f]{64}\.json\.[0-9a-f]+\.tmp$/.test(file)) await removeFiles([path]); // a write cut short
      continue;
    }
    try {
      const text = await readFileBounded(path, maxRecordBytes);
      if (text === undefined) continue;
      const record = format.parse(text.toString("utf8"));
      if (file !== `${record.id}.json`) throw new Error(`holds the record of "${record.id}"`);
      records.push(record);
    } catch (thrown) {
      if (thrown instanceof NewerSchemaError) throw thrown;
      log.error({ file, err: String(thrown) }, `unreadable ${format.kind} record put aside`);
      await rename(path, `${path}.corrupt`);
    }
  }
  records.sort((a, b) => Number(a.createdAtNs - b.createdAtNs));
  return new Store({ directory, format, log }, records);
}

interface StoreParts<T extends StoredObject> {
  readonly directory: string;
  readonly format: RecordFormat<T>;
  readonly log: Logger;
}

class Store<T extends StoredObject> implements RecordStore<T> {
  readonly #directory: string;
  readonly #format: RecordFormat<T>;
  readonly #log: Logger;
  readonly #byId = new Map<string, T>();
  readonly #idByName = new Map<string, string>();
  readonly #lock = createKeyedLock();
  readonly #listeners: ChangeListener<T>[] = [];

  constructor(parts: StoreParts<T>, records: readonly T[]) {
    this.#directory = parts.directory;
    this.#format = parts.format;
    this.#log = parts.log;
    for (const record of records) this.#remember(record);
  }

  get(id: string): T | undefined {
    return this.#byId.get(id);
  }

  byName(name: string): T | undefined {
    const id = this.#idByName.get(name);
    return id === undefined ? undefined : this.#byId.get(id);
  }

  find(idOrPrefix: string): T | undefined {
    const exact = this.#byId.get(idOrPrefix);
    if (exact) return this.#format.isVisible(exact) ? exact : undefined;
    if (idOrPrefix === "") return undefined;
    const matches = this.list().filter((record) => record.id.startsWith(idOrPrefix));
    if (matches.length > 1) {
      throw new CriError(Code.InvalidArgument, `${this.#format.kind} id "${idOrPrefix}" is ambiguous`);
    }
    return matches[0];
  }

  require(idOrPrefix: string): T {
    if (idOrPrefix === "") throw new CriError(Code.InvalidArgument, `${this.#format.kind} id is empty`);
    const record = this.find(idOrPrefix);
    if (!record) throw new CriError(Code.NotFound, `${this.#format.kind} "${idOrPrefix}" not found`);
    return record;
  }

  list(): readonly T[] {
    return this.all().filter((record) => this.#format.isVisible(record));
  }

  all(): readonly T[] {
    return [...this.#byId.values()];
  }

  save(record: T): Promise<void> {
    return this.#lock.run(record.id, undefined, () => this.#write(record));
  }

  update(id: string, change: (current: T) => T): Promise<T | undefined> {
    return this.#lock.run(id, undefined, async () => {
      const current = this.#byId.get(id);
      if (!current) return undefined;
      const next = change(current);
      if (next !== current) await this.#write(next);
      return next;
    });
  }

  remove(id: string): Promise<void> {
    return this.#lock.run(id, undefined, async () => {
      await removeFiles([this.#pathOf(id)]);
      const record = this.#byId.get(id);
      this.#byId.delete(id);
      if (record && this.#idByName.get(record.name) === id) this.#idByName.delete(record.name);
      if (record) for (const listen of this.#listeners) listen(record, undefined);
    });
  }

  onChange(listen: ChangeListener<T>): void {
    this.#listeners.push(listen);
  }

  async #write(record: T): Promise<void> {
    const before = this.#byId.get(record.id);
    const text = Buffer.from(this.#format.serialize(record));
    if (!before && text.length > maxNewRecordBytes) {
      throw new CriError(Code.InvalidArgument, `${this.#format.kind} config is too large: ${text.length} bytes`);
    }
    try {
      await writeFileAtomically(this.#pathOf(record.id), text, { mode: 0o600 });
    } catch (thrown) {
      if (!before || !this.#format.isFoundAgain(record)) throw thrown;
      this.#log.error({ id: record.id, err: String(thrown) }, `${this.#format.kind} record kept in memory alone`);
    }
    this.#remember(record);
    for (const listen of this.#listeners) listen(before, record);
  }

  #remember(record: T): void {
    this.#byId.set(record.id, record);
    this.#idByName.set(record.name, record.id);
  }

  #pathOf(id: string): string {
    return join(this.#directory, `${id}.json`);
  }
}
