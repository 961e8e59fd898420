/** The JSON text that verbose answers carry; int64 as decimal strings, as protobuf's JSON mapping has them. */
export function toInfoJson(value: unknown): string {
  return JSON.stringify(value, (_key, item: unknown) => (typeof item === "bigint" ? item.toString() : item));
}
