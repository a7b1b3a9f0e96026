// What the shim's own fold makes of chunk lists, for test_shim_fold.py.
// usage: node fold_with_shim.mjs; one JSON list of chunks per line in, one line out: the message after every chunk.
import { createInterface } from "node:readline";
import { createFold } from "../../js-adapter/dist/fold.js";

for await (const line of createInterface({ input: process.stdin })) {
  const fold = createFold("");
  const messages = JSON.parse(line).map((chunk) => {
    fold.push(chunk);
    return fold.message;
  });
  console.log(JSON.stringify(messages));
}
