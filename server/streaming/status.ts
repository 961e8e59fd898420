import { toCriError } from "../../cri-api/index.ts";

/** How a command ended, as the error stream tells it. */
export type CommandStatus =
  | { readonly kind: "success" }
  | { readonly kind: "exit-code"; readonly exitCode: number }
  | { readonly kind: "failure"; readonly message: string };

export function statusOfExit(exit: { readonly exitCode: number } | undefined): CommandStatus {
  if (exit === undefined || exit.exitCode === 0) return { kind: "success" };
  return { kind: "exit-code", exitCode: exit.exitCode };
}

export function statusOfFailure(thrown: unknown): CommandStatus {
  return { kind: "failure", message: toCriError(thrown).message };
}

/** The bytes of the error stream: a metav1.Status since v4, plain text of failures before. */
export function encodeStatus(status: CommandStatus, isJson: boolean): Buffer {
  const body = toMetaStatus(status);
  if (isJson) return Buffer.from(JSON.stringify(body));
  return Buffer.from(status.kind === "success" ? "" : body.message);
}

function toMetaStatus(status: CommandStatus): { readonly message: string } & Record<string, unknown> {
  switch (status.kind) {
    case "success":
      return { metadata: {}, status: "Success", message: "" };
    case "exit-code":
      return {
        metadata: {},
        status: "Failure",
        message: `command terminated with non-zero exit code: exit status ${status.exitCode}`,
        reason: "NonZeroExitCode",
        details: { causes: [{ reason: "ExitCode", message: String(status.exitCode) }] },
      };
    case "failure":
      return {
        metadata: {},
        status: "Failure",
        message: `Internal error occurred: ${status.message}`,
        reason: "InternalError",
        details: { causes: [{ message: status.message }] },
        code: 500,
      };
    default:
      return status satisfies never;
  }
}
