/** Every entry point has a size, after which somebody has to think. */
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "vite";
import { expect, test } from "vitest";

test.each([["ai-sdk", 6_000]])(
  "%s is at most %i bytes, minified and compressed, without its parser",
  async (name, most) => {
    const entry = fileURLToPath(new URL(`../../js-adapter/src/${name}.ts`, import.meta.url));
    const built = await build({
      configFile: false,
      logLevel: "silent",
      build: {
        write: false,
        minify: true,
        target: "es2022",
        // Not `lib`: that one keeps the white space of ES modules.
        rolldownOptions: {
          input: entry,
          preserveEntrySignatures: "strict",
          external: ["eventsource-parser"],
        },
      },
    });
    const output = (Array.isArray(built) ? built : [built]).flatMap((one) =>
      "output" in one ? one.output : [],
    );
    const code = output.map((chunk) => ("code" in chunk ? chunk.code : "")).join("");
    expect(code).toContain("resumeStreamIsReplay");
    expect(gzipSync(code, { level: 9 }).length).toBeLessThanOrEqual(most);
  },
);
