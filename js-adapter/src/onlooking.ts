/** What a chat reads that looks on while somebody else's request is answered. */
import type { Chunk } from "./sse.js";

/**
 * The same message, without `tool-input-available` for calls that are not `isMine`: a chat answers that chunk with
 * `onToolCall`, and then every device would run the tool. Their input is told as if it was still being written.
 *
 * Read one at a time, with nothing waiting in between: an error comes after everything that was said before it.
 */
export function onlooking(
  chunks: ReadableStream<Chunk>,
  isMine: (toolCallId: string) => boolean,
): ReadableStream<Chunk> {
  const reader = chunks.getReader();
  return new ReadableStream<Chunk>(
    {
      async pull(out) {
        const { done, value } = await reader.read();
        if (done) return out.close();
        const { input, ...call } = value;
        const toolCallId = call.toolCallId as string;
        if (value.type !== "tool-input-available" || isMine(toolCallId)) return out.enqueue(value);
        out.enqueue({ ...call, type: "tool-input-start" });
        out.enqueue({ type: "tool-input-delta", toolCallId, inputTextDelta: JSON.stringify(input ?? null) });
      },
      cancel: (reason) => reader.cancel(reason),
    },
    { highWaterMark: 0 },
  );
}
