import { describe, expect, test } from "vitest";

import { refusalOf } from "../testing.ts";
import { createRandom } from "../../cri-api/testing.ts";
import { CriError } from "../../cri-api/index.ts";
import { formatReference, parseImageReference } from "../reference.ts";
import { FileIssue } from "./file-issue.ts";
import { insecureHostsOf, pullSourcesOf } from "./pull-sources.ts";
import { parseRegistriesConf, type RegistriesConf } from "./registries-conf.ts";
import { candidatesOf, referencesFor } from "./short-names.ts";

function read(...texts: readonly string[]): RegistriesConf {
  return parseRegistriesConf(texts.map((text, index) => ({ path: `/etc/${index}.conf`, text })));
}

/** Where an image is looked for: `mirror`, `host`, and `!` where TLS is not needed. */
function sources(conf: RegistriesConf, image: string): readonly string[] | undefined {
  const found = pullSourcesOf(conf, parseImageReference(image));
  return found?.map(
    ({ location, isInsecure, isMirror }) => `${isMirror ? "mirror" : "host"} ${location}${isInsecure ? " !" : ""}`,
  );
}

const digest = `sha256:${"a".repeat(64)}`;

describe("the manual's example", () => {
  const conf = read(`
    unqualified-search-registries = ["example.com"]
    [[registry]]
    prefix = "example.com/foo"
    location = "internal-registry-for-example.com/bar"
    [[registry.mirror]]
    location = "example-mirror-0.local/mirror-for-foo"
    [[registry.mirror]]
    location = "example-mirror-1.local/mirrors/foo"
    insecure = true
    [[registry]]
    location = "registry.com"
    [[registry.mirror]]
    location = "mirror.registry.com"`);

  test("gives the order that the manual gives", () => {
    expect(sources(conf, "example.com/foo/image:latest")).toEqual([
      "mirror example-mirror-0.local/mirror-for-foo/image",
      "mirror example-mirror-1.local/mirrors/foo/image !",
      "host internal-registry-for-example.com/bar/image",
    ]);
    expect(sources(conf, "registry.com/image")).toEqual([
      "mirror mirror.registry.com/image",
      "host registry.com/image",
    ]);
    expect(sources(conf, "other.com/image")).toBeUndefined();
  });
});

describe("a prefix", () => {
  const conf = read(`
    [[registry]]
    prefix = "example.com"
    location = "one.net"
    [[registry]]
    prefix = "example.com/team/app"
    location = "two.net/x"
    [[registry]]
    prefix = "example.com/team/app:v1"
    location = "three.net/y"
    [[registry]]
    prefix = "*.example.com"
    [[registry]]
    prefix = "*.b.example.com"
    location = "four.net"
    [[registry.mirror]]
    location = "five.net/z/"`);

  test.each([
    ["example.com/team/other", ["host one.net/team/other"]],
    ["example.com/team/app:v2", ["host two.net/x"]],
    ["example.com/team/app/sub:v1", ["host two.net/x/sub"]],
    ["example.com/team/application", ["host one.net/team/application"]],
    ["example.com/team/app:v1", ["host three.net/y"]],
    ["a.example.com/x", ["host a.example.com/x"]],
    ["a.b.example.com/x", ["mirror five.net/z/x", "host four.net/x"]],
    ["a.b.example.com:5000/x", ["mirror five.net/z/x", "host four.net:5000/x"]],
    ["a.example.com:5000/x", ["host a.example.com:5000/x"]],
    ["example.com:5000/x", undefined],
    ["notexample.com/x", undefined],
  ])("%s is reached at %j: the longest that matches whole components decides", (image, expected) => {
    expect(sources(conf, image)).toEqual(expected);
  });
});

describe("mirrors", () => {
  test("are for tags, for digests, or both, as they or their registry say", () => {
    const conf = read(`
      [[registry]]
      location = "r.io"
      [[registry.mirror]]
      location = "d.io"
      pull-from-mirror = "digest-only"
      [[registry.mirror]]
      location = "t.io"
      pull-from-mirror = "tag-only"
      [[registry.mirror]]
      location = "a.io"
      [[registry]]
      location = "s.io"
      mirror-by-digest-only = true
      [[registry.mirror]]
      location = "m.io"`);
    expect(sources(conf, "r.io/x:1")).toEqual(["mirror t.io/x", "mirror a.io/x", "host r.io/x"]);
    expect(sources(conf, `r.io/x@${digest}`)).toEqual(["mirror d.io/x", "mirror a.io/x", "host r.io/x"]);
    expect(sources(conf, "s.io/x:1")).toEqual(["host s.io/x"]);
    expect(sources(conf, `s.io/x@${digest}`)).toEqual(["mirror m.io/x", "host s.io/x"]);
  });
});

test("a blocked registry is refused by name, its neighbours are not", () => {
  const conf = read('[[registry]]\nprefix = "r.io/bad"\nblocked = true');
  expect(() => sources(conf, "r.io/bad/x")).toThrow('registry "r.io/bad" is blocked in registries.conf');
  expect(sources(conf, "r.io/good/x")).toBeUndefined();
});

test.each(["R.io/bad/x", "r.io:443/bad/x", "R.IO:443/bad/x"])(
  "%s is the blocked registry in another spelling",
  (name) => {
    for (const prefix of ["r.io/bad", "R.io:443/bad"]) {
      const conf = read(`[[registry]]\nprefix = "${prefix}"\nlocation = "m.io"\nblocked = true`);
      expect(() => sources(conf, name)).toThrow('registry "r.io/bad" is blocked in registries.conf');
    }
    expect(() => sources(read('[[registry]]\nprefix = "*.IO"\nblocked = true'), "x.io/y")).toThrow("is blocked");
  },
);

test("hosts are insecure throughout only where a rule is for the whole host", () => {
  const conf = read(`
    [[registry]]
    location = "one:5000"
    insecure = true
    [[registry]]
    location = "two/path"
    insecure = true
    [[registry]]
    location = "three"
    [[registry.mirror]]
    location = "Four:443"
    insecure = true`);
  expect(insecureHostsOf(conf)).toEqual(["one:5000", "four"]);
});

test("of several registries of one prefix in a file the first counts", () => {
  const conf = read(
    '[[registry]]\nprefix = "r.io"\nlocation = "one.io"\n[[registry]]\nprefix = "r.io"\nlocation = "two.io"',
  );
  expect(sources(conf, "r.io/x")).toEqual(["host one.io/x"]);
});

test.each([
  [["first"], 'credential-helpers = ["first"]', ""],
  [["second"], 'credential-helpers = ["first"]', 'credential-helpers = ["second"]'],
  [["containers-auth.json"], 'credential-helpers = ["first"]', "credential-helpers = []"],
  [["containers-auth.json"], "credential-helpers = []", ""],
])("credential helpers are %j after %j and %j: none are the files", (helpers, ...texts) => {
  expect(read(...texts).credentialHelpers).toEqual(helpers);
});

describe("drop-ins", () => {
  test("replace values and whole registries of the same prefix, merge aliases, and erase with an empty one", () => {
    const conf = read(
      'unqualified-search-registries = ["one.io"]\n[[registry]]\nlocation = "r.io"\ninsecure = true\n[[registry.mirror]]\nlocation = "m.io"\n[aliases]\na = "x.io/a"\nb = "x.io/b"',
      'unqualified-search-registries = ["two.io"]\nshort-name-mode = "enforcing"\n[[registry]]\nprefix = "r.io"\nlocation = "s.io"\n[aliases]\na = ""\nc = "x.io/c"',
      "",
    );
    expect(sources(conf, "r.io/x")).toEqual(["host s.io/x"]);
    expect(conf.searchRegistries).toEqual(["two.io"]);
    expect(conf.shortNameMode).toBe("enforcing");
    expect([...conf.aliases]).toEqual([
      ["b", "x.io/b"],
      ["c", "x.io/c"],
    ]);
    expect(conf.credentialHelpers).toEqual(["containers-auth.json"]);
  });
});

describe("short names", () => {
  const names = (conf: RegistriesConf, text: string): string[] => candidatesOf(conf, text).map(formatReference);

  test("are their alias, with the tag or digest that was asked for", () => {
    const conf = read('unqualified-search-registries = ["one.io"]\n[aliases]\nbox = "two.io/lib/box"');
    expect(names(conf, "box")).toEqual(["two.io/lib/box:latest"]);
    expect(names(conf, "box:1")).toEqual(["two.io/lib/box:1"]);
    expect(names(conf, `box:1@${digest}`)).toEqual([`two.io/lib/box@${digest}`]);
    expect(names(conf, "team/box")).toEqual(["one.io/team/box:latest"]);
    expect(names(conf, "three.io/box")).toEqual(["three.io/box:latest"]);
  });

  test("are of each search registry in turn, but ambiguous where the mode is enforcing", () => {
    const search = 'unqualified-search-registries = ["one.io", "docker.io"]\n';
    expect(names(read(search), "box")).toEqual(["one.io/box:latest", "docker.io/library/box:latest"]);
    expect(names(read(`${search}short-name-mode = "disabled"`), "box")).toHaveLength(2);
    const enforcing = read(`${search}short-name-mode = "enforcing"`);
    expect(() => names(enforcing, "box")).toThrow('image name "box" returns ambiguous list');
    expect(referencesFor(enforcing, "box")).toEqual([]);
    expect(names(read('unqualified-search-registries = ["one.io"]\nshort-name-mode = "enforcing"'), "box")).toEqual([
      "one.io/box:latest",
    ]);
  });

  test("are Docker Hub's where nothing is said, and nobody's where the list is empty", () => {
    expect(names(read(""), "box")).toEqual(["docker.io/library/box:latest"]);
    expect(() => names(read("unqualified-search-registries = []"), "box")).toThrow("no unqualified-search-registries");
  });
});

test.each([
  ['[registries.search]\nregistries = ["r.io"]', "registries: is version 1 of the format"],
  ["[[registry]]", "registry[0]: has neither a prefix nor a location"],
  ['[[registry]]\nlocation = "https://r.io"', "registry[0].location"],
  ['[[registry]]\nlocation = "*.r.io"', "must not be a wildcard"],
  ['[[registry]]\nprefix = "*.r.io/foo"', "registry[0].prefix"],
  ['[[registry]]\nprefix = "r.*.io"', "registry[0].prefix"],
  ['[[registry]]\nlocation = "r.io"\n[[registry.mirror]]\ninsecure = true', "registry[0].mirror[0].location"],
  ['[[registry]]\nlocation = "r.io"\n[[registry.mirror]]\nlocation = "m.io"\npull-from-mirror = "x"', "digest-only"],
  ['[[registry]]\nlocation = "r.io"\npull-from-mirror = "all"', "is for mirrors only"],
  [
    '[[registry]]\nlocation = "r.io"\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = "m.io"\npull-from-mirror = "all"',
    "exclude each other",
  ],
  ['[[registry]]\nlocation = "r.io"\n[[registry]]\nlocation = "r.io"\nblocked = true', "stands there twice"],
  ['[[registry]]\nprefix = "r.io/a:1"\nlocation = "s.io/a:2"', "must not name a tag"],
  ['short-name-mode = "maybe"', "short-name-mode"],
  ['[aliases]\n"r.io/x" = "s.io/x"', "aliases"],
  ['[aliases]\nx = "y"', "must be a full name"],
  ['credential-helpers = ["../evil"]', "credential-helpers[0]"],
  ["unqualified-search-registries = 1", "unqualified-search-registries"],
  ["a = ", "line 1"],
])("%j is refused, by file and key: %s", (text, told) => {
  const message = refusalOf(() => read("", text));
  expect(message).toContain("/etc/1.conf: ");
  expect(message).toContain(told);
});

const wellFormed = /^(?:[A-Za-z0-9.-]+|\[[0-9a-fA-F:.]+\])(?::\d+)?(?:\/[a-z0-9][a-z0-9._-]*)+$/;

/** Wherever a file leads for some images. */
function locationsIn(conf: RegistriesConf): readonly string[] {
  const references = ["r.io/a:1", "a.r.io/b", "box"].flatMap((image) => referencesFor(conf, image));
  return references.flatMap((reference) => pullSourcesOf(conf, reference) ?? []).map(({ location }) => location);
}

test("whatever stands in a file, it is read or refused, and never leads outside of names that are well-formed", () => {
  const random = createRandom(6);
  const pieces = [
    "[[registry]]\n",
    "[[registry.mirror]]\n",
    "[aliases]\n",
    "prefix = ",
    "location = ",
    "insecure = true\n",
    "blocked = false\n",
    '"r.io"\n',
    '"*.r.io"\n',
    '"r.io/a:1"\n',
    '"../..//"\n',
    '"r.io/%2e%2e/x"\n',
    '"[::1]:5000"\n',
    "x = ",
    "1e400\n",
    "{}\n",
    "[[[\n",
    '"\\u0000"\n',
    "__proto__ = 1\n",
    "short-name-mode = ",
    '"enforcing"\n',
    "unqualified-search-registries = ",
    '["a.io"]\n',
    "\0",
    "é\n",
    "#\n",
    '"""',
    "'",
  ];
  let readCount = 0;
  for (let round = 0; round < 3000; round += 1) {
    const text = Array.from(
      { length: 1 + Math.floor(random() * 12) },
      () => pieces[Math.floor(random() * pieces.length)],
    ).join("");
    try {
      for (const location of locationsIn(read(text))) expect(location).toMatch(wellFormed);
      readCount += 1;
    } catch (thrown) {
      if (!(thrown instanceof CriError)) expect(thrown).toBeInstanceOf(FileIssue);
    }
  }
  expect(readCount).toBeGreaterThan(20);
});
