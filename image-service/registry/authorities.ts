import { readFile } from "node:fs/promises";
import { createSecureContext, getCACertificates, type SecureContext, setDefaultCACertificates } from "node:tls";

import { RegistryFailure } from "./failure.ts";
import type { TlsSettings } from "./endpoint.ts";

/** Whom this thread trusts. Reading the system's certificates takes tens of milliseconds, so it is done once a thread. */
export interface Authorities {
  /** From here on, connections of this thread trust the system's authorities; Node's own where there are none. */
  load(files: readonly string[]): Promise<void>;
  /** For a host with authorities or client certificates of its own. */
  contextFor(tls: Pick<TlsSettings, "authorities" | "clientCertificates">): SecureContext;
}

/** A node talks to few registries that need one. */
const maxContexts = 64;

async function loadFirst(files: readonly string[]): Promise<void> {
  for (const file of files) {
    const bundle = await readFile(file, "utf8").catch(() => undefined);
    if (bundle?.includes("-----BEGIN CERTIFICATE-----")) {
      setDefaultCACertificates([bundle]);
      return;
    }
  }
}

export function createAuthorities(): Authorities {
  const contexts = new Map<string, SecureContext>();
  let loading: Promise<void> | undefined;
  return {
    load(files) {
      loading ??= loadFirst(files);
      return loading;
    },
    contextFor({ authorities, clientCertificates }) {
      const key = JSON.stringify([authorities, clientCertificates]);
      const known = contexts.get(key);
      if (known !== undefined) return known;
      if (contexts.size >= maxContexts) contexts.clear();
      const context = makeContext({ authorities, clientCertificates });
      contexts.set(key, context);
      return context;
    },
  };
}

function makeContext({
  authorities,
  clientCertificates,
}: Pick<TlsSettings, "authorities" | "clientCertificates">): SecureContext {
  try {
    return createSecureContext({
      ...(authorities.length === 0 ? {} : { ca: [...getCACertificates("default"), ...authorities] }),
      cert: clientCertificates.map(({ certificate }) => certificate),
      key: clientCertificates.map(({ key }) => key),
    });
  } catch (thrown) {
    const reason = thrown instanceof Error && "code" in thrown ? String(thrown.code) : "malformed";
    throw new RegistryFailure("unreachable", `its certificates in certs.d cannot be used (${reason})`, {
      cause: thrown,
    });
  }
}
