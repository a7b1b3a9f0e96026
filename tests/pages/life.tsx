/**
 * One chat as a phone shows it, by any of our connections: `/page?by=<one of them>&hidden=<ms>#<session>`. `hidden` is
 * how long this page has to be hidden to be hidden for long.
 */
import { ChatClient } from "@tanstack/ai-client";
import { useChat } from "ai-react7";
import { useLayoutEffect, useReducer, useState } from "react";
import { createRoot } from "react-dom/client";
import { createSessions } from "strandline";
import { strandlineTransport } from "strandline/ai-sdk";
import { sessionTransport } from "strandline/ai-sdk/sessions";
import { SessionsProvider, useSession, useSessionSync } from "strandline/react";
import { strandlineConnection } from "strandline/tanstack";
import type { Shown } from "./chat.js";

/** A chat over the feed of its session, one with a transport and nothing else, and one of TanStack AI. */
export type By = "session" | "transport" | "tanstack";

const query = new URLSearchParams(location.search);
const id = location.hash.slice(1);
const asking = { hiddenMs: Number(query.get("hidden")), retry: { maxDelayMs: 500 } };
globalThis.shown = [];

interface ScreenProps extends Omit<Shown, "version"> {
  connection: string;
  error: Error | undefined;
  send(text: string): unknown;
}

function Screen({ status, messages, connection, error, send }: ScreenProps) {
  const [draft, setDraft] = useState("");
  useLayoutEffect(() => {
    globalThis.shown.push({ status, version: 0, messages });
  });
  const isBusy = status === "submitted" || status === "streaming";
  return (
    <main>
      <p data-testid="connection">{connection}</p>
      <p data-testid="status">{status}</p>
      <p data-testid="error">{error?.message}</p>
      <ol>
        {messages.map((message) => (
          <li key={message.id} data-testid="message" data-role={message.role} data-id={message.id}>
            {message.text}
          </li>
        ))}
      </ol>
      <input data-testid="draft" value={draft} onChange={(event) => setDraft(event.target.value)} />
      <button type="button" data-testid="send" onClick={() => send(draft)}>
        Send
      </button>
      <button type="button" data-testid="stop" disabled={!isBusy}>
        Stop
      </button>
    </main>
  );
}

interface Said {
  id: string;
  role: string;
  parts: readonly { type: string; text?: string; content?: unknown }[];
}

const shownOf = (messages: readonly Said[]): Shown["messages"] =>
  messages.map(({ id, role, parts }) => ({
    id,
    role,
    text: parts.map((part) => (part.type === "text" ? (part.text ?? part.content) : "")).join(""),
  }));

/** Each loads what it needs first. */
const ways: Record<By, () => Promise<() => React.ReactNode>> = {
  async session() {
    const sessions = createSessions({ ai: AI_MAJOR, ...asking });
    const transport = sessionTransport({ sessions });
    const Chat = () => {
      const session = useSession(id);
      const chat = useSessionSync(useChat({ id, transport }), session);
      const { status, error } = chat;
      const send = (text: string) => chat.sendMessage({ text });
      const messages = shownOf(chat.messages);
      return <Screen connection={session.status} {...{ status, error, send, messages }} />;
    };
    return () => (
      <SessionsProvider sessions={sessions}>
        <Chat />
      </SessionsProvider>
    );
  },

  async transport() {
    let tell = (_: string) => {};
    const onStatus = (_: string, status: string) => tell(status);
    const transport = strandlineTransport({ ai: AI_MAJOR, onStatus, ...asking });
    const history = await (await fetch(`/api/chat/${id}/messages`)).json();
    return () => {
      const [connection, setConnection] = useState("");
      tell = setConnection;
      const chat = useChat({ id, transport, messages: history.messages, resume: true });
      const { status, error } = chat;
      const send = (text: string) => chat.sendMessage({ text });
      return <Screen {...{ connection, status, error, send }} messages={shownOf(chat.messages)} />;
    };
  },

  async tanstack() {
    let redraw = () => {};
    let connection = "";
    const changed = () => redraw();
    const onStatus = (status: string) => {
      connection = status;
      redraw();
    };
    const chat = new ChatClient({
      connection: strandlineConnection({ threadId: id, onStatus, ...asking }),
      threadId: id,
      persistence: true,
      onMessagesChange: changed,
      onStatusChange: changed,
      onSessionGeneratingChange: changed,
    });
    return () => {
      const [, tick] = useReducer((count: number) => count + 1, 0);
      useLayoutEffect(() => {
        redraw = tick;
        chat.subscribe();
        chat.attach();
      }, []);
      const own = chat.getStatus();
      const status = own === "ready" && chat.getSessionGenerating() ? "streaming" : own;
      const send = (text: string) => chat.sendMessage(text);
      const messages = shownOf(chat.getMessages());
      return <Screen {...{ connection, status, send, messages }} error={chat.getError()} />;
    };
  },
};

const root = document.getElementById("root");
if (root === null) throw new Error("The page has no #root.");
void ways[query.get("by") as By]().then((Chat) => createRoot(root).render(<Chat />));
