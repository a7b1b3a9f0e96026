/** The browser of the tests: the `chromium` of the system, without a network of its own. */
import { existsSync } from "node:fs";
import { delimiter, join } from "node:path";
import { type BrowserContext, chromium, type LaunchOptions } from "playwright-core";

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

export const launchChromium = (options: Pick<LaunchOptions, "args" | "ignoreDefaultArgs"> = {}) =>
  chromium.launch({
    ...options,
    executablePath: findChromium(),
    args: [...flags(), ...(options.args ?? [])],
    chromiumSandbox: false,
  });

/**
 * A browser that shows one tab at a time, as a phone does: the others are hidden, and a page that was left may be
 * kept in the back/forward cache. (Playwright's own browsers say of every tab that it is looked at.)
 */
export async function launchPhone(
  port: number,
): Promise<{ context: BrowserContext; close(): Promise<void> }> {
  const owner = await launchChromium({
    args: [`--remote-debugging-port=${port}`],
    ignoreDefaultArgs: ["--disable-back-forward-cache"],
  });
  const browser = await chromium.connectOverCDP(`http://127.0.0.1:${port}`, { noDefaults: true });
  const [context] = browser.contexts();
  if (context === undefined) throw new Error("The browser has no profile.");
  return { context, close: () => owner.close() };
}
