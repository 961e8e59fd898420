import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { expect, test } from "vitest";

import { certificatePaths } from "./certificates.ts";

test.each(["r.io:5000", "R.io:5000", "r.io_5000_"])(
  "certificates for a host and port lie in the folder %s, and in no other",
  async (folder) => {
    const directory = await mkdtemp(join(tmpdir(), "berth-certs-"));
    try {
      for (const name of [folder, "r.io", "r.io:5001"]) {
        await mkdir(join(directory, name));
        for (const file of ["ca.crt", "hosts.toml"]) await writeFile(join(directory, name, file), "");
      }
      const paths = await certificatePaths([join(directory, "absent"), directory], "r.io:5000");
      expect(paths).toEqual([join(directory, folder, "ca.crt")]);
    } finally {
      await rm(directory, { recursive: true });
    }
  },
);
