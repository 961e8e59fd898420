import { isIP } from "node:net";
import * as v from "valibot";
import { describeIssues, type JsonObject } from "./json.ts";
import { isAtLeast, isSpecVersion, type SpecVersion } from "./spec-version.ts";

/** What ADD made. */
export interface CniResult {
  /** Addresses of the pod without their prefix, in the order the plugins gave them; may be empty. */
  readonly ips: readonly string[];
  /** The final result as JSON, in the version of the network's configuration. */
  readonly raw: JsonObject;
}

const cidr = v.pipe(v.string("must be a string"), v.check(isCidr, "must be an address with its prefix length"));
const address = v.pipe(
  v.string("must be a string"),
  v.check((text) => isIP(text) !== 0, "must be an IP address"),
);
const route = v.looseObject({ dst: cidr, gw: v.nullish(address) });
const routes = v.nullish(v.array(route));
const dns = v.nullish(v.looseObject({}));

const modernSchema = v.looseObject({
  interfaces: v.nullish(v.array(v.looseObject({ name: v.string(), sandbox: v.nullish(v.string()) }))),
  ips: v.nullish(
    v.array(
      v.looseObject({
        address: cidr,
        gateway: v.nullish(address),
        interface: v.nullish(v.pipe(v.number(), v.integer())),
      }),
    ),
  ),
  routes,
  dns,
});

const oldFamily = v.nullish(v.looseObject({ ip: cidr, gateway: v.nullish(address), routes }));
const oldSchema = v.looseObject({ ip4: oldFamily, ip6: oldFamily, dns });

type Modern = v.InferOutput<typeof modernSchema>;

/**
 * Reads a result, which plugins may give in another version than they were asked in (or without naming it), and
 * brings it to `version`. A result that has that version already is handed on as it is, unknown keys included.
 *
 * @throws {Error} with a text for the operator if it is no valid result.
 */
export function readResult(fields: JsonObject, version: SpecVersion): CniResult {
  const named = fields["cniVersion"];
  const from = named === undefined || named === "" ? version : named;
  if (typeof from !== "string" || !isSpecVersion(from)) {
    throw new Error(`cniVersion: ${JSON.stringify(from).slice(0, 100)} is not a version of the CNI specification`);
  }
  const modern = isAtLeast(from, "0.3.0") ? parseBy(modernSchema, fields) : fromOld(fields);
  const raw = from === version ? { ...fields, cniVersion: version } : convert(modern, from, version);
  return { ips: podAddresses(modern), raw };
}

function convert(modern: Modern, from: SpecVersion, to: SpecVersion): JsonObject {
  if (isAtLeast(from, "1.0.0") && isAtLeast(to, "1.0.0")) return { ...modern, cniVersion: to };
  if (!isAtLeast(to, "0.3.0")) return toOld(modern, to);
  const isNamingFamily = !isAtLeast(to, "1.0.0");
  return withoutAbsent({
    cniVersion: to,
    interfaces: modern.interfaces?.map(({ name, mac, sandbox }) => withoutAbsent({ name, mac, sandbox })),
    ips: modern.ips?.map(({ address, gateway, interface: index }) =>
      withoutAbsent({ version: isNamingFamily ? familyOf(address) : undefined, interface: index, address, gateway }),
    ),
    routes: modern.routes,
    dns: modern.dns,
  });
}

function fromOld(fields: JsonObject): Modern {
  const { ip4, ip6, dns: names } = parseBy(oldSchema, fields);
  const families = [ip4, ip6].filter((family) => family !== undefined && family !== null);
  return {
    ips: families.map(({ ip, gateway }) => ({ address: ip, ...(gateway ? { gateway } : {}) })),
    routes: families.flatMap((family) => family.routes ?? []),
    ...(names ? { dns: names } : {}),
  };
}

function toOld(modern: Modern, to: SpecVersion): JsonObject {
  function ofFamily(family: "4" | "6"): JsonObject | undefined {
    const first = modern.ips?.find(({ address }) => familyOf(address) === family);
    if (first === undefined) return undefined;
    const reached = modern.routes?.filter(({ dst }) => familyOf(dst) === family);
    return withoutAbsent({ ip: first.address, gateway: first.gateway, routes: reached });
  }
  return withoutAbsent({ cniVersion: to, ip4: ofFamily("4"), ip6: ofFamily("6"), dns: modern.dns });
}

/** Addresses that a plugin says sit on an interface of the node are not the pod's, unless there are no others. */
function podAddresses(modern: Modern): readonly string[] {
  const all = modern.ips ?? [];
  const inPod = all.filter(({ interface: index }) => {
    const owner = typeof index === "number" ? modern.interfaces?.[index] : undefined;
    return owner === undefined || Boolean(owner.sandbox);
  });
  return (inPod.length > 0 ? inPod : all).map(({ address }) => withoutPrefix(address));
}

function familyOf(cidrText: string): "4" | "6" {
  return isIP(withoutPrefix(cidrText)) === 4 ? "4" : "6";
}

function withoutPrefix(cidrText: string): string {
  return cidrText.split("/", 1)[0] ?? "";
}

function isCidr(text: string): boolean {
  const match = /^([^/%]+)\/(\d{1,3})$/.exec(text);
  const family = isIP(match?.[1] ?? "");
  return family !== 0 && Number(match?.[2]) <= (family === 4 ? 32 : 128);
}

function withoutAbsent(fields: JsonObject): JsonObject {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined && value !== null));
}

function parseBy<Schema extends v.GenericSchema>(schema: Schema, fields: JsonObject): v.InferOutput<Schema> {
  const parsed = v.safeParse(schema, fields);
  if (!parsed.success) throw new Error(describeIssues(parsed.issues, ""));
  return parsed.output;
}
