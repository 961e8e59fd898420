import { createHash } from "node:crypto";
import { readdir } from "node:fs/promises";
import { join } from "node:path";

import type { ImageHost } from "../host.ts";
import { parsePolicy, type Policy } from "./policy.ts";

/** Where policies lie. */
export interface PolicyPlaces {
  /** The node's policy; empty for {@link defaultPolicyPath}, which need not exist. */
  readonly policyPath: string;
  /** Holds `<namespace>.json` for namespaces with a policy of their own. */
  readonly namespacePolicies: string;
}

/** A policy and the file it came from. */
export interface FoundPolicy {
  /** Tells which policy it is, and which version of its file. */
  readonly source: string;
  readonly policy: Policy;
}

export const defaultPolicyPath = "/etc/containers/policy.json";
const maxPolicyBytes = 4 << 20;
/** Namespaces that can be file names; others have no policy of their own. */
const namespacePattern = /^[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,250}[A-Za-z0-9])?$/;
const acceptAnything: Policy = { default: [{ type: "insecureAcceptAnything" }], transports: new Map() };

type PolicyHost = Pick<ImageHost, "readFileBounded">;

async function readPolicy(host: PolicyHost, path: string): Promise<FoundPolicy | undefined> {
  const bytes = await host.readFileBounded(path, maxPolicyBytes);
  if (bytes === undefined) return undefined;
  try {
    const version = createHash("sha256").update(bytes).digest("base64url");
    return { source: `${path} ${version}`, policy: parsePolicy(bytes) };
  } catch (thrown) {
    const why = thrown instanceof Error ? thrown.message : String(thrown);
    throw new Error(`the signature policy ${JSON.stringify(path)} cannot be used: ${why}`, { cause: thrown });
  }
}

async function readNodePolicy(host: PolicyHost, { policyPath }: PolicyPlaces): Promise<FoundPolicy> {
  const found = await readPolicy(host, policyPath || defaultPolicyPath);
  if (found !== undefined) return found;
  if (policyPath === "") return { source: "", policy: acceptAnything };
  throw new Error(`the signature policy ${JSON.stringify(policyPath)} is not there`);
}

/**
 * The policy that counts in a namespace: its own, else the node's. Files are read each time, so an edit counts at once.
 *
 * @throws {Error} for a policy that cannot be read or understood, or that was configured and is gone.
 */
export async function readPolicyFor(host: PolicyHost, places: PolicyPlaces, namespace: string): Promise<FoundPolicy> {
  const own = namespacePattern.test(namespace)
    ? await readPolicy(host, join(places.namespacePolicies, `${namespace}.json`))
    : undefined;
  return own ?? (await readNodePolicy(host, places));
}

/** Every policy of the node that can be understood: images are shared between namespaces, and so are signatures. */
export async function readAllPolicies(host: PolicyHost, places: PolicyPlaces): Promise<readonly Policy[]> {
  const names = await readdir(places.namespacePolicies).catch((): string[] => []);
  const readings = [
    readNodePolicy(host, places),
    ...names
      .filter((name) => name.endsWith(".json"))
      .map((name) => readPolicy(host, join(places.namespacePolicies, name))),
  ];
  const settled = await Promise.allSettled(readings);
  return settled.flatMap((each) => (each.status === "fulfilled" && each.value ? [each.value.policy] : []));
}
