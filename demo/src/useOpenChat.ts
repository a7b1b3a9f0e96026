/** One chat: `useChat` over the session's transport, kept equal to the session, and what the page tells about it. */
import { useChat } from "@ai-sdk/react";
import type { UIMessage } from "ai";
import { useEffect, useRef, useState } from "react";
import type { SessionRun } from "strandline";
import { type SessionHandle, useSession, useSessionSync, useStop } from "strandline/react";
import { errorText, loadMessage } from "./api";
import { difference, NOTHING_CHECKED, type Tally, textOf } from "./check";
import { type Row, useLog } from "./log";
import { countResume, sessions, transport } from "./transport";

export interface OpenChat {
  session: SessionHandle;
  rows: Row[];
  messages: UIMessage[];
  /** The newest run of each reply, by message id. */
  ends: ReadonlyMap<string, SessionRun>;
  /** Id of a user message that the server never got. */
  unsent: string | null;
  /** This tab receives a reply, or waits for its first word. */
  busy: boolean;
  /** A reply is running, here or elsewhere. */
  running: boolean;
  error: string | null;
  tally: Tally;
  send(text: string): void;
  edit(messageId: string, text: string): void;
  retry(): void;
  stop(): void;
  dismiss(): void;
}

/** `known`: the server lists this session. `onChange`: something happened that the list shows. */
export function useOpenChat(chatId: string, known: boolean, onChange: () => void): OpenChat {
  const [notice, setNotice] = useState<string | null>(null);
  const [tally, setTally] = useState(NOTHING_CHECKED);
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
    if (isLoading.current && session.cursor !== null && active > 0 && !busy)
      countResume(chatId, "replayed", null);
    isLoading.current &&= session.cursor === null && !busy;
  }, [chatId, session.cursor, active, busy]);

  const request = (make: () => Promise<void>) => {
    setNotice(null);
    isLetGo.current = busy;
    make().catch((error: unknown) => setNotice(errorText(error)));
  };

  const ends = new Map(session.runs.map((run) => [run.messageId, run]));
  const last = chat.messages.at(-1);
  const unsent = chat.unsent.at(-1)?.id ?? null;
  // A run that failed is told at its message; what is left is the trouble of the requests themselves.
  const told = last !== undefined && ["failed", "lost"].includes(ends.get(last.id)?.status ?? "");
  return {
    session,
    rows,
    messages: chat.messages,
    ends,
    unsent,
    busy,
    running: busy || canStop,
    error: notice ?? (chat.error && !told ? errorText(chat.error) : null),
    tally,
    send: (text) => request(() => chat.sendMessage({ text })),
    edit: (messageId, text) => request(() => chat.sendMessage({ text, messageId })),
    retry() {
      if (last === undefined) return;
      if (last.id === unsent) request(() => chat.sendMessage(last));
      else request(() => chat.regenerate({ messageId: last.id }));
    },
    stop() {
      setNotice(null);
      stop().catch((error: unknown) => setNotice(errorText(error)));
    },
    dismiss() {
      setNotice(null);
      chat.clearError();
    },
  };
}
