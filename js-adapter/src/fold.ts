/**
 * Chunks to message: what a reply says so far. Follows the reducer of ai@7.0.173 `src/ui/process-ui-message-stream.ts`;
 * the log was checked against it when it was written, so what does not fit here throws and is read anew.
 *
 * One thing is left out: while the input of a tool is still being written, its part has `rawInput` and no `input`.
 *
 * A part that changes is replaced, never written to, so that whoever was given a message can keep it.
 */
import { StrandlineResyncError } from "./errors.js";
import type { Chunk } from "./sse.js";

/** A part of a `UIMessage` of ai@7. */
export interface MessagePart {
  readonly type: string;
  readonly [field: string]: unknown;
}

/** A `UIMessage` of the AI SDK. */
export interface SessionMessage {
  readonly id: string;
  readonly role: "user" | "assistant" | "system";
  readonly parts: readonly MessagePart[];
  readonly metadata?: unknown;
  /** It was sent from here and is not in the log yet. */
  readonly pending?: true;
}

export interface Fold {
  /** Throws `StrandlineResyncError` for what does not fit. */
  push(chunk: Chunk): void;
  /** The same object until the next change. */
  readonly message: SessionMessage;
}

type Fields = Record<string, unknown>;

const isObject = (value: unknown): value is Fields =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** What tool chunks set and leave set: the name in the chunk. */
const CALL = ["title", "toolMetadata", "providerExecuted"];
const RESULT = ["toolMetadata", "providerExecuted"];
const SHOWN: Record<string, string[]> = {
  file: ["mediaType", "url", "providerMetadata"],
  "reasoning-file": ["mediaType", "url", "providerMetadata"],
  "source-url": ["sourceId", "url", "title", "providerMetadata"],
  "source-document": ["sourceId", "mediaType", "title", "filename", "providerMetadata"],
  custom: ["kind", "providerMetadata"],
  "steering-message": ["id", "parts"],
};

// The only place where the upstream schema drops fields that it does not know.
const CITATION = ["startIndex", "endIndex", "citedText"];
const SOURCE = ["type", "sourceType", "id", "url", "mediaType", "title", "filename", "providerMetadata"];

/** Goes on from `base`, a message of which nothing is open. */
export function createFold(id: string, base?: SessionMessage): Fold {
  let message = base;
  let metadata = base?.metadata;
  let parts: MessagePart[] = [...(base?.parts ?? [])];
  /** Where the current step begins. */
  let step = parts.map(({ type }) => type).lastIndexOf("step-start") + 1;
  /** Open text and reasoning, by kind and id: where it is. */
  let open = new Map<string, number>();
  /** The last part of each tool call: the only one that chunks can mean. */
  let tools = toolsIn(parts);

  return {
    push(chunk) {
      message = undefined;
      take(chunk);
    },
    get message() {
      message ??= { id, role: "assistant", parts: [...parts], ...(metadata !== undefined && { metadata }) };
      return message;
    },
  };

  function take(chunk: Chunk): void {
    const { type } = chunk;
    const [kind, verb] = /^(text|reasoning)-(start|delta|end)$/.exec(type)?.slice(1) ?? [];
    if (kind !== undefined) takeText(chunk, kind, verb);
    else if (type.startsWith("tool-")) takeTool(chunk);
    else if (type in SHOWN) parts.push(some(chunk, ["type", ...(SHOWN[type] as string[])]) as MessagePart);
    else if (type.startsWith("data-")) takeData(chunk);
    else if (type === "start-step") {
      parts.push({ type: "step-start" });
      step = parts.length;
    } else if (type === "reset-step") {
      parts.length = step;
      open = new Map();
      tools = toolsIn(parts);
    } else if (type === "start" || type === "finish" || type === "message-metadata") {
      if (type === "start" && chunk.messageId !== undefined && chunk.messageId !== id)
        begin(String(chunk.messageId));
      const { messageMetadata: more } = chunk;
      if (more != null) metadata = isObject(metadata) && isObject(more) ? merged(metadata, more) : more;
    }
  }

  /** Another id is another message. */
  function begin(messageId: string): void {
    id = messageId;
    metadata = undefined;
    parts = [];
    step = 0;
    open = new Map();
    tools = new Map();
  }

  function takeText(chunk: Chunk, kind: string, verb: string | undefined): void {
    const key = `${kind}:${chunk.id}`;
    if (verb === "start") {
      open.set(key, parts.length);
      const own = kind === "reasoning" ? { id: chunk.id } : {};
      parts.push({ type: kind, ...own, text: "", ...some(chunk, ["providerMetadata"]), state: "streaming" });
      return;
    }
    const index = known(open.get(key));
    const part = parts[index] as MessagePart;
    const next: Fields = { ...part, ...some(chunk, ["providerMetadata"]) };
    if (verb === "delta") next.text = (part.text as string) + chunk.delta;
    else {
      open.delete(key);
      next.state = "done";
      if (kind === "text" && chunk.citations !== undefined)
        next.citations = (chunk.citations as Fields[]).map((one) => ({
          ...some(one, CITATION),
          source: some(one.source as Fields, SOURCE),
        }));
    }
    parts[index] = next as unknown as MessagePart;
  }

  function takeData(chunk: Chunk): void {
    if (chunk.transient) return;
    const index =
      chunk.id == null ? -1 : parts.findIndex(({ type, id }) => type === chunk.type && id === chunk.id);
    if (index < 0) parts.push(chunk);
    else parts[index] = { ...(parts[index] as MessagePart), data: chunk.data };
  }

  function takeTool(chunk: Chunk): void {
    const { type, toolCallId } = chunk;
    if (type === "tool-approval-response") {
      const index = parts.findIndex(({ approval }) => isObject(approval) && approval.id === chunk.approvalId);
      const part = parts[known(index < 0 ? undefined : index)] as MessagePart;
      const approval = { ...(part.approval as Fields), ...some(chunk, ["approved", "reason"]) };
      const more = renamed(chunk, "callProviderMetadata", ["providerExecuted"]);
      parts[index] = { ...part, ...more, approval, state: "approval-responded" };
      return;
    }
    const last = tools.get(toolCallId);
    const isInput =
      type === "tool-input-start" || type === "tool-input-available" || type === "tool-input-error";
    const index = isInput && (last === undefined || last < step) ? parts.length : known(last);
    const part = parts[index] ?? ({ type: chunk.dynamic ? "dynamic-tool" : "", toolCallId } as MessagePart);
    tools.set(toolCallId, index);
    parts[index] = changed(part, chunk);
  }
}

const toolsIn = (parts: readonly MessagePart[]): Map<unknown, number> =>
  new Map(parts.flatMap(({ toolCallId }, index) => (toolCallId === undefined ? [] : [[toolCallId, index]])));

/** The part of a tool call after a chunk that means it. */
function changed(part: MessagePart, chunk: Chunk): MessagePart {
  const { type, toolName } = chunk;
  const { input, output, errorText, preliminary, inputEncoding, rawInput, ...kept } = part;
  const isDynamic = part.type === "dynamic-tool";
  const named = isDynamic ? { toolName } : { type: `tool-${toolName}` };
  switch (type) {
    case "tool-input-start": {
      const more = renamed(chunk, "callProviderMetadata", [...CALL, "inputEncoding"]);
      return { ...kept, ...named, ...more, state: "input-streaming" };
    }
    case "tool-input-available": {
      const more = renamed(chunk, "callProviderMetadata", [...CALL, "input"]);
      return { ...kept, ...named, ...more, state: "input-available" };
    }
    case "tool-input-error": {
      const more = renamed(chunk, "resultProviderMetadata", [...RESULT, "input", "errorText"]);
      return { ...kept, ...named, ...more, state: "output-error" };
    }
    case "tool-input-delta":
      return { ...part, rawInput: `${rawInput ?? ""}${chunk.inputTextDelta}` };
    case "tool-output-available":
    case "tool-output-error": {
      const isError = type === "tool-output-error";
      const more = renamed(chunk, "resultProviderMetadata", [
        ...RESULT,
        ...(isError ? ["errorText"] : ["output", "preliminary"]),
      ]);
      const next: Fields = { ...kept, ...more, state: isError ? "output-error" : "output-available" };
      Object.assign(next, inputOf(part));
      if (isError && !isDynamic && rawInput !== undefined) next.rawInput = rawInput;
      return next as unknown as MessagePart;
    }
    case "tool-approval-request": {
      const approval: Fields = { id: chunk.approvalId, ...some(chunk, ["inputSchemaInput", "signature"]) };
      if (chunk.approvalDescriptor != null) approval.descriptor = chunk.approvalDescriptor;
      if (chunk.reason !== undefined) approval.requestReason = chunk.reason;
      if (chunk.isAutomatic) approval.isAutomatic = true;
      return { ...part, ...inputOf(part), approval, state: "approval-requested" };
    }
    case "tool-output-denied":
      return { ...part, ...inputOf(part), state: "output-denied" };
    default:
      throw new StrandlineResyncError(`Unknown chunk ${type}.`);
  }
}

/** The input of a call that goes on without having got it whole. Half an input stays unknown. */
function inputOf({ state, input, rawInput, inputEncoding }: MessagePart): Fields {
  if (state !== "input-streaming") return input === undefined ? {} : { input };
  if (rawInput === undefined) return {};
  try {
    return { input: inputEncoding === "text" ? rawInput : JSON.parse(rawInput as string) };
  } catch {
    return {};
  }
}

function known(index: number | undefined): number {
  if (index === undefined) throw new StrandlineResyncError();
  return index;
}

/** The named fields, those that there are. */
function some(from: Fields, names: readonly string[]): Fields {
  return Object.fromEntries(
    names.filter((name) => from[name] !== undefined).map((name) => [name, from[name]]),
  );
}

const renamed = (chunk: Chunk, metadata: string, names: readonly string[]): Fields => ({
  ...some(chunk, names),
  ...(chunk.providerMetadata !== undefined && { [metadata]: chunk.providerMetadata }),
});

const UNSAFE = new Set(["__proto__", "constructor", "prototype"]);

/** ai@7.0.173 `src/util/merge-objects.ts` */
function merged(base: Fields, over: Fields): Fields {
  const result = { ...base };
  for (const [name, value] of Object.entries(over)) {
    const below = result[name];
    if (!UNSAFE.has(name)) result[name] = isObject(below) && isObject(value) ? merged(below, value) : value;
  }
  return result;
}
