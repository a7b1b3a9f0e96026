import type { UIMessage, UseChatReturn } from "@tanstack/ai-react";
import { type FormEvent, useState } from "react";

interface Props {
  chat: UseChatReturn;
  title: string;
  stop: () => Promise<unknown>;
}

export function Chat({ chat, title, stop }: Props) {
  const [text, setText] = useState("");
  // A reply that another device asked for is one as well.
  const writing = chat.isLoading || chat.sessionGenerating;

  const send = (event: FormEvent) => {
    event.preventDefault();
    if (text.trim() === "") return;
    void chat.sendMessage(text.trim());
    setText("");
  };

  return (
    <div className="page">
      <header>
        <b>Strandline with TanStack AI</b>
        <span data-testid="status">{`${title}, ${writing ? "writing" : "ready"}`}</span>
      </header>
      <main>
        <div className="messages" aria-live="polite">
          {chat.messages.map((message) => (
            <Message
              key={message.id}
              message={message}
              isWriting={writing && message === chat.messages.at(-1)}
            />
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
        {writing && (
          <button type="button" className="quiet" onClick={() => void stop()}>
            Stop
          </button>
        )}
        <button type="submit">Send</button>
      </form>
    </div>
  );
}

function Message({ message, isWriting }: { message: UIMessage; isWriting: boolean }) {
  return (
    <div className={`message ${message.role}${isWriting ? " writing" : ""}`}>
      {message.parts.map((part, index) => {
        const key = `${message.id}-${index}`;
        if (part.type === "text") return <span key={key}>{part.content}</span>;
        if (part.type === "thinking") return <em key={key}>{part.content}</em>;
        if (part.type === "tool-call") return <code key={key}>{`${part.name}(${part.arguments})`}</code>;
        return null;
      })}
    </div>
  );
}
