/** What the docs show of front ends is valid against the real packages. */
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const folder = join(root, "demo", ".docs"); // where @ai-sdk/react is
const tsc = join(dirname(createRequire(import.meta.url).resolve("typescript/package.json")), "bin/tsc");
const OPTIONS =
  "--ignoreConfig --noEmit --strict --skipLibCheck --jsx react-jsx --module preserve --target es2022";

test("every TypeScript example of these pages type-checks", () => {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  try {
    // What the page calls the reader's own component.
    writeFileSync(
      join(folder, "Chat.ts"),
      "export function Chat(_: { id: string; messages: unknown[] }) { return null; }",
    );
    const files: string[] = [];
    for (const page of ["ai-sdk", "ag-ui", "moving-from-resumable-stream"]) {
      const text = readFileSync(join(root, "docs", `${page}.md`), "utf8");
      for (const [, language, code = ""] of text.matchAll(/```(tsx?)\n(.*?)```/gs)) {
        const file = `${page}-${files.length}.${language}`;
        writeFileSync(join(folder, file), code);
        files.push(file);
      }
    }
    expect(files.length).toBeGreaterThan(4);
    execFileSync(process.execPath, [tsc, ...OPTIONS.split(" "), "--types", "node", ...files], {
      cwd: folder,
      encoding: "utf8",
    });
  } catch (error) {
    const { stdout } = error as { stdout?: string };
    throw stdout === undefined ? error : new Error(stdout);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
