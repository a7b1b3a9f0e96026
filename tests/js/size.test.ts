/** Every entry point has a size, after which somebody has to think. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "vite";
import { describe, expect, test } from "vitest";

const MOST = 6_000;
/**
 * A feed that is kept open, the fold of messages, branches and what is beside them, sending, stopping, steering, deciding,
 * editing, annotating, reading annotations, leaving out reasoning: there is no smaller session client.
 */
const MORE: Record<string, number> = {
  ".": 11_300,
  /** With the words for a chat that only looks on, or came too late with the output of a tool. */
  "./ai-sdk/sessions": 6_100,
  /**
   * A feed that is kept open, sends, stops and decides, and what the chat must be told besides the events, also in the
   * metadata of its messages (annotations: 200 bytes), and which message a chunk is of, whatever ids are like.
   */
  "./tanstack": 7_750,
};

const adapter = new URL("../../js-adapter/", import.meta.url);
const { exports: entries, peerDependencies } = JSON.parse(
  readFileSync(new URL("package.json", adapter), "utf8"),
) as { exports: Record<string, { default: string }>; peerDependencies: Record<string, string> };

/** The package's own code: everything else is the application's already, or the parser. */
const external = ["eventsource-parser", ...Object.keys(peerDependencies)].map(
  (name) => new RegExp(`^${name}(/|$)`),
);

async function bundle(name: string): Promise<string> {
  const built = await build({
    configFile: false,
    logLevel: "silent",
    build: {
      write: false,
      minify: true,
      target: "es2022",
      // Not `lib`: that one keeps the white space of ES modules.
      rolldownOptions: {
        input: fileURLToPath(new URL(`src/${name}.ts`, adapter)),
        preserveEntrySignatures: "strict",
        external,
      },
    },
  });
  const output = (Array.isArray(built) ? built : [built]).flatMap((one) =>
    "output" in one ? one.output : [],
  );
  return output.map((chunk) => ("code" in chunk ? chunk.code : "")).join("");
}

describe.each(Object.entries(entries))("strandline %s", (path, { default: file }) => {
  const most = MORE[path] ?? MOST;
  test(`is at most ${most} bytes, minified and compressed, without its parser and its peers`, async () => {
    const name = /^\.\/dist\/(.+)\.js$/.exec(file)?.[1];
    expect(name, path).toBeDefined();
    const code = await bundle(name as string);
    expect(code).toMatch(/export\s*\{/);
    const size = gzipSync(code, { level: 9 }).length;
    expect(size).toBeGreaterThan(200);
    expect(size).toBeLessThanOrEqual(most);
  });
});
