import { createServer, type IncomingMessage, type ServerResponse } from "node:http";

/** How a registry misbehaves; the first part of a repository's path chooses. */
export const faults = [
  "missing",
  "unauthorized",
  "broken",
  "half",
  "wrong",
  "garbage",
  "slow",
  "token",
  "basic",
] as const;
type Fault = (typeof faults)[number];

/** A registry in front of a good one that fails for `<address>/<fault>/<repository>:<tag>` in the way of that name. */
export interface FaultyRegistry extends AsyncDisposable {
  readonly address: string;
  /** Paths of every request, as they came. */
  readonly requests: readonly string[];
}

/** What the repositories under `token/` and `basic/` ask for. */
export const credentials = { username: "harbour", password: "pässword:1" } as const;

/** Starts it in front of the registry at `upstream`. */
export async function startFaultyRegistry(upstream: string): Promise<FaultyRegistry> {
  const requests: string[] = [];
  const server = createServer((request, response) => {
    requests.push(request.url ?? "");
    answer(upstream, request, response).catch((thrown: unknown) => response.destroy(thrown as Error));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  return {
    address: `127.0.0.1:${address.port}`,
    requests,
    async [Symbol.asyncDispose](): Promise<void> {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

async function answer(upstream: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const url = new URL(request.url ?? "/", `http://${request.headers.host}`);
  if (url.pathname === "/token") return grantToken(url, request, response);
  const [, fault, rest = ""] = /^\/v2\/([a-z]+)\/(.*)$/u.exec(url.pathname) ?? [];
  const known = faults.find((name) => name === fault);
  if (known === undefined) return void response.writeHead(200).end("{}");
  const isBlob = rest.includes("/blobs/");
  const refuse = refusals[known];
  if (refuse !== undefined && (await refuse(request, response))) return;
  const good = await fetch(`http://${upstream}/v2/${rest}`, {
    method: request.method ?? "GET",
    headers: { accept: request.headers.accept ?? "*/*" },
  });
  const body = Buffer.from(await good.arrayBuffer());
  const headers = pickHeaders(good, ["content-type", "docker-content-digest"]);
  const change = isBlob && body.length > 4096 ? blobFaults[known] : undefined;
  if (change === undefined)
    return void response.writeHead(good.status, { ...headers, "content-length": body.length }).end(body);
  change(response, body, headers);
}

type Refusal = (request: IncomingMessage, response: ServerResponse) => boolean | Promise<boolean>;

const refuseWith = (status: number, code: string, headers: Record<string, string> = {}): Refusal => {
  const body = JSON.stringify({ errors: [{ code, message: "secret-detail-of-the-registry" }] });
  return (_request, response) => {
    response.writeHead(status, { "content-type": "application/json", ...headers }).end(body);
    return true;
  };
};

const basicHeader = `Basic ${Buffer.from(`${credentials.username}:${credentials.password}`).toString("base64")}`;
const token = "a-token-for-pulling";

const refusals: Partial<Record<Fault, Refusal>> = {
  missing: refuseWith(404, "MANIFEST_UNKNOWN"),
  broken: refuseWith(500, "UNKNOWN"),
  unauthorized: refuseWith(401, "UNAUTHORIZED", { "www-authenticate": 'Basic realm="nobody"' }),
  slow: () => new Promise(() => {}),
  basic: (request, response) =>
    request.headers.authorization === basicHeader
      ? false
      : refuseWith(401, "UNAUTHORIZED", { "www-authenticate": 'Basic realm="some"' })(request, response),
  token: (request, response) => {
    if (request.headers.authorization === `Bearer ${token}`) return false;
    const realm = `http://${request.headers.host}/token`;
    const challenge = `Bearer realm="${realm}",service="berth",scope="repository:token/berth/busybox:pull"`;
    return refuseWith(401, "UNAUTHORIZED", { "www-authenticate": challenge })(request, response);
  },
};

const blobFaults: Partial<
  Record<Fault, (response: ServerResponse, body: Buffer, headers: Record<string, string>) => void>
> = {
  half: (response, body, headers) => {
    response.writeHead(200, { ...headers, "content-length": body.length });
    response.write(body.subarray(0, body.length / 2), () => response.destroy());
  },
  wrong: (response, body, headers) => {
    const changed = Buffer.from(body);
    changed[4] = (changed[4] ?? 0) ^ 1; // the time in gzip's header: only the digest tells the difference
    response.writeHead(200, { ...headers, "content-length": body.length }).end(changed);
  },
  garbage: (response, _body, headers) => {
    const html = "<html>a captive portal</html>";
    response.writeHead(200, { ...headers, "content-length": html.length }).end(html);
  },
};

function grantToken(url: URL, request: IncomingMessage, response: ServerResponse): void {
  const isGranted = request.headers.authorization === basicHeader && url.searchParams.get("service") === "berth";
  if (!isGranted) return void response.writeHead(401).end("{}");
  response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify({ token, expires_in: 60 }));
}

function pickHeaders(from: Response, names: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    names.flatMap((name) => (from.headers.has(name) ? [[name, from.headers.get(name) ?? ""]] : [])),
  );
}
