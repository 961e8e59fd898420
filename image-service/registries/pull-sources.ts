import { Code, CriError } from "../../cri-api/index.ts";
import { formatReference, type ImageReference, quote, repositoryOf } from "../reference.ts";
import { apiAddressOf } from "../registry/endpoint.ts";
import type { RegistriesConf, RegistryRule } from "./registries-conf.ts";

/** One place where an image may be. */
export interface PullSource {
  /** As the operator wrote it: `host[:port][/path]`. */
  readonly place: string;
  /** `host[:port]/path` of the repository. */
  readonly location: string;
  readonly isInsecure: boolean;
  readonly isMirror: boolean;
}

/** How many characters of `name` the rule's prefix stands for; undefined where the rule is not for it. */
function matchLength(rule: RegistryRule, reference: ImageReference): number | undefined {
  const name = repositoryOf(reference);
  if (rule.suffix !== "") return formatReference(reference) === rule.prefix + rule.suffix ? name.length : undefined;
  if (rule.prefix.startsWith("*")) {
    const host = reference.domain.replace(/:\d+$/, "");
    return host.endsWith(rule.prefix.slice(1)) ? reference.domain.length : undefined;
  }
  const isWhole = name === rule.prefix || name.startsWith(`${rule.prefix}/`);
  return isWhole ? rule.prefix.length : undefined;
}

function ruleFor(conf: RegistriesConf, reference: ImageReference): { rule: RegistryRule; length: number } | undefined {
  let best: { rule: RegistryRule; length: number } | undefined;
  const size = ({ prefix, suffix }: RegistryRule): number => prefix.length + suffix.length;
  for (const rule of conf.rules) {
    const length = matchLength(rule, reference);
    if (length !== undefined && (best === undefined || size(rule) > size(best.rule))) best = { rule, length };
  }
  return best;
}

/**
 * Where an image is looked for, in order: the mirrors of the rule with the longest matching prefix, then its location.
 * Undefined where no rule is for it.
 *
 * @throws {CriError} `PermissionDenied` if the rule blocks it.
 */
export function pullSourcesOf(conf: RegistriesConf, reference: ImageReference): readonly PullSource[] | undefined {
  const found = ruleFor(conf, reference);
  if (found === undefined) return undefined;
  const { rule, length } = found;
  if (rule.isBlocked) {
    const why = `registry ${quote(rule.prefix + rule.suffix)} is blocked in registries.conf`;
    throw new CriError(Code.PermissionDenied, `cannot pull ${quote(formatReference(reference))}: ${why}`);
  }
  const name = repositoryOf(reference);
  const rest = name.slice(length);
  // A wildcard stands for hosts without their ports, so a host in its stead has the port that was asked for.
  const port = rule.prefix.startsWith("*") ? (/:\d+$/.exec(reference.domain)?.[0] ?? "") : "";
  const isBareHost = (place: string): boolean => !/[/:]/.test(place);
  const unused = reference.digest === undefined ? "digest-only" : "tag-only";
  const mirrors = rule.mirrors.filter(({ pullFrom }) => pullFrom !== unused);
  const sourceAt = (place: string, isInsecure: boolean, isMirror: boolean): PullSource => ({
    place,
    location: `${place}${isBareHost(place) ? port : ""}${rest}`,
    isInsecure,
    isMirror,
  });
  return [
    ...mirrors.map(({ location, isInsecure }) => sourceAt(location, isInsecure, true)),
    sourceAt(rule.location ?? name.slice(0, length), rule.isInsecure, false),
  ];
}

/** Hosts with which the operator allows plain HTTP and unverified TLS throughout. */
export function insecureHostsOf(conf: RegistriesConf): readonly string[] {
  const places = conf.rules.flatMap((rule) => [
    { location: rule.location ?? rule.prefix, isInsecure: rule.isInsecure },
    ...rule.mirrors,
  ]);
  return places.flatMap(({ location, isInsecure }) =>
    isInsecure && /^[^/*]+$/.test(location) ? [apiAddressOf(location)] : [],
  );
}
