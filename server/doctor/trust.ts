import { join } from "node:path";
import { defaultPolicyPath, parsePolicy } from "../../image-service/index.ts";
import type { KeySource, Policy, Requirement } from "../../image-service/index.ts";
import type { Config } from "../config.ts";
import type { Finding, Level } from "./finding.ts";
import type { Machine } from "./machine.ts";

const subject = "signature policy";

interface Reading {
  readonly findings: readonly Finding[];
  readonly policy?: Policy;
}

function parse(path: string, text: string, level: Level): Reading {
  try {
    return { findings: [], policy: parsePolicy(Buffer.from(text)) };
  } catch (thrown) {
    const why = thrown instanceof Error ? thrown.message : String(thrown);
    return {
      findings: [{ level, subject, text: `"${path}" cannot be used, so nothing can be pulled under it: ${why}` }],
    };
  }
}

async function readNodePolicy(machine: Machine, configured: string): Promise<Reading> {
  const path = configured || defaultPolicyPath;
  const text = await machine.readText(path);
  if (text !== undefined) {
    const reading = parse(path, text, "fail");
    return reading.policy ? { ...reading, findings: [{ level: "ok", subject, text: path }] } : reading;
  }
  if (configured === "") return { findings: [{ level: "ok", subject, text: `no ${path}; every image is accepted` }] };
  return { findings: [{ level: "fail", subject, text: `"${path}" is not there, so nothing can be pulled` }] };
}

async function readNamespacePolicies(machine: Machine, directory: string): Promise<readonly Reading[]> {
  const names = (await machine.listNames(directory)).filter((name) => name.endsWith(".json"));
  return await Promise.all(
    names.map(async (name) =>
      parse(join(directory, name), (await machine.readText(join(directory, name))) ?? "", "warn"),
    ),
  );
}

/** Where the keys and certificates of a requirement come from. */
function sourcesOf(requirement: Requirement): readonly (KeySource | undefined)[] {
  if (requirement.type === "signedBy") return [requirement.keys];
  if (requirement.type !== "sigstoreSigned") return [];
  const { signer, rekor } = requirement;
  if ("keys" in signer) return [signer.keys, rekor];
  return "pki" in signer ? [signer.pki.roots, signer.pki.intermediates] : [signer.fulcio.ca, rekor];
}

/** Whether what the policies ask for can be checked here: gpg, and the files of the keys. */
async function checkNeeds(machine: Machine, policies: readonly Policy[]): Promise<Finding[]> {
  const requirements = policies.flatMap(({ default: fallback, transports }) => [
    ...fallback,
    ...[...transports.values()].flatMap((scopes) => [...scopes.values()].flat()),
  ]);
  const findings: Finding[] = [];
  const needsGpg = requirements.some(({ type }) => type === "signedBy");
  if (needsGpg && (await machine.findProgram("gpg")) === undefined) {
    const text = "gpg is not there, so no image that needs an OpenPGP signature can be pulled or run";
    findings.push({ level: "warn", subject, text, cure: "apt-get install gpg" });
  }
  const sources = requirements.flatMap(sourcesOf).filter((source) => source !== undefined);
  for (const path of new Set(sources.flatMap((source) => ("paths" in source ? source.paths : [])))) {
    if ((await machine.readText(path)) !== undefined) continue;
    findings.push({ level: "warn", subject, text: `the key file "${path}" is not there` });
  }
  return findings;
}

/** Which images may be pulled and run. */
export async function checkSignaturePolicies(machine: Machine, { trust }: Config): Promise<Finding[]> {
  const readings = [
    await readNodePolicy(machine, trust.policyPath),
    ...(await readNamespacePolicies(machine, trust.namespacePolicies)),
  ];
  const policies = readings.flatMap(({ policy }) => (policy === undefined ? [] : [policy]));
  return [...readings.flatMap(({ findings }) => findings), ...(await checkNeeds(machine, policies))];
}
