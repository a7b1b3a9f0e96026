/** One chat: `useChat` over the session's transport, kept equal to the session, and what the page tells about it. */
import { useChat } from "@ai-sdk/react";
import type { UIMessage } from "ai";
import { useEffect, useRef, useState } from "react";
import { type SessionRun, StrandlineResyncError, type SubmitPolicy } from "strandline";
import { type SessionHandle, useSession, useSessionSync, useStop } from "strandline/react";
import { errorText, loadMessage } from "./api";
import { difference, NOTHING_CHECKED, type Tally, textOf } from "./check";
import { type Row, useLog } from "./log";
import { countReload, sessions, transport } from "./transport";
import { type Waiting, waitingIn } from "./waiting";

/** What becomes of a message that is sent while a reply is being written. */
export type How = Extract<SubmitPolicy, "interrupt" | "steer" | "queue">;

export interface OpenChat {
  session: SessionHandle;
  rows: Row[];
  /** Without those that wait. */
  messages: UIMessage[];
  waiting: Waiting[];
  /** The newest run of each reply, by message id. */
  ends: ReadonlyMap<string, SessionRun>;
  /** Id of a user message that the server never got. */
  unsent: string | null;
  /** This tab receives a reply, or waits for its first word. */
  busy: boolean;
  /** A reply is running, here or elsewhere. */
  running: boolean;
  error: string | null;
  /** The error is that of the last message, so sending it again may help. */
  canRetry: boolean;
  tally: Tally;
  send(text: string, how: How): void;
  edit(messageId: string, text: string): void;
  /** Sends a message anew, or asks for another reply in place of this one. */
  retry(message: UIMessage): void;
  stop(): void;
  /** Does something to the session, and tells what goes wrong. */
  attempt(act: () => Promise<unknown>): void;
  dismiss(): void;
}

/** `known`: the server lists this session. `onChange`: something happened that the list shows. */
export function useOpenChat(chatId: string, known: boolean, onChange: () => void): OpenChat {
  const [notice, setNotice] = useState<string | null>(null);
  const [tally, setTally] = useState(NOTHING_CHECKED);
  /** Id of the message that the chat's error came with. Not always the last one: what was queued goes on after it. */
  const [broken, setBroken] = useState<string | null>(null);
  /** The reply that ends next was let go of by this tab, so it is not whole. */
  const isLetGo = useRef(false);
  const session = useSession(chatId, { sessions });
  const rows = useLog(session.session);
  const chat = useSessionSync(
    useChat({
      id: chatId,
      transport,
      throttle: 40,
      onFinish({ message, isError }) {
        const isWhole = !isLetGo.current && !isError;
        isLetGo.current = false;
        setBroken(isError ? message.id : null);
        if (!isWhole) return;
        void loadMessage(chatId, message.id).then((stored) => {
          if (stored) setTally((sum) => difference(sum, textOf(message), textOf(stored)));
        });
      },
    }),
    session,
  );
  const { stop, canStop } = useStop(session);

  useEffect(() => {
    if (known && session.status === "absent") session.session.poke();
  }, [known, session.status, session.session]);

  const changedAt = session.info?.updatedAt;
  const active = session.activeRuns.length;
  // biome-ignore lint/correctness/useExhaustiveDependencies: these are what the list shows
  useEffect(() => {
    onChange();
  }, [onChange, changedAt, active]);

  const busy = chat.status === "submitted" || chat.status === "streaming";
  // A page that is loaded in the middle of a reply picks it up where it is.
  const isLoading = useRef(true);
  useEffect(() => {
    if (isLoading.current && session.cursor !== null && active > 0 && !busy) countReload(chatId);
    isLoading.current &&= session.cursor === null && !busy;
  }, [chatId, session.cursor, active, busy]);

  const attempt = (act: () => Promise<unknown>) => {
    setNotice(null);
    act().catch((error: unknown) => setNotice(errorText(error)));
  };
  const request = (make: () => Promise<void>) => {
    isLetGo.current = busy;
    attempt(make);
  };

  const ends = new Map(session.runs.map((run) => [run.messageId, run]));
  const waiting = waitingIn(session, new Set(chat.messages.map(({ id }) => id)));
  const aside = new Set(waiting.flatMap(({ id, reply }) => [id, reply]));
  const messages = chat.messages.filter(({ id }) => !aside.has(id));
  const last = messages.at(-1);
  const unsent = chat.unsent.at(-1)?.id ?? null;
  // A run that failed is told at its message, and one that has to be read anew is; what is left is the trouble of requests.
  const told =
    chat.error instanceof StrandlineResyncError ||
    [last?.id, broken].some((id) => ["failed", "lost"].includes(ends.get(id ?? "")?.status ?? ""));
  const running = busy || canStop;
  return {
    session,
    rows,
    messages,
    waiting,
    ends,
    unsent,
    busy,
    running,
    error: notice ?? (chat.error && !told ? errorText(chat.error) : null),
    canRetry: notice === null && last !== undefined && unsent === null,
    tally,
    send(text, how) {
      if (!running || how === "interrupt") request(() => chat.sendMessage({ text }));
      // The chat goes on reading the reply: what waits behind it, or is told to its agent, is the session's.
      else attempt(() => session.send(text, { submit: how }));
    },
    edit: (messageId, text) => request(() => chat.sendMessage({ text, messageId })),
    retry(message) {
      if (message.id === unsent) request(() => chat.sendMessage(message));
      else request(() => chat.regenerate({ messageId: message.id }));
    },
    stop: () => attempt(stop),
    attempt,
    dismiss() {
      setNotice(null);
      chat.clearError();
    },
  };
}
