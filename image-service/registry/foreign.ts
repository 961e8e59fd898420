import type { Http } from "./http.ts";
import { getPublicly } from "./redirects.ts";
import { type RegistrySession, statusFailure } from "./session.ts";

/** Whoever has blobs: a host of the registry, or an address that an image names. */
export interface BlobSource extends Pick<RegistrySession, "get"> {
  readonly endpoint: { readonly host: string; readonly isMirror: boolean };
}

/**
 * The addresses outside of the registry that an image names for a foreign layer. They may lead anywhere, so nothing goes
 * along that is secret, and the layer's digest alone says whether they have it.
 */
export function foreignSources(http: Http, urls: readonly URL[]): readonly BlobSource[] {
  return urls.map((url) => ({
    endpoint: { host: url.host, isMirror: false },
    async get(_, headers, signal) {
      const response = await getPublicly(http, url, headers, signal);
      if (response.status === 200 || response.status === 206) return response;
      throw await statusFailure({ response, isOwnOrigin: true });
    },
  }));
}
