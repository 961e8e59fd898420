import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { afterEach, beforeEach, expect, test } from "vitest";

import { parseImageReference } from "../reference.ts";
import { readSignaturePlaces } from "./registries-d.ts";

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "berth-registries-d-"));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

const places = (name: string): Promise<object> => readSignaturePlaces(directory, parseImageReference(name));
const builtIn = "file:///var/lib/containers/sigstore";

test("of each setting the most specific section that has it decides", async () => {
  await writeFile(join(directory, "default.yaml"), "default-docker:\n  lookaside: https://all.example/\n");
  await writeFile(
    join(directory, "more.yaml"),
    "docker:\n" +
      "  R.example:443:\n    use-sigstore-attachments: true\n" +
      "  r.example/team:\n    sigstore: https://team.example/\n    lookaside-staging: file:///staging\n" +
      "  r.example/team/app:1:\n    use-sigstore-attachments: false\n" +
      '  "*.example":\n    lookaside: https://wild.example/\n',
  );
  expect(await places("busybox")).toEqual({ lookaside: "https://all.example/", useAttachments: false });
  expect(await places("r.example/x")).toEqual({ lookaside: "https://wild.example/", useAttachments: true });
  expect(await places("a.s.example:5000/x")).toEqual({ lookaside: "https://wild.example/", useAttachments: false });
  expect(await places("r.example/team/app:2")).toEqual({ lookaside: "https://team.example/", useAttachments: true });
  expect(await places("r.example/team/app:1")).toEqual({ lookaside: "https://team.example/", useAttachments: false });
});

test("what no section has is as it is built in", async () => {
  expect(await places("busybox")).toEqual({ lookaside: builtIn, useAttachments: false });
  await writeFile(join(directory, "default.yaml"), "default-docker:\n  sigstore-staging: file:///staging\n");
  expect(await places("busybox")).toEqual({ lookaside: builtIn, useAttachments: false });
  await writeFile(join(directory, "default.yaml"), "");
  expect(await places("busybox")).toEqual({ lookaside: builtIn, useAttachments: false });
});
