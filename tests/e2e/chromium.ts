/** The browser of the tests: the `chromium` of the system, without a network of its own. */
import { existsSync } from "node:fs";
import { delimiter, join } from "node:path";
import { type Browser, chromium } from "playwright-core";

const FLAGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** `$CHROMIUM`, or the `chromium` of the system. Without one these tests fail: nothing else shows what they show. */
function findChromium(): string {
  const named = process.env.CHROMIUM;
  if (named !== undefined && named !== "") return named;
  for (const directory of (process.env.PATH ?? "").split(delimiter)) {
    for (const name of ["chromium", "chromium-browser", "google-chrome"]) {
      if (existsSync(join(directory, name))) return join(directory, name);
    }
  }
  throw new Error("There is no Chromium. Install one, or say where it is in $CHROMIUM.");
}

const flags = (): string[] => {
  const own = process.env.CHROMIUM_FLAGS;
  if (own === undefined || own.trim() === "") return FLAGS;
  // A JSON list, or words.
  return own.trim().startsWith("[") ? (JSON.parse(own) as string[]) : own.trim().split(/\s+/);
};

export const launchChromium = (): Promise<Browser> =>
  chromium.launch({ executablePath: findChromium(), args: flags(), chromiumSandbox: false });
