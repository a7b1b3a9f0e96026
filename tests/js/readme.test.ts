/** The README's front end, taken from the README, is valid against the real packages. */
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const readme = readFileSync(join(root, "README.md"), "utf8");

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
