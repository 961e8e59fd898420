/** Where changes are told of: a record store. */
interface Changing {
  onChange(listen: () => void): void;
}

/** Does `work` whenever nothing has changed for `restMs`, first of all after a start in which nothing did. */
export function atRest(stores: readonly Changing[], restMs: number, work: () => void): void {
  const timer = setTimeout(work, restMs).unref(); // must not keep the daemon alive
  for (const store of stores) store.onChange(() => timer.refresh());
}
