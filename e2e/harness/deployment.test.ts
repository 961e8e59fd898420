import { expect, test } from "vitest";
import { repository } from "./repository.ts";
import { parseUnit, readDeployment } from "./deployment.ts";

test("a unit's flags and environment are those of its daemon", () => {
  const unit = `[Service]
Environment=NODE_ENV=production "A=b=c"
Environment=D=
ExecStartPre=/n --check /main.ts
ExecStart=/n --max-semi-space-size=2 --x /lib/server/main.ts serve
`;
  expect(parseUnit(unit)).toEqual({
    nodeFlags: ["--max-semi-space-size=2", "--x"],
    env: { NODE_ENV: "production", A: "b=c", D: "" },
  });
});

test("a unit that starts something else is refused", () => {
  expect(() => parseUnit("[Service]\nExecStart=/usr/bin/true\n")).toThrow("ExecStart");
});

test("the repository's own unit is understood", async () => {
  expect((await readDeployment(repository)).env).toHaveProperty("NODE_ENV", "production");
});
