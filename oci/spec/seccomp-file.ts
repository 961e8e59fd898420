import * as v from "valibot";
import { invalid } from "./invalid.ts";
import type { OciSeccomp, OciSyscallRule, SeccompAction, SeccompOperator } from "./oci-types.ts";
import { seccompArchitectures } from "./seccomp-default.ts";
import type { SeccompTarget } from "./seccomp-default.ts";

const maxProfileBytes = 1024 * 1024;
const maxNames = 16_384;

const actions = [
  "SCMP_ACT_KILL",
  "SCMP_ACT_KILL_PROCESS",
  "SCMP_ACT_KILL_THREAD",
  "SCMP_ACT_TRAP",
  "SCMP_ACT_ERRNO",
  "SCMP_ACT_TRACE",
  "SCMP_ACT_ALLOW",
  "SCMP_ACT_LOG",
] as const satisfies readonly SeccompAction[];

const operators = [
  "SCMP_CMP_NE",
  "SCMP_CMP_LT",
  "SCMP_CMP_LE",
  "SCMP_CMP_EQ",
  "SCMP_CMP_GE",
  "SCMP_CMP_GT",
  "SCMP_CMP_MASKED_EQ",
] as const satisfies readonly SeccompOperator[];

// Not TSYNC: it is about the threads of the runtime itself. Nothing that needs a listener either.
const flags = ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"] as const;

const libseccompNameByGo: Readonly<Record<string, string>> = {
  amd64: "SCMP_ARCH_X86_64",
  "386": "SCMP_ARCH_X86",
  x32: "SCMP_ARCH_X32",
  arm64: "SCMP_ARCH_AARCH64",
  arm: "SCMP_ARCH_ARM",
};

/** Go writes an absent value as null. */
function optional<const Schema extends v.GenericSchema>(schema: Schema) {
  return v.optional(
    v.pipe(
      v.nullable(schema),
      v.transform((value) => value ?? undefined),
    ),
  );
}

/** Go writes an empty list as null. */
function list<const Schema extends v.GenericSchema>(schema: Schema, maxLength: number) {
  return v.pipe(
    v.nullish(v.array(schema), []),
    v.transform((items) => items ?? []),
    v.maxLength(maxLength),
  );
}

const nameSchema = v.pipe(v.string(), v.regex(/^[a-z_][a-z0-9_]{0,63}$/));
const integerSchema = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const errnoSchema = v.pipe(integerSchema, v.maxValue(4095));
const architectureSchema = v.pipe(v.string(), v.regex(/^SCMP_ARCH_[A-Z0-9_]{1,32}$/));

const argumentSchema = v.object({
  index: v.pipe(integerSchema, v.maxValue(5)),
  value: integerSchema,
  valueTwo: optional(integerSchema),
  op: v.picklist(operators),
});

const conditionSchema = v.object({
  caps: list(v.string(), 64),
  arches: list(v.string(), 64),
  minKernel: optional(v.pipe(v.string(), v.regex(/^(?:\d{1,3}\.\d{1,3})?$/))),
});

const ruleSchema = v.object({
  name: optional(v.union([v.literal(""), nameSchema])),
  names: list(nameSchema, 4096),
  action: v.picklist(actions),
  errnoRet: optional(errnoSchema),
  args: list(argumentSchema, 32),
  includes: optional(conditionSchema),
  excludes: optional(conditionSchema),
});

const profileSchema = v.object({
  defaultAction: v.picklist(actions),
  defaultErrnoRet: optional(errnoSchema),
  architectures: list(architectureSchema, 64),
  archMap: list(v.object({ architecture: architectureSchema, subArchitectures: list(architectureSchema, 16) }), 64),
  flags: list(v.picklist(flags), 8),
  listenerPath: optional(v.literal("", "a listener is not supported")),
  syscalls: list(ruleSchema, 4096),
});

/** A profile file as it was read: its rules may still depend on the container's capabilities and architecture. */
export type SeccompProfile = v.InferOutput<typeof profileSchema>;
type ProfileRule = SeccompProfile["syscalls"][number];

/**
 * Reads a seccomp profile in the OCI form or in the one of Docker and containers-common (`archMap`, `includes`,
 * `excludes`, `name` for `names`).
 *
 * @throws {CriError} `InvalidArgument` saying where the file is wrong: what it says is never run past.
 */
export function parseSeccompProfile(json: Buffer): SeccompProfile {
  if (json.length > maxProfileBytes) throw invalid(`seccomp profile is larger than ${maxProfileBytes} bytes`);
  const parsed = v.safeParse(profileSchema, parseJson(json), { abortEarly: true });
  if (!parsed.success) {
    const [issue] = parsed.issues;
    throw invalid(`seccomp profile: ${v.getDotPath(issue) ?? "document"}: ${issue.message.slice(0, 200)}`);
  }
  checkAmbiguities(parsed.output);
  return parsed.output;
}

function checkAmbiguities({ architectures, archMap, syscalls }: SeccompProfile): void {
  const names = syscalls.reduce((sum, rule) => sum + namesOf(rule).length, 0);
  if (names > maxNames) throw invalid(`seccomp profile names more than ${maxNames} system calls`);
  if (architectures.length > 0 && archMap.length > 0) {
    throw invalid('seccomp profile: "architectures" and "archMap" exclude each other');
  }
  for (const [index, rule] of syscalls.entries()) {
    if (namesOf(rule).length === 0) throw invalid(`seccomp profile: syscalls.${index} names no system call`);
    if (rule.name && rule.names.length > 0) {
      throw invalid(`seccomp profile: syscalls.${index} has both "name" and "names"`);
    }
  }
}

function parseJson(json: Buffer): unknown {
  try {
    return JSON.parse(json.toString("utf8"));
  } catch (cause) {
    throw invalid("seccomp profile is not JSON", { cause });
  }
}

/** The profile as this container gets it: rules whose conditions do not hold are left out. */
export function resolveSeccompProfile(profile: SeccompProfile, target: SeccompTarget): OciSeccomp {
  const { defaultAction, defaultErrnoRet, flags: wantedFlags, syscalls } = profile;
  const architectures = architecturesOf(profile, target);
  return {
    defaultAction,
    ...(defaultErrnoRet === undefined ? {} : { defaultErrnoRet }),
    ...(architectures.length > 0 ? { architectures } : {}),
    ...(wantedFlags.length > 0 ? { flags: wantedFlags } : {}),
    syscalls: syscalls.filter((rule) => applies(rule, target)).map(toOciRule),
  };
}

function architecturesOf({ architectures, archMap }: SeccompProfile, target: SeccompTarget): readonly string[] {
  if (architectures.length > 0) return architectures;
  const [native] = seccompArchitectures(target.architecture);
  const mapped = archMap.find(({ architecture }) => architecture === native);
  return mapped ? [mapped.architecture, ...mapped.subArchitectures] : [];
}

// `minKernel` holds on every kernel that Berth runs on: no published profile asks for more than 5.x.
function applies({ includes, excludes }: ProfileRule, target: SeccompTarget): boolean {
  const known = seccompArchitectures(target.architecture);
  const hasCapability = (name: string): boolean => target.capabilities.includes(name);
  const hasArchitecture = (name: string): boolean => known.includes(libseccompNameByGo[name] ?? name);
  const isIncluded =
    !includes ||
    (includes.caps.every(hasCapability) && (includes.arches.length === 0 || includes.arches.some(hasArchitecture)));
  return isIncluded && !excludes?.caps.some(hasCapability) && !excludes?.arches.some(hasArchitecture);
}

function namesOf({ name, names }: ProfileRule): readonly string[] {
  return name && names.length === 0 ? [name] : names;
}

function toOciRule(rule: ProfileRule): OciSyscallRule {
  const args = rule.args.map(({ index, value, valueTwo, op }) => ({ index, value, valueTwo: valueTwo ?? 0, op }));
  return {
    names: namesOf(rule),
    action: rule.action,
    ...(rule.errnoRet === undefined ? {} : { errnoRet: rule.errnoRet }),
    ...(args.length > 0 ? { args } : {}),
  };
}
