import { readFileSync } from "node:fs";
import protobuf from "protobufjs";

/** The CRI, and what Berth's own command line needs besides. */
const files = { "runtime.v1": "runtime-v1.proto", "berth.v1": "berth-v1.proto" } as const;
export type PackageName = keyof typeof files;

/**
 * Parses a contract. Reads a file synchronously: for start-up and tools only.
 *
 * @param options.keepCase Keep field names as written there instead of turning them to camelCase.
 */
export function readSchema(packageName: PackageName, options = { keepCase: false }): protobuf.Namespace {
  const source = readFileSync(new URL(files[packageName], import.meta.url), "utf8");
  const { root } = protobuf.parse(source, new protobuf.Root(), options);
  root.resolveAll();
  const found = root.lookup(packageName);
  if (!(found instanceof protobuf.Namespace)) throw new Error(`${files[packageName]} has no package ${packageName}`);
  return found;
}

/* One of each for a thread: codecs compile their functions into it, and every further copy is a megabyte. */
const loaded = new Map<PackageName, protobuf.Namespace>();

/** A contract as decoders see it, parsed at the first need: at start-up. */
export function loadSchema(packageName: PackageName): protobuf.Namespace {
  const schema = loaded.get(packageName) ?? readSchema(packageName);
  loaded.set(packageName, schema);
  return schema;
}

export function messagesOf(schema: protobuf.Namespace): protobuf.Type[] {
  return schema.nestedArray.filter((object) => object instanceof protobuf.Type);
}

/** Top-level enums and those inside messages, in the order of the file. */
export function enumsOf(schema: protobuf.Namespace): protobuf.Enum[] {
  return schema.nestedArray.flatMap((object) => {
    if (object instanceof protobuf.Enum) return [object];
    return object instanceof protobuf.Type ? object.nestedArray.filter((inner) => inner instanceof protobuf.Enum) : [];
  });
}

export function servicesOf(schema: protobuf.Namespace): protobuf.Service[] {
  return schema.nestedArray.filter((object) => object instanceof protobuf.Service);
}
