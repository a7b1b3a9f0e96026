/** What the page asks the server beside what the session client asks, and how it tells of what went wrong. */
import type { UIMessage } from "ai";
import { type SessionDecision, StrandlineHttpError } from "strandline";
import { switchedFetch } from "./offline";

/** A message as the store has it (PROTOCOL §6.6). Undefined when it is not there, or not reachable. */
export async function loadMessage(chatId: string, messageId: string): Promise<UIMessage | undefined> {
  try {
    const response = await switchedFetch(`/api/chat/${encodeURIComponent(chatId)}/messages`);
    const { messages } = (await response.json()) as { messages: UIMessage[] };
    return messages.find(({ id }) => id === messageId);
  } catch {
    return undefined;
  }
}

export function errorText(error: unknown): string {
  if (error instanceof StrandlineHttpError && error.problem === "already-decided") {
    const { outcome, value } = error.document.decision as SessionDecision;
    const { reason } = value as { reason?: string };
    return `Somebody was quicker: it is ${outcome}${reason ? `, ${reason}` : ""}.`;
  }
  return (error instanceof Error && error.message) || "Something went wrong.";
}
