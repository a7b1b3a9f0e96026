/** What was said while a reply is being written and has not had its turn: told to the agent, or in the queue. */
import type { MessagePart, SessionMessage } from "strandline";
import type { SessionHandle } from "strandline/react";

export interface Waiting {
  id: string;
  text: string;
  /** `told`: the agent has not taken it yet. `sending`: the server does not have it yet. */
  state: "told" | "queued" | "sending";
  /** Id of the reply that it waits for, while it is queued. */
  reply?: string;
}

const textOf = (parts: readonly MessagePart[]) => parts.map(({ text = "" }) => text).join("\n");

/** `shown`: ids of the messages that the chat has. */
export function waitingIn(
  { messages, notes, activeRuns, decisions }: SessionHandle,
  shown: ReadonlySet<string>,
): Waiting[] {
  const told = notes.map(({ id, parts }) => ({ id, text: textOf(parts), state: "told" as const }));
  const queued = activeRuns.flatMap(({ status, messageId }, place) => {
    // The first one does not wait: it is just about to start.
    const isWaiting = status === "queued" && (place > 0 || decisions.length > 0);
    const question = messages[messages.findIndex(({ id }) => id === messageId) - 1];
    if (!isWaiting || question?.role !== "user") return [];
    return [{ id: question.id, text: textOf(question.parts), state: "queued" as const, reply: messageId }];
  });
  const isSending = ({ id, pending }: SessionMessage) => pending && !shown.has(id);
  const sending = messages
    .filter(isSending)
    .map(({ id, parts }) => ({ id, text: textOf(parts), state: "sending" as const }));
  return [...told, ...queued, ...sending];
}
