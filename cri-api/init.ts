/**
 * What an encoder accepts for a message `T`: any field may be left out, null or undefined, at every depth.
 * Bytes are any Uint8Array; a map is a plain record.
 */
export type Init<T> = T extends string | number | bigint | boolean | null | undefined
  ? T
  : T extends Uint8Array
    ? Uint8Array
    : T extends readonly (infer Element)[]
      ? readonly Init<Element>[]
      : string extends keyof T
        ? T
        : { readonly [Key in keyof T]?: Init<T[Key]> | null | undefined };
