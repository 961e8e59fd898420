import { expect, test } from "vitest";
import { decideFeatures, parseVersion } from "./features.ts";

test("versions are read off the first line", () => {
  expect(parseVersion("crun version 1.8.1\ncommit: f8a0\n")).toEqual({ name: "crun", version: "1.8.1" });
  expect(parseVersion("runc version 1.1.5+ds1\ncommit: x\n")).toEqual({ name: "runc", version: "1.1.5+ds1" });
  expect(parseVersion("something else")).toEqual({ name: "unknown", version: "unknown" });
});

const kernel = (release: string, allowsUserNamespaces = true) => ({ release, allowsUserNamespaces });
const idmap = { linux: { mountExtensions: { idmap: { enabled: true } } } };

test("a runtime that tells is believed, as far as the kernel can", () => {
  const told = JSON.stringify({ mountOptions: ["ro", "rro"], ...idmap });
  expect(decideFeatures("runc", "1.3.0", told, kernel("6.1.0-18-amd64"))).toEqual({
    recursiveReadOnlyMounts: true,
    userNamespaces: true,
    networkDevices: false,
  });
  expect(decideFeatures("runc", "1.3.0", told, kernel("5.10.0"))).toMatchObject({ recursiveReadOnlyMounts: false });
  for (const facts of [kernel("5.15.0"), kernel("6.12.0", false)])
    expect(decideFeatures("runc", "1.3.0", told, facts)).toMatchObject({ userNamespaces: false });
  const without = JSON.stringify({ mountOptions: ["ro"] });
  expect(decideFeatures("crun", "1.21", without, kernel("6.1.0"))).toEqual({
    recursiveReadOnlyMounts: false,
    userNamespaces: false,
    networkDevices: false,
  });
});

test("interfaces are moved by a runtime that says so", () => {
  const told = JSON.stringify({ linux: { netDevices: { enabled: true } } });
  expect(decideFeatures("crun", "1.28", told, kernel("6.1.0"))).toMatchObject({ networkDevices: true });
});

test("a runtime that cannot tell is judged by its version", () => {
  expect(decideFeatures("crun", "1.8.1", undefined, kernel("6.1.0"))).toEqual({
    recursiveReadOnlyMounts: true,
    userNamespaces: false,
    networkDevices: false,
  });
  expect(decideFeatures("crun", "1.3", undefined, kernel("6.1.0"))).toMatchObject({ recursiveReadOnlyMounts: false });
  expect(decideFeatures("runc", "1.0.3", undefined, kernel("6.1.0"))).toMatchObject({ recursiveReadOnlyMounts: false });
});

test("garbage for features is none", () => {
  for (const text of ["", "{", "[]", '{"mountOptions": "rro"}', '{"linux": 3}']) {
    expect(decideFeatures("youki", "0.3", text, kernel("6.1.0"))).toEqual({
      recursiveReadOnlyMounts: false,
      userNamespaces: false,
      networkDevices: false,
    });
  }
});
