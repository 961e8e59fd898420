/** One element of DER. */
export interface DerElement {
  readonly tag: number;
  readonly content: Buffer;
}

const maxElements = 256;

/**
 * The elements that follow each other in DER.
 *
 * @throws {Error} for lengths that lie, or are not as short as they can be.
 * @see https://www.itu.int/rec/T-REC-X.690
 */
export function readDer(bytes: Buffer): readonly DerElement[] {
  const elements: DerElement[] = [];
  for (let offset = 0; offset < bytes.length; ) {
    const [tag = 0, first = 0] = bytes.subarray(offset, offset + 2);
    const lengthBytes = first < 0x80 ? 0 : first & 0x7f;
    const start = offset + 2 + lengthBytes;
    if (lengthBytes > 3 || first === 0x80 || start > bytes.length || (tag & 0x1f) === 0x1f) throw new Error("not DER");
    const length = lengthBytes === 0 ? first : bytes.readUIntBE(offset + 2, lengthBytes);
    if (start + length > bytes.length || elements.length === maxElements) throw new Error("not DER");
    elements.push({ tag, content: bytes.subarray(start, start + length) });
    offset = start + length;
  }
  return elements;
}

/** The elements inside the one that `bytes` is. */
export function readSequence(bytes: Buffer): readonly DerElement[] {
  const [only, more] = readDer(bytes);
  if (only === undefined || more !== undefined) throw new Error("not DER");
  return readDer(only.content);
}

/** A certificate's extension. */
export interface Extension {
  readonly isCritical: boolean;
  /** DER, by most extensions' definition. */
  readonly value: Buffer;
}

const extensionsTag = 0xa3;
const booleanTag = 0x01;
const octetStringTag = 0x04;

/** The extensions of a certificate by their OID in hex. @throws {Error} also if one is there twice. */
export function extensionsOf(certificate: Buffer): ReadonlyMap<string, Extension> {
  const [toBeSigned] = readSequence(certificate);
  const wrapped = readDer(toBeSigned?.content ?? Buffer.alloc(0)).find(({ tag }) => tag === extensionsTag);
  const extensions = new Map<string, Extension>();
  for (const { content } of wrapped === undefined ? [] : readSequence(wrapped.content)) {
    const [oid, ...rest] = readDer(content);
    const value = rest.find(({ tag }) => tag === octetStringTag);
    const name = oid?.content.toString("hex");
    if (name === undefined || value === undefined || extensions.has(name)) throw new Error("not DER");
    extensions.set(name, { isCritical: rest.some(({ tag }) => tag === booleanTag), value: value.content });
  }
  return extensions;
}
