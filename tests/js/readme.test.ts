/** The README's front end, taken from the README, is valid against the real packages. */
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { createSessions } from "strandline";
import { strandlineTransport } from "strandline/ai-sdk";
import { expect, test } from "vitest";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const readme = readFileSync(join(root, "README.md"), "utf8");

const npm = readFileSync(join(root, "js-adapter", "README.md"), "utf8");

/** What the first column of the table with this title names. */
const named = (title: string): string[] => {
  const rows = new RegExp(`\\| ${title} \\|[^\\n]*\\n\\|[-|]+\\n((?:\\|.*\\n)+)`).exec(npm)?.[1] ?? "";
  const cells = rows.split("\n").map((row) => row.split(" | ")[0] ?? "");
  return cells.flatMap((cell) => [...cell.matchAll(/`(\w+)/g)].map(([, name]) => name as string));
};

test("the package's page names everything that a session, sessions, a transport and useSession can do", () => {
  const sessions = createSessions({ url: "http://127.0.0.1:1" });
  const session = sessions.open("s1");
  const names = (one: object) => Object.keys(one).toSorted();
  const listed = (title: string) => [...new Set(named(title))].toSorted();
  expect(listed("session")).toEqual(names(session));
  expect(listed("sessions")).toEqual(names(sessions));
  const methods = names(strandlineTransport()).filter(
    (name) => !/^(sendMessages|reconnectToStream|resumeStreamIsReplay)$/.test(name),
  );
  expect(listed("method")).toEqual(methods);
  const row = /\| `useSession\(.*/.exec(npm)?.[0];
  // The rest is on the `session` of the result.
  const acts = names(session).filter((name) => !/^(id|on|sub|get|reply|poke|drop|close)/.test(name));
  for (const name of acts) expect(row).toContain(`\`${name}\``);
});

test("the package's page names every header that the server's CORS helper allows and exposes", () => {
  const list = (name: string) => {
    const source = readFileSync(join(root, "python/strandline/http/cors.py"), "utf8");
    const body = new RegExp(`^${name} = \\((.*?)^\\)`, "ms").exec(source)?.[1] ?? "";
    const wire = readFileSync(join(root, "python/strandline/http/wire.py"), "utf8");
    return [...body.matchAll(/"([^"]+)"|(\w+_HEADER)/g)].map(
      ([, text, constant]) => text ?? new RegExp(`^${constant} = "(.*)"`, "m").exec(wire)?.[1],
    );
  };
  const said = npm.slice(npm.indexOf("From another origin"));
  // Those of stock clients of other packages.
  const headers = [...list("REQUEST_HEADERS"), ...list("EXPOSED_HEADERS")].filter(
    (name) => !name?.startsWith("X-"),
  );
  expect(headers.length).toBeGreaterThan(12);
  for (const header of headers) expect(said).toContain(`\`${header}\``);
});

test("the README's component type-checks against @ai-sdk/react and the built package", () => {
  const code = /```tsx\n(.*?)```/s.exec(readme)?.[1];
  expect(code).toContain("strandlineTransport");
  const folder = join(root, "demo", ".readme");
  mkdirSync(folder, { recursive: true });
  try {
    writeFileSync(join(folder, "Chat.tsx"), code as string);
    const tsc = join(dirname(createRequire(import.meta.url).resolve("typescript/package.json")), "bin/tsc");
    const options = ["--ignoreConfig", "--noEmit", "--strict", "--skipLibCheck", "--jsx", "react-jsx"];
    execFileSync(
      process.execPath,
      [tsc, ...options, "--module", "preserve", "--target", "es2022", "Chat.tsx"],
      { cwd: folder },
    );
  } finally {
    rmSync(folder, { recursive: true });
  }
});
