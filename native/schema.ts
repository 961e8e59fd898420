/** What lies on disk was written by a newer Berth: starting would lose what this one cannot read. */
export class NewerSchemaError extends Error {
  override readonly name = "NewerSchemaError";
}

/** @throws {NewerSchemaError} for a record that says it is of a later schema than the last one known. */
export function refuseNewerSchema(record: unknown, known: number): void {
  if (typeof record !== "object" || record === null || !("schemaVersion" in record)) return;
  const { schemaVersion } = record;
  if (typeof schemaVersion !== "number" || schemaVersion <= known) return;
  throw new NewerSchemaError(
    `state of schema ${schemaVersion} was written by a newer Berth; this one knows up to ${known}`,
  );
}
