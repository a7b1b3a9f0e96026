import type { UIMessage } from "ai";
import { memo, useState } from "react";
import type { SessionRun } from "strandline";
import { EditBox } from "./EditBox";
import { EditIcon, RetryIcon } from "./icons";
import { Part } from "./Part";

export type MessageStatus =
  | "sent"
  | "unsent"
  | "streaming"
  | Exclude<SessionRun["status"], "queued" | "running">;

interface Props {
  message: UIMessage;
  status: MessageStatus;
  error: string | null;
  /** This is the last message and nothing is running. */
  canRetry: boolean;
  onRetry(): void;
  onEdit(messageId: string, text: string): void;
}

const textOf = (message: UIMessage) =>
  message.parts.flatMap((part) => (part.type === "text" ? [part.text] : [])).join("\n");

const hasContent = (message: UIMessage) =>
  message.parts.some((part) =>
    part.type === "text" || part.type === "reasoning" ? part.text !== "" : part.type !== "step-start",
  );

/** How a reply ended, when it did not end by itself. */
function ending(status: MessageStatus, error: string | null): string | null {
  if (status === "stopped") return "Stopped";
  if (status === "failed") return `Failed: ${error || "the agent raised an error"}`;
  if (status === "lost") return "Lost: the server stopped";
  if (status === "suspended") return "Waiting for a decision";
  if (status === "unsent") return "Not sent";
  return null;
}

function View({ message, status, error, canRetry, onRetry, onEdit }: Props) {
  const [editing, setEditing] = useState(false);
  const isUser = message.role === "user";
  const streaming = status === "streaming";
  const chip = ending(status, error);
  const bad = status === "failed" || status === "lost" || status === "unsent";
  const offerRetry = canRetry && (!isUser || status === "unsent");

  return (
    <li
      className={`message ${isUser ? "from-user" : "from-agent"}`}
      data-testid="message"
      data-role={message.role}
      data-message-id={message.id}
      data-status={status}
    >
      <span className="sr-only">{isUser ? "You" : "Agent"}</span>
      {editing ? (
        <EditBox
          text={textOf(message)}
          onCancel={() => setEditing(false)}
          onSave={(text) => {
            setEditing(false);
            onEdit(message.id, text);
          }}
        />
      ) : (
        <div className={streaming ? "body streaming" : "body"} data-testid="message-text">
          {message.parts.map((part, index) => (
            <Part
              // biome-ignore lint/suspicious/noArrayIndexKey: parts only grow at the end and have no id of their own
              key={index}
              part={part}
              isUser={isUser}
              live={streaming && index === message.parts.length - 1}
            />
          ))}
          {!hasContent(message) &&
            (streaming ? <span className="pulse" /> : <p className="quiet">(no text)</p>)}
        </div>
      )}
      {!editing && !streaming && (
        <div className="message-foot">
          {chip !== null && (
            <span
              className={bad ? "chip chip-bad" : "chip"}
              data-status={status}
              {...(bad && canRetry && status !== "unsent" ? { role: "alert", "data-testid": "error" } : {})}
            >
              {chip}
            </span>
          )}
          {isUser && status === "sent" && (
            <button type="button" className="text-button" data-testid="edit" onClick={() => setEditing(true)}>
              <EditIcon />
              <span className="sr-only">Edit</span>
            </button>
          )}
          {offerRetry && (
            <button type="button" className="text-button" data-testid="regenerate" onClick={onRetry}>
              <RetryIcon /> {bad ? "Try again" : "Regenerate"}
            </button>
          )}
        </div>
      )}
    </li>
  );
}

export const Message = memo(
  View,
  (before, after) =>
    before.message === after.message &&
    before.status === after.status &&
    before.error === after.error &&
    before.canRetry === after.canRetry,
);
