import { posix } from "node:path";
import { invalid, quote } from "./invalid.ts";

// C0, DEL, C1, and the two Unicode line ends: whatever a reader of a generated file may take for the end of a line.
// oxlint-disable-next-line no-control-regex -- control characters are what this looks for
const controlCharacters = /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/u;

/**
 * Refuses text that could add a line or a field to a file we write (CVE-2022-4318, CVE-2026-15809).
 *
 * @throws {CriError} `InvalidArgument` naming the field.
 */
export function assertNoControlCharacters(field: string, value: string): void {
  if (controlCharacters.test(value)) throw invalid(`${field} ${quote(value)} contains a control character`);
}

/** A NUL would end the string early in every C program that reads it. @throws {CriError} `InvalidArgument`. */
export function assertNoNul(field: string, value: string): void {
  if (value.includes("\0")) throw invalid(`${field} ${quote(value)} contains a NUL character`);
}

/**
 * An absolute path without empty, `.` and `..` components and without a trailing slash.
 *
 * @throws {CriError} `InvalidArgument` where it is not absolute or has a control character.
 */
export function cleanAbsolutePath(field: string, path: string): string {
  assertNoControlCharacters(field, path);
  if (!path.startsWith("/")) throw invalid(`${field} ${quote(path)} is not an absolute path`);
  return posix.resolve(path);
}

/** True for `directory` itself and everything below it, by whole path components. */
export function isAtOrBelow(path: string, directory: string): boolean {
  return path === directory || directory === "/" || path.startsWith(`${directory}/`);
}
