/** Where a message stands among its siblings: the edits of a user message, the regenerations of a reply (PROTOCOL §16.1). */

/** `index` counts from 0; `versions` are the newest of the siblings. */
export interface Branch {
  readonly index: number;
  readonly count: number;
  readonly versions: readonly string[];
}

/** By message id, of those that have siblings. */
export type Branches = Readonly<Record<string, Branch>>;

/** A new sibling beside `version`, whose place was `branch`. */
export function grown({ count, versions }: Branch, version: string): Branch {
  return { index: count, count: count + 1, versions: [...versions, version] };
}

/** Without a sibling that was deleted. Undefined: nothing can be said. */
export function shrunk({ index, count, versions }: Branch, version: string): Branch | undefined {
  const at = versions.indexOf(version);
  if (count > versions.length) return undefined;
  if (at < 0) return { index, count, versions };
  return {
    index: at < index ? index - 1 : index,
    count: count - 1,
    versions: versions.filter((one) => one !== version),
  };
}
