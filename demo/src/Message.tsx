import type { UIMessage } from "ai";
import { useState } from "react";
import type { SessionRun } from "strandline";
import { Colleagues } from "./Colleagues";
import { EditBox } from "./EditBox";
import { BinIcon, EditIcon, RetryIcon } from "./icons";
import { Part } from "./Part";
import { Reactions } from "./Reactions";
import type { OpenChat } from "./useOpenChat";
import { Versions } from "./Versions";

type Status = "sent" | "unsent" | "streaming" | Exclude<SessionRun["status"], "queued" | "running">;

const wordsOf = (message: UIMessage) =>
  message.parts.flatMap((part) => (part.type === "text" ? [part.text] : [])).join("\n");

const hasContent = (message: UIMessage) =>
  message.parts.some((part) =>
    part.type === "text" || part.type === "reasoning" ? part.text !== "" : part.type !== "step-start",
  );

function statusOf({ messages, ends, busy, unsent, session }: OpenChat, { id, role }: UIMessage): Status {
  if (role === "user") return id === unsent ? "unsent" : "sent";
  if (busy && id === messages.at(-1)?.id) return "streaming";
  const status = ends.get(id)?.status ?? "completed";
  if (status === "running" || status === "queued") return "completed";
  // What it asked for may have been superseded by a newer message.
  if (status === "suspended" && session.decisions.every(({ messageId }) => messageId !== id))
    return "completed";
  return status;
}

/** How a reply ended, when it did not end by itself. */
function ending(status: Status, error: string | null, isEmpty: boolean): string | null {
  if (status === "stopped") return isEmpty ? "Not answered" : "Stopped";
  if (status === "failed") return `Failed: ${error || "the agent raised an error"}`;
  if (status === "lost") return "Lost: the server stopped";
  if (status === "suspended") return "Waiting for a decision";
  if (status === "unsent") return "Not sent";
  return null;
}

export function Message({ chat, message }: { chat: OpenChat; message: UIMessage }) {
  const [editing, setEditing] = useState(false);
  const { id, role, parts } = message;
  const isUser = role === "user";
  const status = statusOf(chat, message);
  const streaming = status === "streaming";
  return (
    <li
      className={`message ${isUser ? "from-user" : "from-agent"}`}
      data-testid="message"
      data-role={role}
      data-message-id={id}
      data-status={status}
    >
      <span className="sr-only">{isUser ? "You" : "Agent"}</span>
      {editing ? (
        <EditBox
          text={wordsOf(message)}
          onCancel={() => setEditing(false)}
          onSave={(text) => {
            setEditing(false);
            chat.edit(id, text);
          }}
        />
      ) : (
        <div className={streaming ? "body streaming" : "body"} data-testid="message-text">
          {parts.map((part, index) => (
            <Part
              // biome-ignore lint/suspicious/noArrayIndexKey: parts only grow at the end and have no id of their own
              key={index}
              chat={chat}
              messageId={id}
              part={part}
              isUser={isUser}
              live={streaming && index === parts.length - 1}
            />
          ))}
          {!hasContent(message) &&
            (streaming ? (
              <span className="pulse" />
            ) : (
              status === "completed" && <p className="quiet">(no text)</p>
            ))}
        </div>
      )}
      <Colleagues chat={chat} messageId={id} />
      {!editing && !streaming && (
        <Foot chat={chat} message={message} status={status} onEdit={() => setEditing(true)} />
      )}
    </li>
  );
}

interface FootProps {
  chat: OpenChat;
  message: UIMessage;
  status: Status;
  onEdit(): void;
}

/** How it ended, and what can be done about it. */
function Foot({ chat, message, status, onEdit }: FootProps) {
  const { id, role } = message;
  const isUser = role === "user";
  const isLast = id === chat.messages.at(-1)?.id;
  const isEmpty = !hasContent(message);
  const chip = ending(status, chat.ends.get(id)?.error ?? null, isEmpty);
  const isBroken = status === "failed" || status === "lost";
  const bad = isBroken || status === "unsent";
  // What was queued has gone on after a reply that broke off, which can still be tried again.
  const canRetry = !chat.busy && (isUser ? isLast && bad : isLast || isBroken);
  return (
    <div className="message-foot">
      {chip !== null && (
        <span
          className={bad ? "chip chip-bad" : "chip"}
          data-status={status}
          {...(isBroken && isLast && !chat.busy ? { role: "alert", "data-testid": "error" } : {})}
        >
          {chip}
        </span>
      )}
      <div className="actions">
        <Versions chat={chat} messageId={id} />
        {!isUser && !(status === "stopped" && isEmpty) && <Reactions chat={chat} messageId={id} />}
        {isUser && status === "sent" && (
          <button
            type="button"
            className="text-button"
            data-testid="edit"
            onClick={onEdit}
            aria-label="Edit"
            title="Edit"
          >
            <EditIcon />
          </button>
        )}
        {status !== "unsent" && (
          <button
            type="button"
            className="text-button"
            data-testid="delete"
            onClick={() => chat.attempt(() => chat.session.delete(id))}
            aria-label="Delete"
            title="Delete, on every device and in the store"
          >
            <BinIcon />
          </button>
        )}
        {canRetry && (
          <button
            type="button"
            className="text-button"
            data-testid="regenerate"
            onClick={() => chat.retry(message)}
            aria-label={bad ? "Try again" : "Regenerate"}
            title={bad ? "Try again" : "Regenerate"}
          >
            <RetryIcon /> {bad ? "Try again" : <span className="only-wide">Regenerate</span>}
          </button>
        )}
      </div>
    </div>
  );
}
