import { defineConfig } from "vitest/config";

const generated = ["**/node_modules/**", "**/.build/**", "**/.cache/**"];
/** What only has to come at last may take long on a machine that does much else. */
const patience = { poll: { timeout: 15_000 } };

/**
 * Three kinds of tests, told apart by their file's name, each after the other:
 * `x.test.ts` needs nothing, `x.root.test.ts` needs root and real binaries, `e2e/x.e2e.test.ts` drives the daemon.
 */
export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: "unit",
          include: ["**/*.test.ts"],
          exclude: [...generated, "**/*.root.test.ts", "**/*.e2e.test.ts"],
          expect: patience,
          testTimeout: 20_000,
          hookTimeout: 20_000,
          sequence: { groupOrder: 0 },
        },
      },
      {
        test: {
          name: "root",
          include: ["**/*.root.test.ts"],
          exclude: generated,
          fileParallelism: false,
          expect: patience,
          testTimeout: 30_000,
          hookTimeout: 30_000,
          sequence: { groupOrder: 1 },
        },
      },
      {
        test: {
          name: "e2e",
          include: ["e2e/**/*.e2e.test.ts"],
          exclude: generated,
          globalSetup: ["e2e/harness/global-setup.ts"],
          fileParallelism: false,
          pool: "forks",
          expect: patience,
          testTimeout: 60_000,
          hookTimeout: 60_000,
          sequence: { groupOrder: 2 },
        },
      },
    ],
  },
});
