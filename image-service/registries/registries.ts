import { readdir } from "node:fs/promises";
import { join } from "node:path";

import { Code, CriError, type cri, type Logger } from "../../cri-api/index.ts";
import type { ImageHost } from "../host.ts";
import { formatReference, type ImageReference, parseImageReference, repositoryOf } from "../reference.ts";
import type { Endpoint, NetworkSettings } from "../registry/endpoint.ts";
import { type AuthFile, parseAuthFile } from "./auth-file.ts";
import { certificatePaths, type Certificates, parseCertificates } from "./certificates.ts";
import type { RegistriesConfig } from "./config.ts";
import { endpointOfHost, endpointOfSource, type EndpointSources } from "./endpoints.ts";
import { hostFilePaths, type HostFile, parseHostFiles } from "./host-files.ts";
import { hostOfDirectory } from "./hosts-toml.ts";
import { openNamespacedAuth, type PullAuth, pullAuthOf } from "./pull-auth.ts";
import { insecureHostsOf, pullSourcesOf } from "./pull-sources.ts";
import { parseRegistriesConf, type RegistriesConf } from "./registries-conf.ts";
import { createReloading, parseFile, type Reloading } from "./reloading.ts";
import { candidatesOf, referencesFor } from "./short-names.ts";

/** How registries are reached, by the operator's files as they are at each pull. */
export interface Registries {
  /** Reads what has changed in the files that are for all registries. */
  refresh(): Promise<void>;
  /**
   * What a name may stand for, from memory.
   *
   * @throws {CriError} `InvalidArgument`; `FailedPrecondition` if registries.conf has never been good.
   */
  candidates(text: string): readonly ImageReference[];
  /**
   * The full names that a name may stand for among the images here, from memory; none for an ambiguous one.
   *
   * @throws {CriError} `InvalidArgument` for a malformed name.
   */
  readonly namesFor: (text: string) => readonly string[];
  /** @throws {CriError} `InvalidArgument` for a malformed request. */
  authOf(request: cri.PullImageRequest): Promise<PullAuth>;
  /**
   * Where to look for an image, and as whom.
   *
   * @throws {CriError} `PermissionDenied` if it is blocked, `FailedPrecondition` if a file it takes has never been good.
   */
  plan(reference: ImageReference, auth: PullAuth): Promise<PullPlan>;
  /** What is wrong with the files as they are; what they said before is in force. */
  problems(): readonly string[];
}

export interface PullPlan {
  /** In the order in which they are asked. */
  readonly endpoints: readonly Endpoint[];
  readonly network: NetworkSettings;
}

export interface RegistriesParts {
  readonly config: RegistriesConfig;
  readonly host: Pick<ImageHost, "readFileBounded" | "run" | "which">;
  readonly log: Logger;
}

/** Names of hosts come with pods; what is known of the longest unused one goes first. */
const maxHosts = 256;

async function confPaths(config: RegistriesConfig): Promise<readonly string[]> {
  const names = await readdir(config.confDir).catch((): string[] => []);
  const dropIns = names.filter((name) => name.endsWith(".conf")).sort();
  return [config.confFile, ...dropIns.map((name) => join(config.confDir, name)), config.shortNameAliasesFile];
}

/** Makes what belongs to a host when it is first asked for, and forgets what was not for long. */
function createPerHost<T>(make: (host: string) => Reloading<T>): {
  look(host: string): Promise<Reloading<T>>;
  problems(): readonly string[];
} {
  const known = new Map<string, Reloading<T>>();
  return {
    async look(host) {
      const found = known.get(host) ?? make(host);
      known.delete(host);
      known.set(host, found);
      for (const oldest of known.keys()) {
        if (known.size <= maxHosts) break;
        known.delete(oldest);
      }
      await found.look();
      return found;
    },
    problems: () => [...known.values()].flatMap((each) => each.problem() ?? []),
  };
}

function goodValue<T>(reloading: Reloading<T>): T {
  const value = reloading.value();
  if (value !== undefined) return value;
  throw new CriError(Code.FailedPrecondition, `the registry files cannot be used: ${reloading.problem()}`);
}

interface Files {
  readonly conf: Reloading<RegistriesConf>;
  readonly authFiles: readonly Reloading<readonly AuthFile[]>[];
}

function watchFiles(parts: RegistriesParts): Files {
  const { config } = parts;
  return {
    conf: createReloading({ ...parts, paths: () => confPaths(config), parse: parseRegistriesConf }),
    authFiles: config.authFiles.map(({ path, format }) =>
      createReloading({
        ...parts,
        paths: async () => [path],
        parse: (files) => files.map((file) => parseFile(file, (text) => parseAuthFile(text, format))),
      }),
    ),
  };
}

/** registries.conf first; where it says nothing of an image, hosts.toml; and else the registry that the name names. */
async function endpointsOf(
  conf: RegistriesConf,
  sources: EndpointSources,
  hostFileOf: (registry: string) => Promise<HostFile>,
): Promise<readonly Endpoint[]> {
  const { reference } = sources;
  const pullSources = pullSourcesOf(conf, reference);
  const hostFile = pullSources === undefined ? await hostFileOf(reference.domain) : undefined;
  if (hostFile?.isForRegistry) return await Promise.all(hostFile.hosts.map((each) => endpointOfHost(sources, each)));
  const own = { place: reference.domain, location: repositoryOf(reference), isInsecure: false, isMirror: false };
  return await Promise.all((pullSources ?? [own]).map((each) => endpointOfSource(sources, each)));
}

/** Of the folders of `certs.d` and its like, which are named after hosts; any other is for whom nothing else is. */
async function hostsIn(directories: readonly string[]): Promise<readonly string[]> {
  const names = await Promise.all(directories.map((each) => readdir(each).catch((): string[] => [])));
  return [...new Set(names.flat().map((name) => hostOfDirectory(name) ?? name))];
}

function createRegistries(parts: RegistriesParts): Registries & { lookAtAll(): Promise<void> } {
  const { config, host, log } = parts;
  const files = watchFiles(parts);
  const { hostsDir, certsDirs } = config;
  const certsOf = [...certsDirs, ...(hostsDir === undefined ? [] : [hostsDir])];
  const certificates = createPerHost<Certificates>((name) =>
    createReloading({ ...parts, paths: () => certificatePaths(certsOf, name), parse: parseCertificates }),
  );
  const hostFiles = createPerHost<HostFile>((name) =>
    createReloading({ ...parts, paths: () => hostFilePaths(hostsDir, name, host), parse: parseHostFiles }),
  );

  async function refresh(): Promise<void> {
    await Promise.all([files.conf, ...files.authFiles].map((each) => each.look()));
  }
  return {
    refresh,
    async lookAtAll() {
      const named = (await hostsIn(certsOf)).map((name) => certificates.look(name));
      const others = (await hostsIn(hostsDir === undefined ? [] : [hostsDir])).map((name) => hostFiles.look(name));
      await Promise.all([refresh(), ...named, ...others]);
    },
    candidates: (text) => candidatesOf(goodValue(files.conf), text),
    namesFor(text) {
      const conf = files.conf.value();
      return (conf === undefined ? [parseImageReference(text)] : referencesFor(conf, text)).map(formatReference);
    },
    authOf: (request) => pullAuthOf({ directory: config.namespacedAuthDir, host, log }, request),
    async plan(reference, auth) {
      const conf = goodValue(files.conf);
      const { proxies, authorityFiles } = config;
      const sources: EndpointSources = {
        reference,
        auth,
        certificatesOf: async (name) => goodValue(await certificates.look(name)),
        credentials: {
          host,
          log,
          environment: config.helperEnvironment,
          files: [auth.namespaced ?? [], ...files.authFiles.map((each) => each.value() ?? [])].flat(),
          helpers: conf.credentialHelpers,
        },
      };
      const endpoints = await endpointsOf(conf, sources, async (name) => goodValue(await hostFiles.look(name)));
      return { endpoints, network: { insecureHosts: insecureHostsOf(conf), proxies, authorityFiles } };
    },
    problems: () => [
      ...[files.conf, ...files.authFiles].flatMap((each) => each.problem() ?? []),
      ...certificates.problems(),
      ...hostFiles.problems(),
    ],
  };
}

/** Reads the files once; one that cannot be used is a problem, not a failure. */
export async function openRegistries(parts: RegistriesParts): Promise<Registries> {
  const registries = createRegistries(parts);
  await openNamespacedAuth({ directory: parts.config.namespacedAuthDir, log: parts.log });
  await registries.refresh();
  return registries;
}

/** What is wrong with the operator's files on registries, of all hosts they are about. Changes nothing. */
export async function examineRegistries(parts: RegistriesParts): Promise<readonly string[]> {
  const registries = createRegistries(parts);
  await registries.lookAtAll();
  return [...new Set(registries.problems())];
}
