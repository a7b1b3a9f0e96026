/**
 * Keeps an AI SDK chat equal to its session, without React.
 *
 * While the chat streams a reply, the stream is right. Whenever it does not, its messages are made those of the session,
 * and a reply that is being written, here or elsewhere, is read. Nothing is compared but ids and object identity, so a
 * chat that is equal is left alone: that is what ends the loop of "messages changed".
 */

import { ONLOOKING } from "./chat.js";
import { runsShown } from "./content.js";
import type { SessionView } from "./session.js";

/** What is needed to know of a `UIMessage`, of any major version. */
export interface SyncedMessage {
  id: string;
  role: string;
  parts?: readonly unknown[];
}

/** What is used of the result of `useChat` (@ai-sdk/react 2, 3 and 4 for ai 5, 6 and 7). */
export interface SyncedChat<MESSAGE extends SyncedMessage = SyncedMessage> {
  readonly id: string;
  readonly status: "submitted" | "streaming" | "ready" | "error";
  readonly messages: MESSAGE[];
  setMessages(messages: MESSAGE[] | ((messages: MESSAGE[]) => MESSAGE[])): void;
  resumeStream(options?: { metadata?: unknown }): Promise<void>;
  /** Of the AI SDK: it lets go of the stream, and resolves when that has happened. */
  stop(): Promise<void>;
}

/** What one `useChat` and one session have to do with each other. */
export interface Sync<MESSAGE extends SyncedMessage> {
  /** The chat and the session as they are now: to be called whenever either has changed, and when `onChange` says so. */
  update(chat: SyncedChat<MESSAGE>, view: SessionView): void;
  /** Makes a request of this device: what the chat reads is let go of first, and nothing else is done meanwhile. */
  request(make: (chat: SyncedChat<MESSAGE>) => Promise<void>): Promise<void>;
  /**
   * What is on the screen: the messages of the session as it has them now, which are there before a stream that resumes has
   * told them; of a request of this device what its chat says. The same array until something in it changes.
   */
  shown(chat: SyncedChat<MESSAGE>, view: SessionView): MESSAGE[];
  /** The messages of a chat that the session never had. */
  unsent(chat: SyncedChat<MESSAGE>, view: SessionView): MESSAGE[];
  /** Lets go of what the chat reads. `update` takes it up again. */
  detach(): void;
}

/** A reply that could not be read so often is shown as the session has it. */
const MOST_RESUMES = 4;
const RETRY_MS = 250;

export function createSync<MESSAGE extends SyncedMessage>(onChange: () => void): Sync<MESSAGE> {
  /** Every message that the session ever had: one that is gone from it was deleted, or is on another branch. */
  const accepted = new Set<string>();
  let current: SyncedChat<MESSAGE> | undefined;
  let requests = 0;
  let resuming = false;
  /** The run that was resumed last, and how often in a row. */
  let tried: { run: string; times: number } | undefined;
  let waiting: ReturnType<typeof setTimeout> | undefined;
  let shownLast: MESSAGE[] = [];

  const isBusy = (chat: SyncedChat<MESSAGE>) =>
    requests > 0 || resuming || chat.status === "submitted" || chat.status === "streaming";

  return {
    update(chat, view) {
      current = chat;
      for (const { id, pending } of view.messages) if (!pending) accepted.add(id);
      if (isUnknown(view)) return;
      if (isBusy(chat)) return put(chat, (local) => mended(local, view));
      const run = runsShown(view)[0]?.id;
      if (run !== tried?.run) forget();
      const isTimeToRead = run !== undefined && waiting === undefined && (tried?.times ?? 0) < MOST_RESUMES;
      // Said before anything is put: a chat may answer that at once.
      resuming = isTimeToRead;
      put(chat, (local) => merged(local, view, accepted, !isTimeToRead));
      if (isTimeToRead) resume(chat, run);
    },

    async request(make) {
      const chat = current;
      if (chat === undefined) throw new Error("The chat is not mounted.");
      const wasBusy = isBusy(chat);
      requests++;
      try {
        if (wasBusy) await chat.stop();
        await make(chat);
      } finally {
        requests--;
        onChange();
      }
    },

    shown(chat, view) {
      if (isUnknown(view)) return chat.messages;
      const isOwn = isBusy(chat) && !resuming;
      const isWriting = chat.status === "submitted" || chat.status === "streaming";
      const made = isOwn
        ? followed(chat.messages, view, accepted, isWriting)
        : merged(chat.messages, view, accepted, true);
      const written = writtenIn(view);
      // A chat does not show what has not begun.
      const begun = made.filter(({ id, parts }: SyncedMessage) => !written.has(id) || parts?.length !== 0);
      if (!isSame(begun, shownLast)) shownLast = begun;
      return shownLast;
    },

    unsent: (chat, view) =>
      isBusy(chat) || (view.cursor === null && view.status !== "absent")
        ? []
        : [...unsentAmong(chat.messages, view, accepted)].map(([message]) => message),

    detach() {
      forget();
      if (requests > 0 || resuming) current?.stop().catch(() => {});
    },
  };

  function resume(chat: SyncedChat<MESSAGE>, run: string): void {
    const times = (tried?.times ?? 0) + 1;
    tried = { run, times };
    const end = () => {
      resuming = false;
      // Once more at once: a reply that was started over ends the stream that read it.
      if (times > 1) waiting = setTimeout(tryAgain, RETRY_MS * 2 ** times);
      onChange();
    };
    chat.resumeStream({ metadata: ONLOOKING }).then(end, end);
  }

  function tryAgain(): void {
    waiting = undefined;
    onChange();
  }

  function forget(): void {
    clearTimeout(waiting);
    waiting = undefined;
    tried = undefined;
  }
}

/** With a function, because what was rendered last may be older than what the chat has by now. */
function put<MESSAGE>(
  chat: { messages: MESSAGE[]; setMessages(make: (local: MESSAGE[]) => MESSAGE[]): void },
  make: (local: readonly MESSAGE[]) => MESSAGE[],
): void {
  const { messages } = chat;
  const made = make(messages);
  if (!isSame(made, messages)) chat.setMessages(make);
}

const isSame = (some: readonly unknown[], others: readonly unknown[]): boolean =>
  some.length === others.length && some.every((one, index) => one === others[index]);

const isUnknown = ({ cursor, status }: SessionView): boolean => cursor === null && status !== "deleted";

const writtenIn = ({ activeRuns }: SessionView) => new Set(activeRuns.map(({ messageId }) => messageId));

/** The messages of the session, and what was never accepted after the message that it followed. */
function merged<MESSAGE extends SyncedMessage>(
  local: readonly MESSAGE[],
  view: SessionView,
  accepted: ReadonlySet<string>,
  withWritten: boolean,
): MESSAGE[] {
  const written = writtenIn(view);
  const made = view.messages.filter(
    ({ id }) => withWritten || !written.has(id),
  ) as readonly unknown[] as MESSAGE[];
  const asked = new Set(view.decisions.map(({ messageId }) => messageId));
  for (const [index, { id }] of made.entries()) {
    const mine = asked.has(id) && local.find((message) => message.id === id);
    // What its user has just answered is on its way.
    if (mine && isAnswered(mine, view)) made[index] = mine;
  }
  for (const [message, before] of unsentAmong(local, view, accepted)) {
    const index = made.findIndex(({ id }) => id === before?.id);
    made.splice(index < 0 ? made.length : index + 1, 0, message);
  }
  return made;
}

/** Whether the chat says something of a call that the session still waits for. */
function isAnswered(message: SyncedMessage, { decisions }: SessionView): boolean {
  const parts = (message.parts ?? []) as { toolCallId?: unknown; state?: unknown }[];
  return parts.some(
    ({ toolCallId, state }) =>
      state !== "approval-requested" &&
      state !== "input-available" &&
      decisions.some((one) => one.messageId === message.id && one.toolCallId === toolCallId),
  );
}

/** User messages that the session never had, each with the one before it. Those before its first message are older. */
function* unsentAmong<MESSAGE extends SyncedMessage>(
  local: readonly MESSAGE[],
  { messages }: SessionView,
  accepted: ReadonlySet<string>,
): Iterable<[message: MESSAGE, before: MESSAGE | undefined]> {
  const known = new Set(messages.map(({ id }) => id));
  const first = local.findIndex(({ id }) => known.has(id));
  for (const [index, message] of local.entries()) {
    if (message.role !== "user" || known.has(message.id) || accepted.has(message.id)) continue;
    if (index > first) yield [message, local[index - 1]];
  }
}

/** The same, where a reply that the chat has let go of says what it came to say at last. */
function mended<MESSAGE extends SyncedMessage>(local: readonly MESSAGE[], view: SessionView): MESSAGE[] {
  const written = writtenIn(view);
  const ended = new Map(
    view.messages.flatMap((one) =>
      one.role === "assistant" && !written.has(one.id) ? [[one.id, one as unknown as MESSAGE]] : [],
    ),
  );
  // The last one may be what the stream is writing: it is right.
  return local.map((message, index) => (index < local.length - 1 && ended.get(message.id)) || message);
}

/**
 * A chat that is busy with a request of its own, and what has become of the rest meanwhile: what was deleted is gone, replies
 * that it does not write (`isWriting`: the last one) say what they say by now, and what follows that one is there.
 */
function followed<MESSAGE extends SyncedMessage>(
  local: readonly MESSAGE[],
  view: SessionView,
  accepted: ReadonlySet<string>,
  isWriting: boolean,
): MESSAGE[] {
  const messages = view.messages as readonly unknown[] as readonly MESSAGE[];
  const last = local.at(-1);
  const made = local.flatMap((message) => {
    if (message === last && (isWriting || isAnswered(message, view))) return message;
    return messages.find(({ id }) => id === message.id) ?? (accepted.has(message.id) ? [] : message);
  });
  const index = last?.role === "assistant" ? messages.findIndex(({ id }) => id === last.id) : -1;
  return index < 0 ? made : [...made, ...messages.slice(index + 1)];
}
