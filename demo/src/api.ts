/** What the page asks the server beside what the session client asks. */
import type { UIMessage } from "ai";
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

export const errorText = (error: unknown): string =>
  (error instanceof Error && error.message) || "Something went wrong.";
