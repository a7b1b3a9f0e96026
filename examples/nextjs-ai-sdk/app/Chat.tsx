"use client";

import { useChat } from "@ai-sdk/react";
import type { UIMessage } from "ai";
import { type FormEvent, useState } from "react";
import { createSessions, type SessionRun } from "strandline";
import { sessionTransport } from "strandline/ai-sdk/sessions";
import { useSession, useSessionSync, useStop } from "strandline/react";

/** `server`: the origin of the Python server; "" is our own. */
export function Chat({ id, server }: { id: string; server: string }) {
  // One connection per tab carries the chat, what other devices do, and who is here.
  const [sessions] = useState(() => createSessions({ url: `${server}/api/sessions` }));
  const [transport] = useState(() => sessionTransport({ sessions, api: `${server}/api/chat` }));
  const session = useSession(id, { sessions });
  const chat = useSessionSync(useChat({ id, transport }), session);
  const { stop, stopping, canStop } = useStop(session);
  const [text, setText] = useState("");

  const send = (event: FormEvent) => {
    event.preventDefault();
    if (text.trim() === "") return;
    void chat.sendMessage({ text: text.trim() });
    setText("");
  };

  const runOf = new Map(session.runs.map((run) => [run.messageId, run]));
  const here = session.readers.filter(({ connected }) => connected).length;
  return (
    <div className="chat">
      <header>
        <b>Strandline with Next.js and the AI SDK</b>
        <span data-testid="status">{here > 1 ? `${here} devices, ${session.status}` : session.status}</span>
      </header>
      <main>
        <div className="messages" aria-live="polite">
          {chat.messages.map((message) => (
            <Message key={message.id} message={message} run={runOf.get(message.id)} />
          ))}
          {chat.error && <p className="error">{chat.error.message}</p>}
        </div>
      </main>
      <form onSubmit={send}>
        <input
          value={text}
          onChange={(event) => setText(event.target.value)}
          placeholder="Try: count to 200 every 50 ms"
          aria-label="Message"
        />
        {canStop && (
          <button type="button" className="quiet" disabled={stopping} onClick={() => void stop()}>
            Stop
          </button>
        )}
        <button type="submit">Send</button>
      </form>
    </div>
  );
}

function Message({ message, run }: { message: UIMessage; run: SessionRun | undefined }) {
  const isWriting = run?.status === "queued" || run?.status === "running";
  const note = isWriting || run?.status === "completed" ? undefined : run?.status; // stopped, failed, lost
  return (
    <div className={`message ${message.role}${isWriting ? " writing" : ""}`} data-note={note}>
      {message.parts.map((part, index) => {
        const key = `${message.id}-${index}`;
        if (part.type === "text") return <span key={key}>{part.text}</span>;
        if (part.type === "reasoning") return <em key={key}>{part.text}</em>;
        if (part.type.startsWith("tool-")) return <code key={key}>{part.type.slice("tool-".length)}</code>;
        return null;
      })}
    </div>
  );
}
