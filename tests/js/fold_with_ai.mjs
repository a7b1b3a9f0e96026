// What the real reducer of ai@5, 6 or 7 makes of chunk lists: the other half of test_fold_differential.py.
// usage: node fold_with_ai.mjs <major>; one JSON list of chunks per line in, one line out:
//   {"message": {...}} | {"refused": "schema" | "reducer", "at": index, "error": text}
import { createInterface } from "node:readline";

const { readUIMessageStream, uiMessageChunkSchema } = await import(`ai${process.argv[2]}`);
const schema = typeof uiMessageChunkSchema === "function" ? uiMessageChunkSchema() : uiMessageChunkSchema;

// The reader shows the message only when a chunk changes it visibly, so a mark is added that always does.
const MARK = { type: "data-end-of-list", data: null };

async function fold(chunks) {
  const read = [];
  for (const [at, chunk] of chunks.entries()) {
    const result = await schema.validate(chunk);
    if (!result.success) return { refused: "schema", at, error: String(result.error.message).slice(0, 300) };
    read.push(result.value);
  }
  read.push(MARK);
  let passed = 0;
  let error;
  const source = {
    pull(controller) {
      if (passed === read.length) controller.close();
      else controller.enqueue(read[passed++]);
    },
  };
  const stream = new ReadableStream(source, { highWaterMark: 0 });
  const onError = (thrown) => {
    error = String(thrown);
  };
  let message;
  for await (const seen of readUIMessageStream({ stream, onError })) message = seen;
  if (message?.parts.at(-1)?.type !== MARK.type) return { refused: "reducer", at: passed - 1, error };
  message.parts.pop();
  return { message };
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await fold(JSON.parse(line))));
}
