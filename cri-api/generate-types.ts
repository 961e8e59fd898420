import { writeFile } from "node:fs/promises";
import { parseArgs } from "node:util";
import protobuf from "protobufjs";
import { enumsOf, messagesOf, type PackageName, readSchema, servicesOf } from "./schema.ts";

const scalarTypes: Readonly<Partial<Record<string, string>>> = {
  string: "string",
  bool: "boolean",
  bytes: "Buffer",
  double: "number",
  int32: "number",
  uint32: "number",
  int64: "bigint",
  uint64: "bigint",
};

function renderFieldType(field: protobuf.Field): string {
  const element = field.resolvedType?.name ?? scalarTypes[field.type];
  if (element === undefined) throw new Error(`no TypeScript type for ${field.fullName}: ${field.type}`);
  if (field instanceof protobuf.MapField) return `Readonly<Record<string, ${element}>>`;
  if (field.repeated) return `readonly ${element}[]`;
  return field.resolvedType instanceof protobuf.Type ? `${element} | null` : element;
}

function renderMessage(type: protobuf.Type): string {
  const fields = type.fieldsArray.map((field) => {
    const deprecated = field.options?.["deprecated"] === true ? "  /** @deprecated */\n" : "";
    return `${deprecated}  readonly ${field.name}: ${renderFieldType(field)};\n`;
  });
  if (fields.length === 0) return `export type ${type.name} = Readonly<Record<string, never>>;\n`;
  return `export interface ${type.name} {\n${fields.join("")}}\n`;
}

function renderEnum(type: protobuf.Enum): string {
  const oneLine = `export type ${type.name} = ${Object.keys(type.values)
    .map((value) => JSON.stringify(value))
    .join(" | ")};\n`;
  if (oneLine.length <= 121) return oneLine;
  const values = Object.keys(type.values).map((value) => `\n  | ${JSON.stringify(value)}`);
  return `export type ${type.name} =${values.join("")};\n`;
}

function renderService(service: protobuf.Service): string {
  const methods = service.methodsArray.map((method) => {
    const parts = [
      `request: ${method.requestType}`,
      `response: ${method.responseType}`,
      `stream: ${String(method.responseStream === true)}`,
      ...(method.requestStream === true ? ["requestStream: true"] : []),
    ];
    const oneLine = `  readonly ${method.name}: { ${parts.map((part) => `readonly ${part}`).join("; ")} };\n`;
    if (oneLine.length <= 121) return oneLine;
    return `  readonly ${method.name}: {\n${parts.map((part) => `    readonly ${part};\n`).join("")}  };\n`;
  });
  return `export interface ${service.name}Methods {\n${methods.join("")}}\n`;
}

/** The text of a contract's types: what decoders give for every message, enum and RPC of the schema. */
export function renderTypes(packageName: PackageName): string {
  const schema = readSchema(packageName);
  const blocks = [
    `// Generated from ${packageName.replace(".", "-")}.proto by \`node cri-api/generate-types.ts\`; do not edit.\n` +
      "/* oxlint-disable max-lines -- generated: one declaration per message of the contract */\n",
    ...enumsOf(schema).map(renderEnum),
    ...messagesOf(schema).map(renderMessage),
    ...servicesOf(schema).map(renderService),
  ];
  return blocks.join("\n");
}

function lockField(type: protobuf.Type, field: protobuf.Field): string {
  const label = field instanceof protobuf.MapField ? `map<${field.keyType}>` : field.repeated ? "repeated" : "singular";
  return ["field", type.name, field.name, field.id, field.type, label].join("\t");
}

/** The lock of the wire contract: one line per message, field, enum value and RPC, named as in the .proto. */
export function renderLock(): string {
  const schema = readSchema("runtime.v1", { keepCase: true });
  const lines = [
    ...messagesOf(schema).flatMap((type) => [
      `message\t${type.name}`,
      ...type.fieldsArray.map((field) => lockField(type, field)),
    ]),
    ...enumsOf(schema).flatMap((type) =>
      Object.entries(type.values).map(([value, number]) => ["enum", type.name, value, number].join("\t")),
    ),
    ...servicesOf(schema).flatMap((service) =>
      service.methodsArray.map((method) =>
        [
          "rpc",
          service.name,
          method.name,
          method.requestType,
          `${method.responseStream === true ? "stream " : ""}${method.responseType}`,
        ].join("\t"),
      ),
    ),
  ];
  return `${lines.join("\n")}\n`;
}

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { "write-lock": { type: "boolean", default: false } } });
  await writeFile(new URL("./messages.ts", import.meta.url), renderTypes("runtime.v1"));
  await writeFile(new URL("./berth-messages.ts", import.meta.url), renderTypes("berth.v1"));
  // The lock moves on purpose only: a field that moved by accident must fail the test first.
  if (values["write-lock"]) await writeFile(new URL("./wire.lock", import.meta.url), renderLock());
}

if (import.meta.main) await main();
