/**
 * One chat: `useChat` over the transport, plus what keeps it equal to the server's log.
 *
 * The rule is simple. While this tab streams a reply, the stream is right. Whenever it does not, and something
 * happened (a reply ended, another tab sent, the network came back), the history is fetched, put in place, and the
 * running reply, if there is one, is attached to.
 */
import { useChat } from "@ai-sdk/react";
import type { UIMessage } from "ai";
import { useCallback, useEffect, useMemo, useRef, useState } from "react";
import { errorText, type History, loadHistory, type RunEnd } from "./api";
import { difference, NOTHING_CHECKED, type Tally, textOf } from "./check";
import { type FeedEvent, isActive, messageIdOf } from "./events";
import { SessionFeed } from "./feed";
import { useStore } from "./store";
import { lineOf, transport } from "./transport";

const GRACE_MS = 250;

export interface Session {
  messages: UIMessage[];
  ends: Record<string, RunEnd>;
  /** Id of a user message that the server never got. */
  unsent: string | null;
  /** This tab receives a reply, or waits for its first word. */
  busy: boolean;
  /** A reply is running, here or elsewhere. */
  running: boolean;
  error: string | null;
  tally: Tally;
  feed: SessionFeed;
  send(text: string): void;
  edit(messageId: string, text: string): void;
  retry(): void;
  stop(): void;
  dismiss(): void;
}

/** `known`: the server lists this session, so there is a feed to follow. */
export function useSession(chatId: string, history: History, known: boolean, onChange: () => void): Session {
  const [ends, setEnds] = useState(history.runs);
  const [notice, setNotice] = useState<string | null>(null);
  const [unsent, setUnsent] = useState<string | null>(null);
  const [tally, setTally] = useState(NOTHING_CHECKED);
  const detached = useRef(false);
  const streamed = useRef<UIMessage | null>(null);
  const unsentRef = useRef<string | null>(null);
  const timer = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  /** Grows with every request of this tab and when the chat is closed: an answer from before it is out of date. */
  const turn = useRef(0);

  const chat = useChat({
    id: chatId,
    messages: history.messages,
    transport,
    resume: true,
    throttle: 40,
    onFinish({ message, isError, isDisconnect }) {
      if (!detached.current && !isDisconnect && message.parts.length > 0) streamed.current = message;
      if (isError) return;
      setNotice(null);
    },
  });
  const { status, setMessages, resumeStream, sendMessage, regenerate, stop: detach } = chat;
  const busy = status === "submitted" || status === "streaming";
  const busyNow = useRef(busy);
  busyNow.current = busy;

  /** Make this tab equal to the server, and follow what is running there. */
  const reconcile = useCallback(async () => {
    if (busyNow.current) return;
    const asked = turn.current;
    let now: History;
    try {
      now = await loadHistory(chatId);
    } catch {
      return; // unreachable: the next event, `online` or the next look at the page tries again
    }
    if (busyNow.current || asked !== turn.current) return;
    const check = streamed.current;
    streamed.current = null;
    const stored = check && now.messages.find((message) => message.id === check.id);
    if (check && stored) setTally((sum) => difference(sum, textOf(check), textOf(stored)));
    setEnds(now.runs);
    setMessages((local) => {
      const last = local.at(-1);
      const missing = last?.role === "user" && !now.messages.some((message) => message.id === last.id);
      const keep = missing && last.id === unsentRef.current;
      if (!keep) unsentRef.current = null;
      return keep ? [...now.messages, last] : now.messages;
    });
    setUnsent(unsentRef.current);
    if (now.activeRun !== null) await resumeStream();
  }, [chatId, resumeStream, setMessages]);

  const soon = useCallback(() => {
    clearTimeout(timer.current);
    timer.current = setTimeout(() => void reconcile(), GRACE_MS);
  }, [reconcile]);

  /** A reply that this tab let go of was completed by the server: take over its last words. */
  const repair = useCallback(
    async (messageId: string) => {
      const now = await loadHistory(chatId).catch(() => null);
      const stored = now?.messages.find((message) => message.id === messageId);
      if (stored)
        setMessages((local) => local.map((message) => (message.id === messageId ? stored : message)));
    },
    [chatId, setMessages],
  );

  const hear = useRef<(event: FeedEvent) => void>(() => {});
  hear.current = (event) => {
    if (event.type === "run-ended") {
      const messageId = messageIdOf(event);
      const { status: how, reason, error } = event as unknown as RunEnd;
      setEnds((known) => ({ ...known, [messageId]: { run: event.run ?? "", status: how, reason, error } }));
      if (busyNow.current && chat.messages.at(-1)?.id !== messageId) void repair(messageId);
    }
    if (event.type === "appended") return;
    onChange();
    soon();
  };

  const feed = useMemo(
    () =>
      new SessionFeed(
        chatId,
        (event) => hear.current(event),
        () => soon(),
      ),
    [chatId, soon],
  );
  useEffect(() => {
    feed.start();
    return () => feed.stop();
  }, [feed]);
  useEffect(() => {
    if (known || history.messages.length > 0 || history.activeRun !== null) feed.open();
  }, [feed, history, known]);
  const line = useStore(lineOf(chatId));
  useEffect(() => {
    if (line.connection === "live") feed.open();
  }, [line.connection, feed]);

  // After every reply, and whenever the network or the page comes back.
  const wasBusy = useRef(false);
  useEffect(() => {
    if (wasBusy.current && !busy) {
      if (status === "error")
        unsentRef.current = chat.messages.findLast((message) => message.role === "user")?.id ?? null;
      soon();
      onChange();
    }
    if (busy) detached.current = false;
    wasBusy.current = busy;
  }, [busy, status, soon, onChange, chat.messages]);
  useEffect(() => {
    const look = () => {
      if (!document.hidden) soon();
    };
    window.addEventListener("online", soon);
    document.addEventListener("visibilitychange", look);
    return () => {
      turn.current++;
      clearTimeout(timer.current);
      window.removeEventListener("online", soon);
      document.removeEventListener("visibilitychange", look);
    };
  }, [soon]);

  /** A new request: let go of the reply in progress first. The server's policy decides what becomes of it. */
  const request = async (make: () => Promise<void>) => {
    turn.current++;
    setNotice(null);
    detached.current = busyNow.current;
    await detach(); // also of an attempt to resume that has not been answered yet
    streamed.current = null;
    await make().catch((error: unknown) => setNotice(errorText(error)));
  };

  const runs = useStore(feed.state).runs;
  const last = chat.messages.at(-1);
  // A run that failed is told at its message; what is left is the trouble of the requests themselves.
  const told = last !== undefined && (ends[last.id]?.status === "failed" || ends[last.id]?.status === "lost");
  return {
    messages: chat.messages,
    ends,
    unsent,
    busy,
    running: busy || runs.some(isActive),
    error: notice ?? (chat.error && !told ? errorText(chat.error) : null),
    tally,
    feed,
    send: (text) => void request(() => sendMessage({ text })),
    edit: (messageId, text) => void request(() => sendMessage({ text, messageId })),
    retry() {
      if (last?.role === "user" && last.id === unsent) {
        setMessages((local) => local.slice(0, -1));
        void request(() => sendMessage(last));
      } else {
        void request(() => regenerate(last?.role === "assistant" ? { messageId: last.id } : {}));
      }
    },
    stop() {
      setNotice(null);
      Promise.resolve(transport.stop(chatId)).then(soon, (error: unknown) => setNotice(errorText(error)));
    },
    dismiss() {
      setNotice(null);
      chat.clearError();
    },
  };
}
