import { expect, test } from "vitest";

import { parseImageReference } from "../reference.ts";
import type { Endpoint } from "../registry/endpoint.ts";
import { createTestLogger } from "../testing.ts";
import { endpointOfHost } from "./endpoints.ts";
import { parseHostFiles } from "./host-files.ts";

const absent = async (): Promise<never> => {
  throw new Error("nothing is asked here");
};

/** Where a `hosts.toml` leads for an image, with credentials in the request. */
async function endpointsFor(image: string, text: string): Promise<readonly Endpoint[]> {
  const { hosts } = parseHostFiles([{ path: "/certs.d/hosts.toml", text }]);
  const credentials = { kind: "basic", username: "u", password: "p" } as const;
  const sources = {
    reference: parseImageReference(image),
    auth: { credentials, server: "", namespaced: undefined, fingerprint: "" },
    credentials: {
      host: { run: absent, which: absent },
      log: createTestLogger(),
      environment: { PATH: "", HOME: "" },
      files: [],
      helpers: [],
    },
    certificatesOf: async () => ({ authorities: [], clientCertificates: [] }),
  };
  return await Promise.all(hosts.map((host) => endpointOfHost(sources, host)));
}

test.each(["https://docker.io", "https://registry-1.docker.io", ""])(
  "Docker Hub behind its mirrors is asked where its API is, and as itself, if it is called %j",
  async (server) => {
    const [mirror, hub] = await endpointsFor("busybox", `server = "${server}"\n[host."https://m.example"]\n`);
    expect(mirror).toMatchObject({ address: "m.example", query: "?ns=docker.io", isMirror: true });
    expect(mirror?.credentials).toBeUndefined();
    expect(hub).toMatchObject({ host: "docker.io", address: "registry-1.docker.io", query: "", isMirror: false });
    expect(hub?.credentials).toMatchObject({ username: "u" });
  },
);
