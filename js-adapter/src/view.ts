/** What a session is at the newest event that has come: a fold of its feed (PROTOCOL §8.8, §8.9). No I/O. */
import {
  type AnnotationSummary,
  type Annotations,
  activeOf,
  type Content,
  decisionOf,
  messageOf,
  noteOf,
  type Older,
  type RunReply,
  type SessionDecision,
  type SessionEvent,
  type SessionInfo,
  type SessionNote,
  type SessionReader,
  type SessionRun,
  type Snapshot,
  type SpawnedMessage,
  titleOf,
} from "./content.js";
import { StrandlineResyncError } from "./errors.js";
import { createFold } from "./fold.js";
import { type Entry, entriesOf, entryIn, entryOf, placed, without } from "./path.js";
import { STEERING } from "./protocol.js";
import { createReply, type Reply } from "./reply.js";
import { type Beside, createShown } from "./shown.js";
import type { Chunk } from "./sse.js";

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

/** Replies that have ended are kept for those who were told of their run and have not begun to read it. */
const MOST_ENDED = 4;
const MOST_RUNS = 50;
const MOST_SPAWNED = 50;

/** `isPartial`: what is not asked for is missing from the path. */
export function createView(isPartial = false): View {
  let info: SessionInfo | null = null;
  let path: Entry[] = [];
  let runs: readonly SessionRun[] = [];
  let activeRuns: readonly SessionRun[] = [];
  let notes: readonly SessionNote[] = [];
  let readers: readonly SessionReader[] = [];
  let decisions: readonly SessionDecision[] = [];
  let annotations: Annotations = {};
  let before: string | null = null;
  let beside: Beside[] = [];
  const shown = createShown();
  const replies = new Map<string, Reply>();
  /** How runs ended that are still among the replies. */
  const ends = new Map<string, SessionEvent>();
  /** What was decided since the run that asked for it was suspended. */
  const decided = new Map<string, Chunk[]>();

  return {
    apply,
    content() {
      const rest = { runs, activeRuns, notes, readers, decisions, annotations };
      return { info, ...shown(path, beside), hasOlder: before !== null, ...rest };
    },
    reply(run) {
      const reply = replies.get(run);
      if (reply === undefined) return undefined;
      const { message, chunks, goesOn } = reply;
      return { messageId: message.id, chunks: [...chunks], goesOn, end: ends.get(run) };
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
      notes = [];
      take([]);
      readers = [];
      decisions = [];
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
        const { title = null, archived = false, submit = null } = event as Partial<SessionInfo>;
        note({ title, archived, submit, updatedAt: event.at as number });
        return;
      }
      case "message-created": {
        const message = messageOf(event.message_id, event.role, event);
        append(event, { version: event.message as string, message, author: { by: event.by as string } });
        settle(({ id }) => id === message.id);
        // An edit goes by the id of what it takes the place of, and nobody has said anything about it.
        if (annotations[message.id] !== undefined) unannotate(message.id);
        if (message.role === "user" && info?.title === null) note({ title: titleOf(message) });
        return;
      }
      case "message-replaced": {
        const replaced = (entry: Entry): Entry => {
          if (entry.version !== event.message) return entry;
          const { id, role } = entry.message;
          const message = messageOf(id, role, event);
          if (role === "user" && info?.title === null) note({ title: titleOf(message) });
          return { ...entry, message, author: { ...entry.author, editedBy: event.by as string } };
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
        const base = find(message);
        const goesOn = parentRun !== null && !spawned;
        const isShown = base !== undefined || !goesOn || isPartial;
        const reply = createReply(messageId as string, base?.message ?? (goesOn ? null : undefined), isShown);
        const entry = entryOf(
          base ?? { version: message as string, author: { by: `agent:${agent}` } },
          reply,
        );
        if (base !== undefined) put(entry, run);
        else if (spawned) putBeside(event, entry);
        // Else it is of a page that is not here, or on another branch, which is not shown because of that.
        else if (isShown) append(event, entry);
        // They are in the message already, and say the same twice.
        reply.push(decided.get(parentRun as string) ?? []);
        decided.delete(parentRun as string);
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
        for (const { type, id } of event.chunks as Chunk[]) {
          if (type === STEERING) settle((one) => one.id === id);
        }
        return;
      case "steered":
        notes = [...notes, noteOf(run, event)];
        return;
      case "message-reset": {
        const reply = known(run);
        // What a process that is gone has taken of the notes waits again: a new snapshot says which they are.
        if (event.by === "server" && reply.chunks.some(({ type }) => type === STEERING))
          throw new StrandlineResyncError();
        reply.reset();
        return;
      }
      case "run-ended": {
        const { status, reason = null, error = null, at: endedAt } = event;
        change(run, { status, reason, error, endedAt } as Partial<SessionRun>);
        note({ updatedAt: endedAt as number });
        known(run);
        // Those that become messages do so next.
        settle((one) => one.run === run);
        ends.set(run, event);
        for (const old of [...ends.keys()].slice(0, -MOST_ENDED)) {
          ends.delete(old);
          replies.delete(old);
        }
        return;
      }
      case "decision-requested":
        ask([...decisions, decisionOf(event)]);
        return;
      case "decision-made": {
        ask(decisions.filter(({ id }) => id !== event.decision));
        const asked = event.asked_by as string;
        const chunks = event.chunks as Chunk[];
        decided.set(asked, [...(decided.get(asked) ?? []), ...chunks]);
        for (const old of [...decided.keys()].slice(0, -MOST_ENDED)) decided.delete(old);
        const entry = find(event.message);
        // It is of a page that is not here, or on another branch.
        if (entry === undefined) return;
        const fold = createFold(entry.message.id, entry.message);
        for (const chunk of chunks) fold.push(chunk);
        put({ ...entry, message: fold.message });
        return;
      }
      case "annotated":
      case "annotation-removed": {
        const [id, kind] = [event.message_id as string, event.kind as string];
        // Another version goes by the same id, and is the one that is shown.
        if (find(event.message) === undefined && path.some(({ message }) => message.id === id)) return;
        const summary = event.summary as AnnotationSummary;
        const { [kind]: _, ...others } = annotations[id] ?? {};
        annotations = { ...annotations, [id]: summary.count > 0 ? { ...others, [kind]: summary } : others };
        return;
      }
      case "resync":
        throw new StrandlineResyncError();
    }
  }

  function load(snapshot: Snapshot): void {
    forget();
    info = snapshot.session;
    ({ readers, decisions, annotations } = snapshot);
    take(snapshot.runs);
    before = isPartial ? null : snapshot.page.before;
    const writing = new Map<string, Reply>();
    notes = snapshot.active.flatMap(({ run, notes }) => notes.map((told) => noteOf(run, told)));
    for (const { run, messageId, chunks, continues } of snapshot.active) {
      const reply = createReply(messageId, continues && null);
      reply.push(chunks);
      replies.set(run, reply);
      writing.set(messageId, reply);
    }
    const written = (entry: Entry): Entry => {
      const reply = writing.get(entry.message.id);
      return reply === undefined ? entry : entryOf(entry, reply);
    };
    path = entriesOf(snapshot).map(written);
    beside = snapshot.spawned.map(({ message, ...about }) => ({
      entry: written(entryIn(snapshot, message)),
      about,
    }));
  }

  function putBeside({ run, agent, parent: version }: SessionEvent, entry: Entry): void {
    const parent = find(version)?.message.id ?? null;
    beside = [...beside, { entry, about: { run, agent, parent } as SpawnedMessage }].slice(-MOST_SPAWNED);
  }

  function append({ parent, at }: SessionEvent, entry: Entry): void {
    note({ updatedAt: at as number });
    path = isPartial ? [...path, entry] : placed(path, entry, parent, before !== null);
  }

  function remove(version: string, id: string): void {
    // With what was written beside it, and beside that.
    const gone = new Set<string | null>([id]);
    beside = beside.filter(({ entry, about }) => {
      if (entry.version === version || gone.has(about.parent)) gone.add(entry.message.id);
      return !gone.has(entry.message.id);
    });
    unannotate(id);
    if (decisions.some(({ messageId }) => messageId === id))
      ask(decisions.filter(({ messageId }) => messageId !== id));
    path = without(path, version, before !== null);
  }

  function unannotate(id: string): void {
    const { [id]: _, ...others } = annotations;
    annotations = others;
  }

  function find(version: unknown): Entry | undefined {
    return [...path, ...beside.map((one) => one.entry)].find((one) => one.version === version);
  }

  /** In place of what was there of this version. `run`: the one that writes it from now on. */
  function put(entry: Entry, run?: string): void {
    path = path.map((one) => (one.version === entry.version ? entry : one));
    beside = beside.map((one) =>
      one.entry.version === entry.version
        ? { entry, about: { ...one.about, ...(run !== undefined && { run }) } }
        : one,
    );
  }

  function note(fields: Partial<SessionInfo>): void {
    if (info !== null) info = { ...info, ...fields };
  }

  function change(run: string, fields: Partial<SessionRun>): void {
    take(runs.map((one) => (one.id === run ? { ...one, ...fields } : one)));
  }

  function take(next: readonly SessionRun[]): void {
    runs = next;
    activeRuns = activeOf(runs);
    note({ activeRun: activeRuns[0]?.id ?? null });
  }

  function ask(next: readonly SessionDecision[]): void {
    decisions = next;
    note({ pending: decisions.length });
  }

  function settle(isSettled: (one: SessionNote) => boolean): void {
    if (notes.some(isSettled)) notes = notes.filter((one) => !isSettled(one));
  }

  function known(run: string): Reply {
    const reply = replies.get(run);
    if (reply === undefined) throw new StrandlineResyncError();
    return reply;
  }

  function forget(): void {
    replies.clear();
    ends.clear();
    decided.clear();
  }
}
