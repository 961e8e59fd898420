import { expect, test } from "vitest";

import { proxyFor } from "./proxy.ts";

const settings = (noProxy = ""): Parameters<typeof proxyFor>[0] => ({
  httpProxy: "http://plain.proxy:3128",
  httpsProxy: "secure.proxy:3129",
  noProxy,
});

test("the scheme of what is asked for chooses the proxy", () => {
  expect(proxyFor(settings(), new URL("http://r.io/"))?.host).toBe("plain.proxy:3128");
  expect(proxyFor(settings(), new URL("https://r.io/"))?.href).toBe("http://secure.proxy:3129/");
  expect(proxyFor({ httpProxy: "", httpsProxy: "", noProxy: "" }, new URL("https://r.io/"))).toBeUndefined();
  expect(proxyFor({ httpProxy: "", httpsProxy: "socks5://p", noProxy: "" }, new URL("https://r.io/"))).toBeUndefined();
});

test.each([
  ["https://r.io/", "r.io", true],
  ["https://a.r.io/", "r.io", true],
  ["https://a.r.io/", ".r.io", true],
  ["https://r.io/", ".r.io", false],
  ["https://a.r.io/", "*.r.io", true],
  ["https://ar.io/", "r.io", false],
  ["https://R.IO/", "r.Io", true],
  ["https://r.io:5000/", "r.io:5000", true],
  ["https://r.io/", "r.io:5000", false],
  ["https://r.io/", "r.io:443", true],
  ["http://r.io/", "r.io:80", true],
  ["https://10.1.2.3/", "10.0.0.0/8", true],
  ["https://10.1.2.3/", "other, 10.1.2.3 ", true],
  ["https://11.1.2.3/", "10.0.0.0/8", false],
  ["https://10.1.2.3/", "10.0.0.0/99", false],
  ["https://[fd00::1]/", "fd00::/8", true],
  ["https://[fd00::1]:5000/", "[fd00::1]:5000", true],
  ["https://[fd00::1]/", "fd00::1", true],
  ["https://r.io/", "*", true],
  ["https://r.io/", ",, ,", false],
  ["https://127.0.0.1:5000/", "", true],
  ["https://localhost/", "", true],
  ["https://[::1]/", "", true],
])("%s with NO_PROXY=%j goes straight: %j", (url, noProxy, isStraight) => {
  expect(proxyFor(settings(noProxy), new URL(url)) === undefined).toBe(isStraight);
});
