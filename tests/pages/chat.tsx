/** A chat on `strandline/react`, as small as it can be. It remembers everything that was ever on the screen. */
import { useChat } from "ai-react7";
import { lastAssistantMessageIsCompleteWithToolCalls } from "ai7";
import { StrictMode, useLayoutEffect, useRef, useState } from "react";
import { createRoot } from "react-dom/client";
import { createSessions } from "strandline";
import { sessionTransport } from "strandline/ai-sdk/sessions";
import { SessionsProvider, useSession, useSessionSync, useStop } from "strandline/react";

/** What one render had on the screen, as a test reads it. */
export interface Shown {
  status: string;
  /** Grows whenever `useChat` has other messages, be they the same. */
  version: number;
  messages: { id: string; role: string; text: string }[];
}

declare global {
  var shown: Shown[];
  /** Of the page that is bundled: the major version of `ai`. */
  var AI_MAJOR: 5 | 6 | 7;
}
globalThis.shown = [];

const sessions = createSessions({ url: "/api/sessions", ai: AI_MAJOR, retry: { maxDelayMs: 500 } });
const transport = sessionTransport({ sessions });

const textOf = ({ parts }: { parts: readonly { type: string; text?: unknown }[] }) =>
  parts.map((part) => (part.type === "text" ? part.text : "")).join("");

function Chat({ id }: { id: string }) {
  const session = useSession(id);
  const [ran, setRan] = useState(0);
  const own = useChat({
    id,
    transport,
    sendAutomaticallyWhen: lastAssistantMessageIsCompleteWithToolCalls,
    onToolCall({ toolCall: { toolName: tool, toolCallId } }) {
      if (tool !== "locate") return;
      setRan((times) => times + 1);
      void own.addToolOutput({ tool, toolCallId, output: "here" });
    },
  });
  const chat = useSessionSync(own, session);
  const { stop, stopping, canStop } = useStop(session);
  const [draft, setDraft] = useState("");
  const version = useRef({ number: 0, of: chat.messages });
  const messages = chat.messages.map((message) => ({
    id: message.id,
    role: message.role,
    text: textOf(message),
  }));
  useLayoutEffect(() => {
    if (version.current.of !== chat.messages)
      version.current = { number: version.current.number + 1, of: chat.messages };
    globalThis.shown.push({ status: chat.status, version: version.current.number, messages });
  });
  const take = () => {
    setDraft("");
    return draft;
  };
  const last = messages.at(-1);
  const tools = chat.messages.flatMap(({ parts }) =>
    parts.flatMap((part) =>
      part.type.startsWith("tool-") && "state" in part ? [`${part.type.slice(5)}:${part.state}`] : [],
    ),
  );
  const acts: Record<string, () => Promise<unknown> | undefined> = {
    approve: () => session.decisions[0] && session.decide(session.decisions[0].id, { approved: true }),
    first: () => messages[0] && session.selectBranch(messages[0].id, 0),
    correct: () => messages[0] && session.edit(messages[0].id, [{ type: "text", text: take() }]),
    delete: () => messages[0] && session.delete(messages[0].id),
    deleteLast: () => last && session.delete(last.id),
    steer: () => session.steer(take()),
    queue: () => session.send(take(), { submit: "queue" }),
  };
  return (
    <main>
      <p data-testid="connection">{session.status}</p>
      <p data-testid="status">{chat.status}</p>
      <p data-testid="readers">{session.readers.filter(({ connected }) => connected).length}</p>
      <p data-testid="runs">{session.runs.map(({ status }) => status).join(" ")}</p>
      <p data-testid="unsent">{chat.unsent.map((message) => message.id).join(" ")}</p>
      <p data-testid="ran">{ran}</p>
      <p data-testid="tools">{tools.join(" ")}</p>
      <p data-testid="spawned">
        {session.spawned.map(({ agent, message }) => `${agent}: ${textOf(message)}`)}
      </p>
      <p data-testid="error">{chat.error?.message}</p>
      <ol>
        {messages.map(({ id, role, text }) => (
          <li key={id} data-testid="message" data-role={role} data-id={id}>
            {text}
          </li>
        ))}
      </ol>
      <input data-testid="draft" value={draft} onChange={(event) => setDraft(event.target.value)} />
      <button type="button" data-testid="send" onClick={() => void chat.sendMessage({ text: take() })}>
        Send
      </button>
      <button
        type="button"
        data-testid="edit"
        onClick={() => {
          const messageId = messages.findLast(({ role }) => role === "user")?.id;
          if (messageId !== undefined) void chat.sendMessage({ text: take(), messageId });
        }}
      >
        Edit the last question
      </button>
      <button
        type="button"
        data-testid="regenerate"
        onClick={() => {
          if (last !== undefined) void chat.regenerate({ messageId: last.id });
        }}
      >
        Again
      </button>
      <button
        type="button"
        data-testid="resend"
        disabled={chat.unsent.length === 0}
        onClick={() => void chat.sendMessage(chat.unsent.at(-1))}
      >
        Send again
      </button>
      <button type="button" data-testid="stop" disabled={!canStop} onClick={() => void stop()}>
        {stopping ? "Stopping" : "Stop"}
      </button>
      {Object.entries(acts).map(([name, act]) => (
        <button key={name} type="button" data-testid={name} onClick={() => void act()}>
          {name}
        </button>
      ))}
      <button
        type="button"
        data-testid="older"
        disabled={!session.hasOlder}
        onClick={() => void session.loadOlder()}
      >
        Older
      </button>
    </main>
  );
}

function Page() {
  const [id, setId] = useState(() => location.hash.slice(1));
  const [isOpen, setOpen] = useState(true);
  useLayoutEffect(() => {
    const onHash = () => setId(location.hash.slice(1));
    addEventListener("hashchange", onHash);
    return () => removeEventListener("hashchange", onHash);
  }, []);
  return (
    <SessionsProvider sessions={sessions}>
      <button type="button" data-testid="toggle" onClick={() => setOpen(!isOpen)}>
        {isOpen ? "Close" : "Open"}
      </button>
      {isOpen && <Chat id={id} />}
    </SessionsProvider>
  );
}

const root = document.getElementById("root");
if (root === null) throw new Error("The page has no #root.");
createRoot(root).render(
  <StrictMode>
    <Page />
  </StrictMode>,
);
