/** What a session is at the newest event that has come: a fold of its feed (PROTOCOL §8.8, §8.9). No I/O. */
import { type Branch, type Branches, grown, shrunk } from "./branch.js";
import { StrandlineResyncError } from "./errors.js";
import type { SessionMessage } from "./fold.js";
import { createReply, type Reply } from "./reply.js";
import type { Chunk } from "./sse.js";

/** What lists show of a session (§8.1). Times are ms since 1970. */
export interface SessionInfo {
  readonly id: string;
  readonly title: string | null;
  readonly archived: boolean;
  readonly createdAt: number;
  readonly updatedAt: number;
  /** Id of the newest run that has not ended. */
  readonly activeRun: string | null;
}

export interface SessionRun {
  readonly id: string;
  /** Of the reply that it writes. */
  readonly messageId: string;
  readonly status: "queued" | "running" | "completed" | "suspended" | "stopped" | "failed" | "lost";
  /** Why it ended (§9.2). */
  readonly reason: string | null;
  readonly error: string | null;
  readonly agent: string;
  /** Another agent's, beside the run `parentRun` (§17.6). */
  readonly spawned: boolean;
  readonly parentRun: string | null;
  readonly createdAt: number;
  readonly endedAt: number | null;
}

/** What another agent says beside a reply (§17.6). */
export interface SpawnedMessage {
  readonly message: SessionMessage;
  readonly run: string;
  readonly agent: string;
  /** Id of the message beside which it is written. */
  readonly parent: string | null;
}

/** One connection to the session (§8.11). */
export interface SessionReader {
  readonly id: string;
  readonly user: string;
  readonly device: string | null;
  readonly client: string | null;
  readonly wire: "session" | "ai-sdk" | "ag-ui";
  readonly run: string | null;
  readonly connected: boolean;
  readonly since: number;
  readonly leftAt: number | null;
  readonly sent: string | null;
  readonly acknowledged: string | null;
}

/** What there is of one type of annotation on a message (§19.3). */
export interface AnnotationSummary {
  readonly count: number;
  /** How many of each name (of citations: of each host), the most frequent first. */
  readonly names?: Readonly<Record<string, number>>;
  /** How many have none of these names, where there are too many to list. */
  readonly others?: number;
}

export type Annotations = Readonly<Record<string, Readonly<Record<string, AnnotationSummary>>>>;

/** A frame of the feed, as it came. */
export interface SessionEvent {
  readonly type: string;
  readonly seq?: number;
  readonly [field: string]: unknown;
}

/** What the feed says of a session. Objects that did not change stay the same from one to the next. */
export interface Content {
  /** Null until something has come. */
  readonly info: SessionInfo | null;
  /** The active path, what is being written included. */
  readonly messages: readonly SessionMessage[];
  /** The newest, oldest first. */
  readonly runs: readonly SessionRun[];
  /** Those that have not ended, oldest first, without spawned ones: what is being written in `messages`. */
  readonly activeRuns: readonly SessionRun[];
  /** What other agents say beside the replies, oldest first, at most the newest 50. */
  readonly spawned: readonly SpawnedMessage[];
  readonly readers: readonly SessionReader[];
  /** Where those messages that have siblings stand among them: versions of the same question, answers to the same one. */
  readonly branches: Branches;
  /** Of messages that have annotations: by message id, then by type (§19.3). */
  readonly annotations: Annotations;
  /** There are messages before the first one: `loadOlder`. */
  readonly hasOlder: boolean;
}

export interface View {
  /** Throws `StrandlineResyncError` when only a fresh snapshot can say how it goes on. */
  apply(event: SessionEvent): void;
  content(): Content;
  /** What a run said, if this page has all of it. */
  reply(run: string): RunReply | undefined;
  /** Where the page of messages before those that are here ends. */
  readonly before: string | null;
  prepend(older: Older): void;
  /** Forgets everything. */
  clear(): void;
}

/** The newest run that writes a message which is shown: others may be writing on another branch. */
export const runShown = ({ activeRuns, messages }: Content): SessionRun | undefined =>
  activeRuns.filter(({ messageId }) => messages.some(({ id }) => id === messageId)).at(-1);

/** The chunks of a run, from its first one. */
export interface RunReply {
  readonly messageId: string;
  readonly chunks: readonly Chunk[];
  /** The event that ended it, if that has come. */
  readonly end: SessionEvent | undefined;
}

interface Entry {
  /** Server-minted name of this version of the message: what `parent` means. */
  version: string;
  readonly message: SessionMessage;
  branch?: Branch | undefined;
  /** It is only here because others name it as their parent. */
  isDeleted?: true;
}

/** Message id to version, where they differ. */
type Versions = Readonly<Record<string, string>>;

/** A page of messages (§8.6). */
export interface Older {
  messages: readonly SessionMessage[];
  versions: Versions;
  branches?: Branches;
  annotations?: Annotations;
  page: { before: string | null };
}

interface Snapshot extends Older {
  session: SessionInfo;
  active: { run: string; messageId: string; chunks: Chunk[] }[];
  runs: SessionRun[];
  readers: SessionReader[];
  annotations: Annotations;
  spawned?: SpawnedMessage[];
}

/** Replies that have ended are kept for those who were told of their run and have not begun to read it. */
const MOST_ENDED = 4;
const MOST_RUNS = 50;
const MOST_SPAWNED = 50;
/** A longer first message is cut to make a title (§8.2). */
const LONGEST_TITLE = 80;

const ACTIVE = new Set(["queued", "running"]);

/** `isPartial`: what is not asked for is missing from the path. */
export function createView(isPartial = false): View {
  let info: SessionInfo | null = null;
  let path: Entry[] = [];
  let runs: readonly SessionRun[] = [];
  let activeRuns: readonly SessionRun[] = [];
  let readers: readonly SessionReader[] = [];
  let annotations: Annotations = {};
  let before: string | null = null;
  let beside: { entry: Entry; about: Omit<SpawnedMessage, "message"> }[] = [];
  let shownBeside: readonly SpawnedMessage[] = [];
  /** What was given out last. */
  let shown: readonly SessionMessage[] = [];
  let branches: Branches = {};
  const replies = new Map<string, Reply>();
  /** How runs ended that are still among the replies. */
  const ends = new Map<string, SessionEvent>();

  return {
    apply,
    content() {
      const there = path.filter(({ isDeleted }) => !isDeleted);
      const messages = there.map(({ message }) => message);
      const isSame =
        messages.length === shown.length && messages.every((message, index) => message === shown[index]);
      if (!isSame) shown = messages;
      const placed = there.filter(({ branch }) => branch !== undefined);
      const isPlaced =
        placed.length === Object.keys(branches).length &&
        placed.every(({ message, branch }) => branches[message.id] === branch);
      if (!isPlaced)
        branches = Object.fromEntries(placed.map(({ message, branch }) => [message.id, branch as Branch]));
      const spawned = beside.map(
        ({ entry: { message }, about }) =>
          shownBeside.find((one) => one.message === message) ?? { ...about, message },
      );
      if (spawned.length !== shownBeside.length || spawned.some((one, index) => one !== shownBeside[index]))
        shownBeside = spawned;
      const rest = { runs, activeRuns, readers, branches, annotations, hasOlder: before !== null };
      return { info, messages: shown, spawned: shownBeside, ...rest };
    },
    reply(run) {
      const reply = replies.get(run);
      return reply && { messageId: reply.message.id, chunks: [...reply.chunks], end: ends.get(run) };
    },
    get before() {
      return before;
    },
    prepend(older) {
      annotations = { ...older.annotations, ...annotations };
      path = [...entriesOf(older), ...path];
      before = older.page.before;
    },
    clear() {
      forget();
      info = before = null;
      path = [];
      beside = [];
      take([]);
      readers = [];
      annotations = {};
    },
  };

  function apply(event: SessionEvent): void {
    const run = event.run as string;
    switch (event.type) {
      case "snapshot":
        load(event as unknown as Snapshot);
        return;
      case "readers":
        readers = event.readers as SessionReader[];
        return;
      case "session-changed": {
        const { title = null, archived = false } = event as Partial<SessionInfo>;
        note({ title, archived, updatedAt: event.at as number });
        return;
      }
      case "message-created": {
        const { message_id: id, role, parts, metadata } = event;
        const message = { id, role, parts, ...(metadata !== undefined && { metadata }) } as SessionMessage;
        append(event, { version: event.message as string, message });
        if (role === "user" && info?.title === null) note({ title: titleOf(message) });
        return;
      }
      case "message-replaced": {
        const { message: version, parts, metadata } = event;
        const replaced = (entry: Entry): Entry => {
          if (entry.version !== version) return entry;
          const { id, role } = entry.message;
          const message = { id, role, parts, ...(metadata !== undefined && { metadata }) } as SessionMessage;
          if (role === "user" && info?.title === null) note({ title: titleOf(message) });
          return { ...entry, message };
        };
        path = path.map(replaced);
        beside = beside.map(({ entry, about }) => ({ entry: replaced(entry), about }));
        note({ updatedAt: event.at as number });
        return;
      }
      case "message-deleted":
        remove(event.message as string, event.message_id as string);
        note({ updatedAt: event.at as number });
        return;
      case "branch-selected":
        if (path.at(-1)?.version !== event.leaf) throw new StrandlineResyncError();
        return;
      case "run-queued": {
        const { message, message_id: messageId, agent, at } = event as Record<string, string>;
        const { spawned = false, parent_run: parentRun = null } = event;
        const reply = createReply(messageId as string);
        const entry = entryOf(message as string, reply);
        if (spawned) putBeside(event, entry);
        else append(event, entry);
        replies.set(run, reply);
        const queued = { id: run, messageId, agent, spawned, parentRun, createdAt: at, status: "queued" };
        const unended = { reason: null, error: null, endedAt: null };
        take([...runs, { ...queued, ...unended } as unknown as SessionRun].slice(-MOST_RUNS));
        return;
      }
      case "run-started":
        change(run, { status: "running" });
        return;
      case "appended":
        known(run).push(event.chunks as Chunk[]);
        return;
      case "message-reset":
        known(run).reset();
        return;
      case "run-ended": {
        const { status, reason = null, error = null, at: endedAt } = event;
        change(run, { status, reason, error, endedAt } as Partial<SessionRun>);
        note({ updatedAt: endedAt as number });
        known(run);
        ends.set(run, event);
        for (const old of [...ends.keys()].slice(0, -MOST_ENDED)) {
          ends.delete(old);
          replies.delete(old);
        }
        return;
      }
      case "annotated":
      case "annotation-removed": {
        const [id, kind] = [event.message_id as string, event.kind as string];
        const summary = event.summary as AnnotationSummary;
        const { [kind]: _, ...others } = annotations[id] ?? {};
        annotations = { ...annotations, [id]: summary.count > 0 ? { ...others, [kind]: summary } : others };
        return;
      }
      case "resync":
        throw new StrandlineResyncError();
    }
  }

  function load({ session, page, active, ...rest }: Snapshot): void {
    forget();
    info = session;
    take(rest.runs);
    readers = rest.readers;
    annotations = rest.annotations;
    before = isPartial ? null : page.before;
    const writing = new Map<string, Reply>();
    for (const { run, messageId, chunks } of active) {
      const reply = createReply(messageId);
      reply.push(chunks);
      replies.set(run, reply);
      writing.set(messageId, reply);
    }
    const written = (entry: Entry): Entry => {
      const reply = writing.get(entry.message.id);
      return reply === undefined ? entry : entryOf(entry.version, reply, entry.branch);
    };
    path = entriesOf({ ...rest, page }).map(written);
    beside = (rest.spawned ?? []).map(({ message, ...about }) => ({
      entry: written({ version: rest.versions[message.id] ?? message.id, message }),
      about,
    }));
  }

  function putBeside({ run, agent, parent: version }: SessionEvent, entry: Entry): void {
    const known = [...path, ...beside.map((one) => one.entry)];
    const parent = known.find((one) => one.version === version)?.message.id ?? null;
    beside = [...beside, { entry, about: { run, agent, parent } as SpawnedMessage }].slice(-MOST_SPAWNED);
  }

  /** A message whose parent is not the last one begins another branch: what came after the parent is not on it. */
  function append({ parent, at }: SessionEvent, entry: Entry): void {
    const length = parent === undefined ? 0 : path.findIndex(({ version }) => version === parent) + 1;
    note({ updatedAt: at as number });
    if (isPartial) {
      path = [...path, entry];
      return;
    }
    const instead = path[length];
    // A parent, or siblings, that this page does not know.
    const isUnknown = length === 0 && (parent !== undefined || before !== null);
    if (isUnknown || instead?.isDeleted) throw new StrandlineResyncError();
    if (instead?.version === entry.version) entry.branch = instead.branch;
    else if (instead?.message.role === entry.message.role)
      entry.branch = grown(
        instead.branch ?? { index: 0, count: 1, versions: [instead.version] },
        entry.version,
      );
    path = [...path.slice(0, length), entry];
  }

  function remove(version: string, id: string): void {
    // With what was written beside it, and beside that.
    const gone = new Set<string | null>([id]);
    beside = beside.filter(({ entry, about }) => {
      if (entry.version === version || gone.has(about.parent)) gone.add(entry.message.id);
      return !gone.has(entry.message.id);
    });
    const { [id]: _, ...others } = annotations;
    annotations = others;
    const index = path.findIndex((entry) => entry.version === version);
    // What is shown instead of the last one, and where the page begins then, only the server knows.
    if (index >= 0 && (index === path.length - 1 || (index === 0 && before !== null)))
      throw new StrandlineResyncError();
    path = path.map((entry) => {
      if (entry.version === version) return { ...entry, isDeleted: true };
      if (entry.branch === undefined) return entry;
      const branch = shrunk(entry.branch, version);
      if (branch === undefined) throw new StrandlineResyncError();
      if (branch.count === entry.branch.count) return entry;
      return withBranch(entry, branch.count > 1 ? branch : undefined);
    });
  }

  function note(fields: Partial<SessionInfo>): void {
    if (info !== null) info = { ...info, ...fields };
  }

  function change(run: string, fields: Partial<SessionRun>): void {
    take(runs.map((one) => (one.id === run ? { ...one, ...fields } : one)));
  }

  function take(next: readonly SessionRun[]): void {
    runs = next;
    activeRuns = runs.filter(({ status, spawned }) => ACTIVE.has(status) && !spawned);
    note({ activeRun: activeRuns.at(-1)?.id ?? null });
  }

  function known(run: string): Reply {
    const reply = replies.get(run);
    if (reply === undefined) throw new StrandlineResyncError();
    return reply;
  }

  function forget(): void {
    replies.clear();
    ends.clear();
  }
}

const entryOf = (version: string, reply: Reply, branch?: Branch): Entry => ({
  version,
  branch,
  get message() {
    return reply.message;
  },
});

const entriesOf = ({ messages, versions, branches = {} }: Older): Entry[] =>
  messages.map((message) => ({
    version: versions[message.id] ?? message.id,
    message,
    branch: branches[message.id],
  }));

/** Not a spread: what is being written is asked for each time. */
const withBranch = (entry: Entry, branch: Branch | undefined): Entry => ({
  version: entry.version,
  branch,
  get message() {
    return entry.message;
  },
});

/** The title that a session without one gets from a message of a user (§8.2). */
function titleOf({ parts }: SessionMessage): string | null {
  const texts = parts.map(({ type, text }) => (type === "text" ? text : ""));
  const line = [...texts.join(" ").replace(/\s+/g, " ").trim()];
  if (line.length > LONGEST_TITLE) line.splice(LONGEST_TITLE - 1, line.length, "…");
  return line.join("") || null;
}
