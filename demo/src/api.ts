/** What the page asks the server outside of a reply's stream (PROTOCOL §6.6, §8.1). */
import type { UIMessage } from "ai";
import { switchedFetch } from "./offline";

export type RunStatus = "queued" | "running" | "completed" | "suspended" | "stopped" | "failed" | "lost";

export interface SessionInfo {
  id: string;
  title: string | null;
  createdAt: number | string;
  updatedAt: number | string;
  activeRun: unknown;
}

/** How the run that wrote a message ended. */
export interface RunEnd {
  run: string;
  status: RunStatus;
  reason?: string | null;
  error?: string | null;
}

export interface History {
  messages: UIMessage[];
  activeRun: { id: string; messageId: string; status: RunStatus } | null;
  cursor: string | null;
  runs: Record<string, RunEnd>;
}

/** An answer that was a problem document (PROTOCOL §10). */
export class ProblemError extends Error {
  override readonly name = "ProblemError";
  constructor(
    readonly status: number,
    readonly code: string,
    detail: string,
  ) {
    super(detail);
  }
}

const decoded = (text: string): Record<string, unknown> => {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    return {};
  }
};

async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  const response = await switchedFetch(path, {
    headers: { Accept: "application/json" },
    signal: signal ?? null,
  });
  if (!response.ok) {
    const problem = decoded(await response.text());
    const detail = problem.detail ?? problem.title ?? `The server answered ${response.status}.`;
    throw new ProblemError(response.status, String(problem.code ?? "http"), String(detail));
  }
  return (await response.json()) as T;
}

export async function listSessions(signal?: AbortSignal): Promise<SessionInfo[]> {
  const answer = await get<{ sessions: SessionInfo[] }>("/api/sessions", signal);
  return answer.sessions;
}

export function loadHistory(chatId: string, signal?: AbortSignal): Promise<History> {
  return get<History>(`/api/chat/${encodeURIComponent(chatId)}/messages`, signal);
}

/** What to show for an error, also one whose message is the text of a problem document. */
export function errorText(error: unknown): string {
  if (!(error instanceof Error)) return "Something went wrong.";
  const problem = decoded(error.message);
  const text = problem.detail ?? problem.title ?? error.message;
  if (error instanceof TypeError && /fetch|network|load failed/i.test(error.message)) {
    return "The server cannot be reached.";
  }
  return String(text) || "Something went wrong.";
}
