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
  "throttled",
  "cut",
  "norange",
  "trickle",
  "moved",
] as const;
type Fault = (typeof faults)[number];

/** A registry in front of a good one that fails for `<address>/<fault>/<repository>:<tag>` in the way of that name. */
export interface FaultyRegistry extends AsyncDisposable {
  readonly address: string;
  /** Another host, where `moved/` leads for blobs. */
  readonly storageAddress: string;
  /** Paths of every request, as they came. */
  readonly requests: readonly string[];
  /** What the other host was shown as credentials. */
  readonly leaked: readonly string[];
}

/** What the repositories under `token/`, `basic/` and `moved/` ask for. */
export const credentials = { username: "harbour", password: "pässword:1" } as const;

/** Starts it in front of the registry at `upstream`. */
export async function startFaultyRegistry(upstream: string): Promise<FaultyRegistry> {
  const requests: string[] = [];
  const leaked: string[] = [];
  await using resources = new AsyncDisposableStack();
  const storage = resources.use(
    await listen("127.0.0.2", async (request, response) => {
      if (request.headers.authorization !== undefined) leaked.push(request.headers.authorization);
      await sendFrom(upstream, { request, response, path: request.url ?? "", seen: 1 });
    }),
  );
  const seen = new Map<string, number>();
  const front = resources.use(
    await listen("127.0.0.1", async (request, response) => {
      const path = request.url ?? "";
      requests.push(path);
      seen.set(path, (seen.get(path) ?? 0) + 1);
      await answer({ upstream, storage: storage.address, seen: seen.get(path) ?? 0 }, request, response);
    }),
  );
  const owned = resources.move();
  return {
    address: front.address,
    storageAddress: storage.address,
    requests,
    leaked,
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

async function listen(
  host: string,
  handle: (request: IncomingMessage, response: ServerResponse) => Promise<void>,
): Promise<AsyncDisposable & { readonly address: string }> {
  const server = createServer((request, response) => {
    handle(request, response).catch((thrown: unknown) => response.destroy(thrown as Error));
  });
  await new Promise<void>((resolve) => server.listen(0, host, resolve));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  return {
    address: `${host}:${address.port}`,
    async [Symbol.asyncDispose](): Promise<void> {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** Where things lie, and how often this very path has been asked for. */
interface Place {
  readonly upstream: string;
  readonly storage: string;
  readonly seen: number;
}

async function answer(place: Place, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const url = new URL(request.url ?? "/", `http://${request.headers.host}`);
  if (url.pathname === "/token") return grantToken(url, request, response);
  const [, fault, rest = ""] = /^\/v2\/([a-z]+)\/(.*)$/u.exec(url.pathname) ?? [];
  const known = faults.find((name) => name === fault);
  if (known === undefined) return void response.writeHead(200).end("{}");
  const refuse = refusals[known];
  if (refuse !== undefined && (await refuse(request, response, place.seen))) return;
  if (known === "moved" && rest.includes("/blobs/"))
    return void response.writeHead(307, { location: `http://${place.storage}/v2/${rest}` }).end();
  await sendFrom(place.upstream, { request, response, path: `/v2/${rest}`, seen: place.seen, fault: known });
}

interface Sending {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly path: string;
  readonly seen: number;
  readonly fault?: Fault;
}

/** What the good registry has, changed as the fault says. */
async function sendFrom(upstream: string, { request, response, path, seen, fault }: Sending): Promise<void> {
  const good = await fetch(`http://${upstream}${path}`, {
    method: request.method ?? "GET",
    headers: { accept: request.headers.accept ?? "*/*" },
  });
  const body = Buffer.from(await good.arrayBuffer());
  const headers = pickHeaders(good, ["content-type", "docker-content-digest"]);
  const isBlob = path.includes("/blobs/") && body.length > 4096;
  const change = isBlob && fault !== undefined ? blobFaults[fault] : undefined;
  if (change === undefined)
    return void response.writeHead(good.status, { ...headers, "content-length": body.length }).end(body);
  await change(response, body, { headers, seen, range: request.headers.range });
}

type Refusal = (request: IncomingMessage, response: ServerResponse, seen: number) => boolean | Promise<boolean>;

const refuseWith = (status: number, code: string, headers: Record<string, string> = {}): Refusal => {
  const body = JSON.stringify({ errors: [{ code, message: "secret-detail-of-the-registry" }] });
  return (_request, response) => {
    response.writeHead(status, { "content-type": "application/json", ...headers }).end(body);
    return true;
  };
};

const basicHeader = `Basic ${Buffer.from(`${credentials.username}:${credentials.password}`).toString("base64")}`;
const token = "a-token-for-pulling";

function askBasic(request: IncomingMessage, response: ServerResponse): boolean | Promise<boolean> {
  if (request.headers.authorization === basicHeader) return false;
  return refuseWith(401, "UNAUTHORIZED", { "www-authenticate": 'Basic realm="some"' })(request, response, 1);
}

const refusals: Partial<Record<Fault, Refusal>> = {
  missing: refuseWith(404, "MANIFEST_UNKNOWN"),
  broken: refuseWith(500, "UNKNOWN"),
  unauthorized: refuseWith(401, "UNAUTHORIZED", { "www-authenticate": 'Basic realm="nobody"' }),
  slow: () => new Promise(() => {}),
  throttled: (request, response, seen) =>
    seen === 1 && refuseWith(429, "TOOMANYREQUESTS", { "retry-after": "1" })(request, response, seen),
  basic: askBasic,
  moved: askBasic,
  token(request, response) {
    if (request.headers.authorization === `Bearer ${token}`) return false;
    const realm = `http://${request.headers.host}/token`;
    const challenge = `Bearer realm="${realm}",service="berth",scope="repository:token/berth/busybox:pull"`;
    return refuseWith(401, "UNAUTHORIZED", { "www-authenticate": challenge })(request, response, 1);
  },
};

interface BlobRequest {
  readonly headers: Record<string, string>;
  /** How often it has been asked for, this time included. */
  readonly seen: number;
  readonly range: string | undefined;
}

type BlobFault = (response: ServerResponse, body: Buffer, asked: BlobRequest) => void | Promise<void>;

const sendHalf: BlobFault = (response, body, { headers }) => {
  response.writeHead(200, { ...headers, "content-length": body.length });
  response.write(body.subarray(0, body.length / 2), () => response.destroy());
};

const blobFaults: Partial<Record<Fault, BlobFault>> = {
  half: sendHalf,
  cut(response, body, asked) {
    const from = Number(/^bytes=(\d+)-$/u.exec(asked.range ?? "")?.[1] ?? 0);
    if (from === 0 && asked.seen === 1) return sendHalf(response, body, asked);
    const headers = { ...asked.headers, "content-range": `bytes ${from}-${body.length - 1}/${body.length}` };
    response.writeHead(from === 0 ? 200 : 206, { ...headers, "content-length": body.length - from });
    response.end(body.subarray(from));
  },
  norange(response, body, asked) {
    if (asked.seen === 1) return sendHalf(response, body, asked);
    response.writeHead(200, { ...asked.headers, "content-length": body.length }).end(body);
  },
  async trickle(response, body, { headers }) {
    response.writeHead(200, { ...headers, "content-length": body.length });
    const piece = Math.ceil(body.length / 10);
    for (let at = 0; at < body.length; at += piece) {
      response.write(body.subarray(at, at + piece));
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    response.end();
  },
  wrong: (response, body, { headers }) => {
    const changed = Buffer.from(body);
    changed[4] = (changed[4] ?? 0) ^ 1; // the time in gzip's header: only the digest tells the difference
    response.writeHead(200, { ...headers, "content-length": body.length }).end(changed);
  },
  garbage: (response, _body, { headers }) => {
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
