import { expect, test } from "vitest";

import { refusalOf } from "../testing.ts";
import { hostDirectories, parseHostsToml } from "./hosts-toml.ts";

const read = (text: string) => parseHostsToml(text, "/certs.d/r.io/hosts.toml");

test("hosts come in the order in which they are written, and the server last", () => {
  const hosts = read(`
    server = "https://r.io"
    [host."https://z.example"]
      capabilities = ["pull"]
      ca = "z.crt"
      [host."https://z.example".header]
        X-Custom = ["a", "b"]
    [host."http://a.example:5000/prefix"]
      capabilities = ["pull", "resolve"]
      client = [["/c.cert", "c.key"], "both.pem"]
      skip_verify = true
      dial_timeout = "1m30s"
    [host."b.example/v2/deeper"]
      override_path = true`);
  expect(hosts.map(({ server }) => server?.origin)).toEqual([
    "https://z.example",
    "http://a.example:5000",
    "https://b.example",
    "https://r.io",
  ]);
  expect(hosts[0]).toMatchObject({
    canPull: true,
    canResolve: false,
    authorityFiles: ["/certs.d/r.io/z.crt"],
    headers: { "x-custom": "a, b" },
    apiPath: "/v2",
  });
  expect(hosts[1]).toMatchObject({
    canResolve: true,
    skipVerify: true,
    apiPath: "/prefix/v2",
    connectTimeoutMs: 90_000,
    clientFiles: [
      { certificate: "/c.cert", key: "/certs.d/r.io/c.key" },
      { certificate: "/certs.d/r.io/both.pem", key: "/certs.d/r.io/both.pem" },
    ],
  });
  expect(hosts[2]?.apiPath).toBe("/v2/deeper");
});

test("capabilities are read in any case, and none named are all", () => {
  const hosts = read(
    '[host."https://a.example"]\ncapabilities = []\n[host."https://b.example"]\ncapabilities = ["Pull"]',
  );
  expect(hosts.map(({ canPull, canResolve }) => [canPull, canResolve])).toEqual([
    [true, true],
    [true, false],
    [true, true],
  ]);
});

test("without a server, the registry itself comes last", () => {
  const hosts = read('[host."https://m.example/v2/"]');
  expect(hosts.map(({ server, apiPath }) => [server?.host, apiPath])).toEqual([
    ["m.example", "/v2"],
    [undefined, "/v2"],
  ]);
});

test("a registry's folder is looked for under all spellings of its host and port, then the default", () => {
  const names = ["R.io:443", "_default", "other.io", "r.io:5000", "r.io_5000_"];
  expect(hostDirectories(names, "r.io:5000")).toEqual(["r.io_5000_", "r.io:5000", "_default"]);
  expect(hostDirectories(names, "r.io")).toEqual(["R.io:443", "_default"]);
  expect(hostDirectories([], "r.io")).toEqual(["_default"]);
});

test.each([
  ["server = ", "line 1"],
  ['server = "https://u:s3cret@r.io"', "must not hold credentials"],
  ['server = "https://"', "is no address"],
  ['[host."https://r.io"]\ncapabilities = ["fly"]', "capabilities"],
  ['[host."https://r.io"]\nca = 5', "ca"],
  ['[host."https://r.io"]\nclient = [["only-one"]]', "client"],
  ['[host."https://r.io"]\nskip_verify = "yes"', "skip_verify"],
  ['[host."https://r.io".header]\nHost = "evil"', "cannot be set"],
  ['[host."https://r.io".header]\n"a b" = "x"', "is no header's name"],
  ['[host."https://r.io".header]\nAuthorization = "s3cret\\r\\nX: y"', "holds characters"],
  ['dial_timeout = "soon"', "dial_timeout"],
])("%j is refused", (text, told) => {
  const message = refusalOf(() => read(text));
  expect(message).toContain(told);
  expect(message).not.toContain("s3cret");
});
