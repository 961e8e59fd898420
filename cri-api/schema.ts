import { readFileSync } from "node:fs";
import protobuf from "protobufjs";

export const packageName = "runtime.v1";

/**
 * Parses runtime-v1.proto. Reads a file synchronously: for start-up and tools only.
 *
 * @param options.keepCase Keep field names as written there instead of turning them to camelCase.
 */
export function readSchema(options: { readonly keepCase: boolean } = { keepCase: false }): protobuf.Namespace {
  const source = readFileSync(new URL("./runtime-v1.proto", import.meta.url), "utf8");
  const { root } = protobuf.parse(source, new protobuf.Root(), options);
  root.resolveAll();
  const found = root.lookup(packageName);
  if (!(found instanceof protobuf.Namespace)) throw new Error(`runtime-v1.proto has no package ${packageName}`);
  return found;
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
