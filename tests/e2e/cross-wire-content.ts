/** What a conversation says, whatever wire it was read from. */
import type { Message as AgUiMessage } from "@ag-ui/client";
import type { UIMessage } from "@tanstack/ai-client";
import type { Chunk } from "./cross-wire-script.js";
import type { Message } from "./server.js";

type Fields = Record<string, unknown>;

export interface Tool {
  name: string;
  input: unknown;
  /** `{output}`, or `{error}` with its text. */
  outcome: Fields;
}

export interface Said {
  id: string;
  role: string;
  text: string;
  /** Of every part that has any, in the order of their beginnings. */
  reasoning: string[];
  tools: Tool[];
  /** Sources, files and data parts. */
  others: Fields[];
  metadata: Fields;
}

const plain = <T>(value: T): T => JSON.parse(JSON.stringify(value)) as T;
const DENIED = "The tool call was denied.";
/** Chunks that only ai@7 has parts for. */
const ONLY_7 = ["custom", "reasoning-file"];

// ---------------------------------------------------------------------- the AI SDK

export const ofAiSdk = (messages: readonly Message[]): Said[] =>
  plain(messages).map(({ id, role, parts, metadata }) => ({
    id,
    role,
    text: parts.map((part) => (part.type === "text" ? part.text : "")).join(""),
    reasoning: parts.flatMap(({ type, text }) => (type === "reasoning" && text ? [text] : [])),
    tools: parts.filter(({ toolCallId }) => toolCallId !== undefined).map(aiSdkTool),
    others: parts.filter(isOther),
    metadata: (metadata ?? {}) as Fields,
  }));

function aiSdkTool(part: Fields): Tool {
  const { type, toolName, input, rawInput, state, output, errorText } = part;
  const outcome =
    state === "output-available"
      ? { output }
      : state === "output-denied"
        ? { error: DENIED }
        : state === "output-error"
          ? { error: errorText }
          : { state };
  return { name: String(toolName ?? String(type).slice(5)), input: input ?? rawInput ?? null, outcome };
}

const isOther = ({ type, toolCallId }: Fields): boolean =>
  toolCallId === undefined && !["text", "reasoning", "step-start", ...ONLY_7].includes(String(type));

// ---------------------------------------------------------------------- TanStack AI

/** A reply may be shown as several messages, `<id>`, `<id>~2`, …: PROTOCOL §11.4. */
export function ofTanStack(messages: readonly UIMessage[]): Said[] {
  const said = new Map<string, UIMessage["parts"]>();
  const about = new Map<string, { role: string; metadata: Fields }>();
  for (const { id, role, parts, metadata } of plain(messages)) {
    const whole = id.replace(/~\d+$/, "");
    said.set(whole, [...(said.get(whole) ?? []), ...parts]);
    about.set(whole, { role, metadata: { ...about.get(whole)?.metadata, ...metadata } });
  }
  return [...said].map(([id, parts]) => {
    const { role = "", metadata = {} } = about.get(id) ?? {};
    const { tanstack: _, strandline, ...own } = metadata;
    const thoughts = new Map<string, string>();
    for (const part of parts) {
      if (part.type !== "thinking") continue;
      const { stepId: step = "" } = part as { stepId?: string };
      thoughts.set(step, (thoughts.get(step) ?? "") + part.content);
    }
    const order = (step: string) => Number(/:r(\d+)$/.exec(step)?.[1]);
    return {
      id,
      role,
      text: parts.map((part) => (part.type === "text" ? part.content : "")).join(""),
      reasoning: [...thoughts].sort(([a], [b]) => order(a) - order(b)).map(([, text]) => text),
      tools: parts.flatMap((part) => (part.type === "tool-call" ? [tanStackTool(part)] : [])),
      others: [
        ...parts.flatMap((part) => ("source" in part ? [fileOf(part as unknown as Fields)] : [])),
        ...othersOf(((strandline as Fields | undefined)?.parts ?? []) as Chunk[]),
      ],
      metadata: own,
    };
  });
}

function tanStackTool(part: Fields): Tool {
  const { name, input, state, output } = part;
  const outcome = state === "complete" ? { output } : state === "error" ? (output as Fields) : { state };
  return { name: String(name), input: input ?? null, outcome: plain(outcome) };
}

/** What a list of chunks adds to a message besides text, reasoning and tools. */
export function othersOf(chunks: readonly Chunk[]): Fields[] {
  const found: Fields[] = [];
  for (const chunk of chunks) {
    const { transient, ...part } = chunk;
    if (transient || !/^(data-|source-|file$)/.test(chunk.type)) continue;
    const earlier = found.findIndex(
      ({ type, id }) => id !== undefined && type === part.type && id === part.id,
    );
    if (earlier < 0) found.push(part);
    else found[earlier] = part;
  }
  return found;
}

function fileOf({ source }: Fields): Fields {
  const { type, value, mimeType } = source as Record<string, string>;
  return {
    type: "file",
    mediaType: mimeType,
    url: type === "data" ? `data:${mimeType};base64,${value}` : value,
  };
}

// ---------------------------------------------------------------------- AG-UI

/** What an AG-UI agent knows of one reply. It has the arguments of a call as text, and its result as text. */
export function ofAgUi(messages: readonly AgUiMessage[]): Pick<Said, "text" | "reasoning" | "tools"> {
  const replies = messages.flatMap((message) => (message.role === "assistant" ? [message] : []));
  const results = messages.flatMap((message) => (message.role === "tool" ? [message] : []));
  return plain({
    text: replies.map(({ content }) => content ?? "").join(""),
    reasoning: messages.flatMap((message) =>
      message.role === "reasoning" && message.content ? [message.content] : [],
    ),
    tools: replies.flatMap(({ toolCalls = [] }) =>
      toolCalls.map(({ id, function: { name, arguments: input } }) => {
        const result = results.find(({ toolCallId }) => toolCallId === id)?.content;
        return { name, input: parsed(input), outcome: { output: parsed(String(result)) } };
      }),
    ),
  });
}

/** The same of a reply that was read elsewhere: to AG-UI a failed call is one with such an output. */
export const asAgUi = ({ text, reasoning, tools }: Said): Pick<Said, "text" | "reasoning" | "tools"> => ({
  text,
  reasoning,
  tools: tools.map(({ name, input, outcome }) => ({
    name,
    input,
    outcome: { output: "output" in outcome ? outcome.output : outcome },
  })),
});

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
