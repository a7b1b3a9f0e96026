/**
 * The messages that are shown, in order: each in the version that is on the active path, with its place among its siblings
 * (PROTOCOL §16). No state: a change is a new path.
 */
import { type Branch, grown, shrunk } from "./branch.js";
import type { Author, Older } from "./content.js";
import { StrandlineResyncError } from "./errors.js";
import type { SessionMessage } from "./fold.js";

export interface Entry {
  /** Server-minted name of this version of the message: what `parent` means. */
  version: string;
  readonly message: SessionMessage;
  readonly author: Author;
  branch?: Branch | undefined;
  /** It is only here because others name it as their parent. */
  isDeleted?: true;
}

/** `said` is asked for the message each time: it may be being written. */
export const entryOf = (
  { version, author, branch }: Omit<Entry, "message">,
  said: Pick<Entry, "message">,
): Entry => ({
  version,
  author,
  branch,
  get message() {
    return said.message;
  },
});

/** A message with what a page or a snapshot says of it. */
export const entryIn = ({ versions, authors, branches }: Older, message: SessionMessage): Entry => ({
  version: versions[message.id] ?? message.id,
  message,
  author: authors[message.id] as Author,
  branch: branches[message.id],
});

export const entriesOf = (older: Older): Entry[] => older.messages.map((message) => entryIn(older, message));

/**
 * A message at its place: one whose parent is not the last one begins another branch, and what came after the parent is not
 * on it. `hasOlder`: the path begins before what is here.
 */
export function placed(path: readonly Entry[], entry: Entry, parent: unknown, hasOlder: boolean): Entry[] {
  const length = parent === undefined ? 0 : path.findIndex(({ version }) => version === parent) + 1;
  const instead = path[length];
  // A parent, or siblings, that this page does not know.
  const isUnknown = length === 0 && (parent !== undefined || hasOlder);
  if (isUnknown || instead?.isDeleted) throw new StrandlineResyncError();
  if (instead?.version === entry.version) entry.branch = instead.branch;
  else if (instead?.message.role === entry.message.role)
    entry.branch = grown(
      instead.branch ?? { index: 0, count: 1, versions: [instead.version] },
      entry.version,
    );
  return [...path.slice(0, length), entry];
}

/** Without a message that was deleted, which stays as what others name as their parent. */
export function without(path: readonly Entry[], version: string, hasOlder: boolean): Entry[] {
  const index = path.findIndex((entry) => entry.version === version);
  // What is shown instead of the last one, and where the page begins then, only the server knows.
  if (index >= 0 && (index === path.length - 1 || (index === 0 && hasOlder)))
    throw new StrandlineResyncError();
  return path.map((entry) => {
    if (entry.version === version) return { ...entry, branch: undefined, isDeleted: true };
    if (entry.branch === undefined) return entry;
    const branch = shrunk(entry.branch, version);
    if (branch === undefined) throw new StrandlineResyncError();
    if (branch.count === entry.branch.count) return entry;
    return entryOf({ ...entry, branch: branch.count > 1 ? branch : undefined }, entry);
  });
}
