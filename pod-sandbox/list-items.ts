/**
 * Makes what a list shows of a record. A record never changes, so its item is made once and frozen, which has it encoded
 * once too: a kubelet asks for all of them every second.
 */
export function createListItems<Record extends object, Item extends object>(
  make: (record: Record) => Item,
): (record: Record) => Item {
  const known = new WeakMap<Record, Item>();
  return (record) => {
    const item = known.get(record) ?? Object.freeze(make(record));
    known.set(record, item);
    return item;
  };
}
