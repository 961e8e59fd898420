import protobuf from "protobufjs";

/** What protobufjs leaves to us on its way in and out. */
export interface Visitor {
  /** Refuses a decoded message that holds an enum number the contract does not know, at any depth. */
  refuseUnknownEnums(type: protobuf.Type, message: object): void;
  /**
   * Replaces lone surrogates by U+FFFD in place, at any depth. protobufjs would write them as three bytes that are not
   * UTF-8, and one such label would make a client refuse the whole list.
   */
  makeTextWellFormed(type: protobuf.Type, message: object): void;
}

type Step = (message: Record<string, unknown>) => void;

/** Which fields of a type have to be looked at; undefined when the type holds none, at any depth. */
type Plan = (type: protobuf.Type) => readonly Step[] | undefined;

function createPlan(stepOf: (field: protobuf.Field, plan: Plan) => Step | undefined): Plan {
  const known = new Map<protobuf.Type, readonly Step[] | undefined>();
  const plan: Plan = (type) => {
    if (known.has(type)) return known.get(type);
    const steps = type.fieldsArray.map((field) => stepOf(field.resolve(), plan)).filter((step) => step !== undefined);
    known.set(type, steps.length > 0 ? steps : undefined);
    return known.get(type);
  };
  return plan;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

function walk(steps: readonly Step[] | undefined, value: unknown): void {
  if (steps === undefined || !isRecord(value)) return;
  for (const step of steps) step(value);
}

/** The step that visits a field's messages, if those have anything to visit. */
function stepInto(field: protobuf.Field, plan: Plan): Step | undefined {
  const steps = field.resolvedType instanceof protobuf.Type ? plan(field.resolvedType) : undefined;
  if (steps === undefined) return undefined;
  return (message) => {
    const value = message[field.name];
    if (Array.isArray(value)) for (const element of value) walk(steps, element);
    else walk(steps, value);
  };
}

function enumStep(field: protobuf.Field, plan: Plan): Step | undefined {
  const type = field.resolvedType;
  if (!(type instanceof protobuf.Enum)) return stepInto(field, plan);
  return (message) => {
    const value = message[field.name];
    for (const number of Array.isArray(value) ? value : [value]) {
      if (type.valuesById[Number(number)] === undefined) {
        throw new Error(
          `${String(field.parent?.name)}.${field.name}: no ${type.name} has the number ${String(number)}`,
        );
      }
    }
  };
}

function wellFormed(value: unknown): unknown {
  return typeof value === "string" && !value.isWellFormed() ? value.toWellFormed() : value;
}

function textStep(field: protobuf.Field, plan: Plan): Step | undefined {
  const { name } = field;
  if (field.type !== "string") return stepInto(field, plan);
  if (field instanceof protobuf.MapField) return (message) => makeMapWellFormed(message, name);
  return (message) => {
    const value = message[name];
    if (Array.isArray(value)) for (const [index, text] of value.entries()) value[index] = wellFormed(text);
    else if (typeof value === "string" && !value.isWellFormed()) message[name] = value.toWellFormed();
  };
}

function makeMapWellFormed(message: Record<string, unknown>, name: string): void {
  const entries = Object.entries(message[name] ?? {});
  if (entries.every((entry) => entry.every((text) => wellFormed(text) === text))) return;
  // fromEntries defines own properties, so a key `__proto__` stays a key.
  message[name] = Object.fromEntries(entries.map(([key, value]) => [key.toWellFormed(), wellFormed(value)]));
}

export function createVisitor(): Visitor {
  const enums = createPlan(enumStep);
  const texts = createPlan(textStep);
  return {
    refuseUnknownEnums: (type, message) => walk(enums(type), message),
    makeTextWellFormed: (type, message) => walk(texts(type), message),
  };
}
