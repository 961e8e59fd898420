import { RegistryFailure } from "./failure.ts";
import { headerOf, type Http, type HttpResponse } from "./http.ts";

export const redirectStatuses: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);

const maxRedirects = 5;

/**
 * A GET without credentials, wherever it leads; never from TLS to plain HTTP.
 *
 * @throws {RegistryFailure} for redirects that lead nowhere; any other answer is the caller's to judge.
 */
export async function getPublicly(
  http: Http,
  from: URL,
  headers: Readonly<Record<string, string>>,
  signal: AbortSignal,
): Promise<HttpResponse> {
  let url = from;
  for (let hop = 0; hop <= maxRedirects; hop += 1) {
    const response = await http.request(url, { headers }, signal);
    if (!redirectStatuses.has(response.status)) return response;
    response.body.on("error", () => undefined).destroy();
    const location = headerOf(response, "location") ?? "";
    if (!URL.canParse(location, url.href))
      throw new RegistryFailure("invalid", `"${url.host}" redirected to a malformed address`);
    const target = new URL(location, url.href);
    if (target.protocol !== "https:" && (target.protocol !== "http:" || url.protocol !== "http:"))
      throw new RegistryFailure("invalid", `"${url.host}" redirected to "${target.host}" without TLS`);
    target.username = "";
    target.password = "";
    url = target;
  }
  throw new RegistryFailure("invalid", `"${from.host}" redirected more than ${maxRedirects} times`);
}
