"use client";
/**
 * Sessions in React 18 and 19. A component that shows a session is connected to it for as long as it is mounted.
 *
 * Nothing here touches the network while it renders, so all of it may be rendered on a server, where a session is empty.
 */
import {
  createContext,
  createElement,
  type ReactElement,
  type ReactNode,
  useCallback,
  useContext,
  useEffect,
  useMemo,
  useReducer,
  useState,
  useSyncExternalStore,
} from "react";
import { runsShown } from "./content.js";
import type { StrandlineError } from "./errors.js";
import { createSync, type SyncedChat, type SyncedMessage } from "./react-sync.js";
import type { Session, SessionView, StopManyOptions, StopOptions, StopResult } from "./session.js";
import type { Sessions } from "./sessions.js";

export type { SyncedChat, SyncedMessage } from "./react-sync.js";

const Context = createContext<Sessions | undefined>(undefined);

/** Gives `sessions` to every `useSession` below it. */
export function SessionsProvider(props: { sessions: Sessions; children?: ReactNode }): ReactElement {
  return createElement(Context.Provider, { value: props.sessions }, props.children);
}

/** What of a session can be done with its handle. */
const ACTS = [
  "send",
  "steer",
  "stop",
  "decide",
  "loadOlder",
  "selectBranch",
  "edit",
  "delete",
  "annotate",
  "unannotate",
  "loadAnnotations",
] as const satisfies (keyof Session)[];

/** A session as it is now, and what can be done to it. */
export interface SessionHandle extends SessionView, Pick<Session, (typeof ACTS)[number]> {
  /** The object behind it: the same one for as long as the component shows this session. */
  readonly session: Session;
}

/** What a server renders, and a page before its first look. */
const BLANK: Omit<SessionView, "id"> = {
  status: "idle",
  info: null,
  messages: [],
  runs: [],
  activeRuns: [],
  spawned: [],
  notes: [],
  readers: [],
  branches: {},
  authors: {},
  decisions: [],
  annotations: {},
  reader: null,
  hasOlder: false,
  error: null,
  cursor: null,
};

/**
 * Follows a session. The result is a new object whenever something has changed in it.
 *
 * `sessions` are made once, outside of components; without them, those of the `SessionsProvider` are taken.
 */
export function useSession(id: string, options: { sessions?: Sessions } = {}): SessionHandle {
  const provided = useContext(Context);
  const sessions = options.sessions ?? provided;
  if (sessions === undefined) throw new Error("useSession needs `sessions`, or a SessionsProvider above it.");
  const session = useMemo(() => sessions.open(id), [sessions, id]);
  const blank = useMemo(() => ({ ...BLANK, id }), [id]);
  const view = useSyncExternalStore(session.subscribe, session.getSnapshot, () => blank);
  return useMemo(() => {
    const acts = Object.fromEntries(ACTS.map((name) => [name, session[name]]));
    return { ...view, session, ...acts } as SessionHandle;
  }, [session, view]);
}

/** What a stop button needs. */
export interface StopHandle {
  /** Ends the running reply, whoever asked for it. Resolves when the end is in the log. */
  stop(options?: StopOptions): Promise<StopResult>;
  /** Ends those of one agent, or all, and resolves with every one that it ended. */
  stop(options: StopManyOptions): Promise<StopResult[]>;
  /** A stop of this component is on its way. */
  readonly stopping: boolean;
  /** A reply is running on any device, or a message of this one is on its way. */
  readonly canStop: boolean;
}

export function useStop({ session, activeRuns, messages }: SessionHandle): StopHandle {
  const [count, add] = useReducer((now: number, more: number) => now + more, 0);
  const stop = useCallback(
    async (options?: StopOptions) => {
      add(1);
      try {
        return await session.stop(options);
      } finally {
        add(-1);
      }
    },
    [session],
  ) as Session["stop"];
  const canStop = activeRuns.length > 0 || messages.some(({ pending }) => pending);
  return { stop, stopping: count > 0, canStop };
}

/** What `useSessionSync` changes about a chat. */
export interface ChatSync<MESSAGE> {
  /** Those of the session, from the moment that it has them, and `unsent` ones. */
  readonly messages: MESSAGE[];
  /** That of the session: it ends the run, on every device. (That of `useChat` only lets go of the stream.) */
  stop(): Promise<void>;
  /** User messages that the server has not accepted, while nothing is being sent. */
  readonly unsent: readonly MESSAGE[];
}

/** More of a chat: its requests, whose arguments are passed on. */
interface Requests {
  readonly error?: Error | undefined;
  sendMessage(...args: never[]): Promise<void>;
  regenerate(...args: never[]): Promise<void>;
}

/**
 * Keeps a chat of `useChat` (ai 5, 6 and 7), whose transport is a `sessionTransport({ sessions })`, equal to its session:
 * what other devices send, edit, regenerate, delete and stop shows, and their replies stream.
 *
 * ```tsx
 * const session = useSession(id, { sessions });
 * const chat = useSessionSync(useChat({ id, transport }), session);
 * ```
 *
 * The result is the chat, to be used in its place. Its `sendMessage` and `regenerate` let go of the reply that is being
 * read first; the server decides what becomes of that one. A message that was not accepted can be sent again as it is.
 * `resume` of `useChat` is not needed.
 */
export function useSessionSync<CHAT extends Requests, MESSAGE extends SyncedMessage>(
  chat: CHAT & SyncedChat<MESSAGE>,
  view: SessionHandle,
): CHAT & ChatSync<MESSAGE> {
  const { session } = view;
  if (chat.id !== session.id)
    throw new Error(`useSessionSync: the chat is "${chat.id}", but the session is "${session.id}".`);
  const [, render] = useReducer((now: number) => now + 1, 0);
  const [sync, setSync] = useState(() => ({ session, ...createSync<MESSAGE>(render) }));
  if (sync.session !== session) setSync({ session, ...createSync<MESSAGE>(render) });
  // After every render: it looks itself at what has changed.
  useEffect(() => sync.update(chat, view));
  useEffect(() => sync.detach, [sync]);

  const { sendMessage, regenerate } = chat;
  const requests = useMemo(
    () => ({
      sendMessage: (...args: never[]) =>
        sync.request((now) => {
          const id = (args[0] as SyncedMessage | undefined)?.id;
          if (id !== undefined) now.setMessages((local) => local.filter((message) => message.id !== id));
          return sendMessage(...args);
        }),
      regenerate: (...args: never[]) => sync.request(() => regenerate(...args)),
      stop: async () => void (await session.stop()),
    }),
    [sync, session, sendMessage, regenerate],
  );
  const shown = { messages: sync.shown(chat, view), unsent: sync.unsent(chat, view) };
  // What must be read anew is: that is no error to show.
  const isResync = (chat.error as Partial<StrandlineError> | undefined)?.code === "resync";
  const status = runsShown(view).length > 0 ? "streaming" : "ready";
  return { ...chat, ...requests, ...shown, ...(isResync && { error: undefined, status }) };
}
