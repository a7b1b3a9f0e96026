/** Bytes to frames, and nothing about what they mean. */
import { createParser } from "eventsource-parser";
import { StrandlineProtocolError } from "./errors.js";
import { DONE } from "./protocol.js";

/** A chunk of the AI SDK's UI message stream; its `type` decides what else it has. */
export interface Chunk {
  type: string;
  [field: string]: unknown;
}

export interface Frame {
  /** Null for `[DONE]`. */
  chunk: Chunk | null;
  /** The cursor, when the frame has one. */
  cursor: string | undefined;
}

/**
 * The largest frame is a snapshot's text of one part. A stream that never ends a line must not fill the memory: past
 * this many characters it is a protocol error.
 */
const LONGEST_FRAME = 32 * 1024 * 1024;

/**
 * A decoder for one response. A frame is given out when the blank line after it has come and not before, so what was
 * cut in the middle of a frame, or of a character, was never there.
 */
export function createFrameDecoder(onFrame: (frame: Frame) => void): (bytes: Uint8Array) => void {
  const text = new TextDecoder();
  const parser = createParser({
    maxBufferSize: LONGEST_FRAME,
    onEvent: ({ data, id }) =>
      onFrame({ chunk: data === DONE ? null : parseChunk(data), cursor: id || undefined }),
    onError(error) {
      // Unknown fields and bad `retry:` values are to be ignored (HTML, "interpreting an event stream").
      if (error.type === "max-buffer-size-exceeded")
        throw new StrandlineProtocolError("A frame is too long.", error);
    },
  });
  return (bytes) => parser.feed(text.decode(bytes, { stream: true }));
}

function parseChunk(data: string): Chunk {
  let value: unknown;
  try {
    // The AI SDK's own transport refuses `__proto__`, because chunks are merged into messages; an escape can hide it.
    value = JSON.parse(data, /__proto__|\\u00/.test(data) ? withoutProto : undefined);
  } catch (error) {
    throw new StrandlineProtocolError("A frame is not JSON.", error);
  }
  if (typeof (value as Chunk | null)?.type !== "string")
    throw new StrandlineProtocolError("A frame has no type.");
  return value as Chunk;
}

const withoutProto = (key: string, value: unknown): unknown => (key === "__proto__" ? undefined : value);
