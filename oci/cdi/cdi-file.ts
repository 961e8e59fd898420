import * as v from "valibot";
import type { CdiEdits, CdiSpec } from "./cdi-edits.ts";

/** Versions of the CDI specification whose files we read. */
const versions = ["0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0"] as const;

const text = v.pipe(v.string("must be text"), v.minLength(1, "must not be empty"));
const texts = v.optional(v.array(v.string("must be text"), "must be a list"), []);
const count = (max: number): v.GenericSchema<number> =>
  v.pipe(v.number("must be a number"), v.integer("must be whole"), v.minValue(0), v.maxValue(max));
const uint32 = count(2 ** 32 - 1);
const environment = v.optional(
  v.array(v.pipe(v.string("must be text"), v.regex(/^[^=\0]+=[^\0]*$/, "must be NAME=VALUE")), "must be a list"),
  [],
);
const annotations = v.optional(v.record(v.string(), v.string()));
const absolutePath = v.pipe(v.string("must be text"), v.regex(/^\/[^\0]*$/, "must be an absolute path"));

const deviceNode = v.strictObject({
  path: absolutePath,
  hostPath: v.optional(absolutePath),
  /** `u` is a character device without a buffer, which Linux does not tell from others. */
  type: v.optional(v.picklist(["", "b", "c", "u", "p"], "must be b, c, u or p")),
  major: v.optional(count(0xfff)),
  minor: v.optional(count(0xfffff)),
  fileMode: v.optional(uint32),
  permissions: v.optional(
    v.pipe(v.string(), v.regex(/^(?:none|[rwm]*)$/, 'must be letters out of "rwm", or none')),
    "",
  ),
  uid: v.optional(uint32),
  gid: v.optional(uint32),
});
const mount = v.strictObject({
  hostPath: text,
  containerPath: absolutePath,
  options: texts,
  type: v.optional(v.string(), ""),
});
const hook = v.strictObject({
  hookName: v.picklist(
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
    "is no hook of the runtime specification",
  ),
  path: absolutePath,
  args: texts,
  env: environment,
  timeout: v.optional(count(2 ** 31 - 1)),
});
const intelRdt = v.strictObject({
  closID: v.optional(v.pipe(v.string(), v.regex(/^(?:\/|(?!\.{1,2}$)[^/\n\0]{0,4095})$/, "must be a file name, or /"))),
  l3CacheSchema: v.optional(v.string()),
  memBwSchema: v.optional(v.string()),
  schemata: v.optional(v.array(v.string())),
  enableMonitoring: v.optional(v.boolean()),
  enableCMT: v.optional(v.boolean()),
  enableMBM: v.optional(v.boolean()),
});
const interfaceName = v.pipe(
  v.string("must be text"),
  v.regex(/^(?!\.{1,2}$)[!-.0-9;-~]{1,15}$/, "is no name of an interface"),
);

const edits = v.strictObject({
  env: environment,
  deviceNodes: v.optional(v.array(deviceNode, "must be a list"), []),
  mounts: v.optional(v.array(mount, "must be a list"), []),
  hooks: v.optional(v.array(hook, "must be a list"), []),
  additionalGids: v.optional(v.array(uint32, "must be a list"), []),
  intelRdt: v.optional(intelRdt),
  netDevices: v.optional(
    v.array(v.strictObject({ hostInterfaceName: interfaceName, name: interfaceName }), "must be a list"),
    [],
  ),
});
const device = v.strictObject({
  name: v.pipe(text, v.regex(/^[A-Za-z0-9](?:[\w.:-]*[A-Za-z0-9])?$/, "is no device name")),
  annotations,
  containerEdits: edits,
});
const schema = v.strictObject({
  cdiVersion: v.pipe(
    v.string("must be text"),
    v.transform((version) => version.replace(/^v/, "")),
    v.picklist(versions, `must be one of ${versions.join(", ")}`),
  ),
  kind: v.pipe(
    text,
    v.regex(/^[A-Za-z](?:[\w.-]*[A-Za-z0-9])?\/[A-Za-z](?:[\w.-]*[A-Za-z0-9])?$/, "must be vendor/class"),
  ),
  annotations,
  devices: v.pipe(v.array(device, "must be a list"), v.minLength(1, "must name a device")),
  containerEdits: v.optional(edits),
});

const noEdits: CdiEdits = { env: [], deviceNodes: [], mounts: [], hooks: [], additionalGids: [], netDevices: [] };

/** Deeper than any file needs to go, and shallow enough for every recursive reader. */
const maxAliases = 100;

/** YAML's reader is large, and on most nodes never needed. Version 1.1 is what the files are written for: 0660 is octal. */
async function readYaml(document: string): Promise<unknown> {
  const { parse } = await import("yaml");
  return parse(document, { version: "1.1", maxAliasCount: maxAliases });
}

/**
 * Reads a file of the Container Device Interface.
 *
 * @throws {Error} naming the first key that is wrong. An unknown key is wrong: ignored, its edit would be missing.
 * @see https://github.com/cncf-tags/container-device-interface/blob/v1.1.0/SPEC.md
 */
export async function parseCdiFile(bytes: Uint8Array, format: "json" | "yaml"): Promise<CdiSpec> {
  const document = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  const parsed = v.safeParse(schema, format === "json" ? JSON.parse(document) : await readYaml(document));
  if (!parsed.success) {
    const [issue] = parsed.issues;
    const key = v.getDotPath(issue) ?? "";
    throw new Error(issue.type === "strict_object" ? `unknown or missing key "${key}"` : `"${key}" ${issue.message}`);
  }
  const { kind, devices, containerEdits } = parsed.output;
  const names = new Set(devices.map(({ name }) => name));
  if (names.size < devices.length) throw new Error("a device is there twice");
  return {
    kind,
    containerEdits: containerEdits ?? noEdits,
    devices: new Map(devices.map((each) => [each.name, each.containerEdits])),
  };
}
