/** What the docs show of front ends is valid against the real packages. */
import { execFileSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const folder = join(root, "demo", ".docs"); // where @ai-sdk/react is
const tsc = join(dirname(createRequire(import.meta.url).resolve("typescript/package.json")), "bin/tsc");
const OPTIONS =
  "--ignoreConfig --noEmit --strict --skipLibCheck --jsx react-jsx --module preserve --target es2022";

/** What an example has from the one before it, or from its reader. */
const NAMES = `
declare const id: string;
declare const threadId: string;
declare const useChat: typeof import("@ai-sdk/react").useChat;
declare const useSession: typeof import("strandline/react").useSession;
declare const useSessionSync: typeof import("strandline/react").useSessionSync;
declare const lastAssistantMessageIsCompleteWithToolCalls:
  typeof import("ai").lastAssistantMessageIsCompleteWithToolCalls;
declare const transport: import("strandline/ai-sdk").StrandlineTransport;
declare const sessions: import("strandline").Sessions;
declare const session: import("strandline/react").SessionHandle;
declare const decision: import("strandline").SessionDecision;
declare const chats: Map<string, { resumeStream(): Promise<void> }>;
declare function locate(input?: unknown): Promise<{ lat: number; lon: number }>;
declare const AppState: { addEventListener(event: "change", listener: (state: string) => void): void };
`;

const pages = readdirSync(join(root, "docs")).filter((name) => name.endsWith(".md"));

test("every TypeScript example of the docs and of the package's page type-checks", () => {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  try {
    // What a page calls the reader's own component.
    writeFileSync(
      join(folder, "Chat.ts"),
      "export function Chat(_: { id: string; messages: unknown[] }) { return null; }",
    );
    writeFileSync(join(folder, "names.d.ts"), NAMES);
    const files = ["names.d.ts"];
    for (const page of ["js-adapter/README.md", ...pages.map((name) => `docs/${name}`)]) {
      const text = readFileSync(join(root, page), "utf8");
      for (const [, language, code = ""] of text.matchAll(/```(tsx?)\n(.*?)```/gs)) {
        const file = `${page.replaceAll("/", "-")}-${files.length}.${language}`;
        writeFileSync(join(folder, file), `${code}\nexport {};\n`);
        files.push(file);
      }
    }
    expect(files.length).toBeGreaterThan(20);
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
