import { Code, CriError } from "../cri-api/index.ts";
import { type Digest, isDigest } from "./digest.ts";

/** An image name in its full form: no short names, `tag` absent when a digest decides. */
export interface ImageReference {
  /** Registry host with port, in the spelling of {@link canonicalHost}: `docker.io`, `127.0.0.1:5000`. */
  readonly domain: string;
  /** Repository below the host: `library/busybox`. */
  readonly path: string;
  readonly tag: string | undefined;
  readonly digest: Digest | undefined;
}

const maxReferenceLength = 1024;
const maxRepositoryLength = 255;
const defaultDomain = "docker.io";
const domainPattern =
  /^(?:(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?$/;
const pathComponentPattern = /^[a-z0-9]+(?:(?:\.|__|_|-+)[a-z0-9]+)*$/;
const tagPattern = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/;

/** A user's text as it may stand in an error or a log: quoted, escaped and of bounded length. */
export function quote(text: string): string {
  return JSON.stringify(text.length > 256 ? `${text.slice(0, 256)}…` : text);
}

function invalid(text: string, why: string): CriError {
  return new CriError(Code.InvalidArgument, `invalid image reference ${quote(text)}: ${why}`);
}

/** The host that a name begins with: a first component that no repository's could be; undefined for a short name. */
function domainOf(name: string): string | undefined {
  const slash = name.indexOf("/");
  const first = slash === -1 ? "" : name.slice(0, slash);
  const isDomain = /[.:]/.test(first) || first === "localhost" || first.toLowerCase() !== first;
  return isDomain ? first : undefined;
}

/** Whether a user's name of an image leaves open which registry has it. */
export function isShortName(text: string): boolean {
  return domainOf(text) === undefined;
}

/**
 * The one spelling of all that lead to the same host: in lower case, without the port of HTTPS, addresses as they are
 * dialled. What an operator says of a host must hold however a pod's author spells it. Undefined for what is no host.
 */
export function canonicalHost(host: string): string | undefined {
  const url = `https://${host}`;
  if (!domainPattern.test(host) || !URL.canParse(url)) return undefined;
  const { host: spelled } = new URL(url);
  return /[.:]/.test(spelled) || spelled === "localhost" ? spelled : `${spelled}:443`; // a bare word begins a short name
}

/** `host[:port][/path]` with its host so spelled; what begins with none (`*.domain`) in lower case. */
export function canonicalPlace(place: string): string {
  const [host = "", ...path] = place.split("/");
  return [canonicalHost(host) ?? host.toLowerCase(), ...path].join("/");
}

/** `host[:port]`, as a name may begin with it. */
export function isRegistryHost(text: string): boolean {
  return canonicalHost(text) !== undefined;
}

/** Components of a repository's name: `library/busybox`. */
export function isRepositoryPath(text: string): boolean {
  return text.split("/").every((component) => pathComponentPattern.test(component));
}

function splitDomain(name: string): { domain: string | undefined; path: string } {
  const first = domainOf(name);
  const domain = canonicalHost(first ?? defaultDomain);
  const path = first === undefined ? name : name.slice(first.length + 1);
  if (domain !== defaultDomain && domain !== "index.docker.io") return { domain, path };
  return { domain: defaultDomain, path: path.includes("/") ? path : `library/${path}` };
}

/** Takes a name and its tag apart. */
export function splitTag(text: string): { name: string; tag: string | undefined } {
  const colon = text.lastIndexOf(":");
  return colon > text.lastIndexOf("/")
    ? { name: text.slice(0, colon), tag: text.slice(colon + 1) }
    : { name: text, tag: undefined };
}

function repositoryFault(path: string): string | undefined {
  if (!isRepositoryPath(path)) return "a repository is lower-case letters, digits and single separators";
  return path.length > maxRepositoryLength
    ? `the repository is longer than ${maxRepositoryLength} characters`
    : undefined;
}

/** An image name as it was written, but for the host's spelling, and what Docker's short names leave out. */
export type NamedReference = ImageReference;

/**
 * Parses an image name by the distribution grammar, tag and digest as they stand there.
 *
 * @throws {CriError} `InvalidArgument` for anything outside the grammar.
 * @see https://github.com/distribution/reference/blob/v0.6.0/reference.go
 */
export function parseNamedReference(text: string): NamedReference {
  if (text === "") throw new CriError(Code.InvalidArgument, "no image specified");
  if (text.length > maxReferenceLength) throw invalid(text, "too long");
  const at = text.indexOf("@");
  const digest = at === -1 ? undefined : text.slice(at + 1);
  if (digest !== undefined && !isDigest(digest)) throw invalid(text, "the digest is not sha256 or sha512 in hex");

  const { name, tag } = splitTag(at === -1 ? text : text.slice(0, at));
  if (tag !== undefined && !tagPattern.test(tag)) throw invalid(text, "the tag has characters that no tag may have");
  if (/^[0-9a-f]{64}$/.test(name)) throw invalid(text, "64 hex digits are an image id, not a name");
  const { domain, path } = splitDomain(name);
  if (domain === undefined) throw invalid(text, "the registry host is malformed");
  const fault = repositoryFault(path);
  if (fault !== undefined) throw invalid(text, fault);
  return { domain, path, tag, digest };
}

/**
 * Parses an image name and completes it as Docker and the CRI do: `busybox` is `docker.io/library/busybox:latest`; with
 * both a tag and a digest the digest decides and the tag is dropped.
 *
 * @throws {CriError} `InvalidArgument` for anything outside the grammar.
 */
export function parseImageReference(text: string): ImageReference {
  const { tag, digest, ...name } = parseNamedReference(text);
  return { ...name, tag: digest === undefined ? (tag ?? "latest") : undefined, digest };
}

/** `docker.io/library/busybox`: host and path, without tag and digest. */
export function repositoryOf(reference: ImageReference): string {
  return `${reference.domain}/${reference.path}`;
}

/** The full spelling: `repository:tag`, or `repository@digest`. */
export function formatReference(reference: ImageReference): string {
  const repository = repositoryOf(reference);
  return reference.digest === undefined ? `${repository}:${reference.tag}` : `${repository}@${reference.digest}`;
}
