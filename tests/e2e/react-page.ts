/** A page of tests/pages in a browser, with any of the three majors of `ai` and any of two of React. */
import { fileURLToPath } from "node:url";
import type { Browser, BrowserContext, Page } from "playwright-core";
import { build } from "vite";
import { expect } from "vitest";
import type { Shown } from "../pages/chat.js";
import type { Major } from "./chat.js";
import { eventually } from "./support.js";

const at = (path: string) => fileURLToPath(new URL(path, import.meta.url));

/** The page as one script. */
export async function bundle(ai: Major, react: 18 | 19, page: "chat" | "life" = "chat"): Promise<string> {
  const source = (name: string) => at(`../../js-adapter/src/${name}.ts`);
  const old = (name: string) => at(`../../tests-react18/node_modules/${name}`);
  const built = await build({
    configFile: false,
    logLevel: "silent",
    mode: "development",
    define: { AI_MAJOR: String(ai), "process.env.NODE_ENV": '"development"' },
    resolve: {
      alias: [
        { find: /^ai7$/, replacement: `ai${ai}` },
        { find: "ai-react7", replacement: `ai-react${ai}` },
        { find: "strandline/ai-sdk/sessions", replacement: source("ai-sdk-sessions") },
        { find: /^strandline\/(.+)$/, replacement: source("$1") },
        { find: /^strandline$/, replacement: source("index") },
        ...(react === 18 ? [{ find: /^(react|react-dom)(?=\/|$)/, replacement: old("$1") }] : []),
      ],
    },
    build: {
      write: false,
      minify: false,
      rolldownOptions: { input: at(`../pages/${page}.tsx`), output: { format: "iife" } },
    },
  });
  const output = (Array.isArray(built) ? built : [built]).flatMap((one) =>
    "output" in one ? one.output : [],
  );
  return output.map((chunk) => ("code" in chunk ? chunk.code : "")).join("");
}

/** Somebody's browser, in a profile of its own, that shows the chat. */
export class Device {
  readonly complaints: string[] = [];

  private constructor(
    readonly context: BrowserContext,
    readonly page: Page,
    private readonly base: string,
  ) {}

  /** `base` is where the server or a proxy is. */
  static async open(browser: Browser, code: string, base: string, id: string): Promise<Device> {
    const context = await browser.newContext({ viewport: { width: 800, height: 600 } });
    return Device.within(context, code, base, `#${id}`);
  }

  /** In a profile that there is. `address` is what follows the path of the page. */
  static async within(context: BrowserContext, code: string, base: string, address: string): Promise<Device> {
    context.setDefaultTimeout(15_000);
    await context.route(new RegExp(`^${base}/page(\\?|$)`), (route) =>
      route.fulfill({
        contentType: "text/html",
        body: '<!doctype html><div id="root"></div><script src="/page.js"></script>',
      }),
    );
    await context.route(`${base}/page.js`, (route) =>
      route.fulfill({ contentType: "text/javascript; charset=utf-8", body: code }),
    );
    const page = await context.newPage();
    const device = new Device(context, page, base);
    page.on("pageerror", (error) => device.complaints.push(String(error.stack ?? error)));
    page.on("console", (said) => {
      // The network errors that a test makes are said in the console as well.
      if (said.type() === "error" && !/Failed to load resource|net::ERR_/.test(said.text()))
        device.complaints.push(said.text());
    });
    await page.goto(`${base}/page${address}`);
    await device.at("draft").waitFor();
    return device;
  }

  at(testId: string) {
    return this.page.getByTestId(testId);
  }

  async says(testId: string): Promise<string> {
    return (await this.at(testId).textContent()) ?? "";
  }

  async say(text: string, button: "send" | "edit" | "correct" | "steer" | "queue" = "send"): Promise<void> {
    await this.at("draft").fill(text);
    await this.at(button).click();
  }

  /** What is on the screen. */
  messages(): Promise<Shown["messages"]> {
    return this.at("message").evaluateAll((all) =>
      all.map((one) => ({
        id: one.getAttribute("data-id") ?? "",
        role: one.getAttribute("data-role") ?? "",
        text: one.textContent ?? "",
      })),
    );
  }

  async texts(): Promise<string[]> {
    return (await this.messages()).map(({ text }) => text);
  }

  /** Resolves when these, and no other, texts are on the screen. */
  async shows(...texts: string[]): Promise<void> {
    let last: string[] = [];
    const isSo = async () => {
      last = await this.texts();
      return last.length === texts.length && last.every((text, index) => text === texts[index]);
    };
    await eventually(`the page shows ${JSON.stringify(texts)}`, isSo, 20_000, 20).catch((error) => {
      throw new Error(`${error.message}; it shows ${JSON.stringify(last)}`);
    });
  }

  /** Resolves when the last message has come to this number. */
  async counts(number: number): Promise<void> {
    let last = "";
    const isSo = async () => {
      last = (await this.texts()).at(-1) ?? "";
      return last.split(" ").includes(String(number));
    };
    await eventually(`the page shows ${number}`, isSo, 20_000, 10).catch((error) => {
      throw new Error(`${error.message}; it shows ${JSON.stringify(last)}`);
    });
  }

  /** Resolves when nothing is streamed and nothing is running. */
  async rests(): Promise<void> {
    const isSo = async () =>
      ["ready", "error"].includes(await this.says("status")) && (await this.at("stop").isDisabled());
    await eventually("the page rests", isSo, 20_000, 20).catch(async (error) => {
      const [status, runs] = [await this.says("status"), await this.says("runs")];
      throw new Error(`${error.message}; it is ${status}, runs: ${runs}`);
    });
  }

  async reload(): Promise<void> {
    await this.page.reload();
    await this.at("draft").waitFor();
  }

  async show(id: string): Promise<void> {
    await this.page.goto(`${this.base}/page#${id}`);
  }

  /** Every render since this was last asked. */
  async rendered(): Promise<Shown[]> {
    return this.page.evaluate(() => globalThis.shown.splice(0));
  }

  /**
   * Nothing flickered: a message that was there stayed, in its place, and words were only ever added at the end. Returns
   * how many renders there were.
   */
  async isSteady(): Promise<number> {
    const renders = await this.rendered();
    for (const [index, { messages }] of renders.entries()) {
      const before = renders[index - 1]?.messages ?? [];
      const was = JSON.stringify(before.map(({ role, text }) => [role, text.slice(-40)]));
      const is = JSON.stringify(messages.map(({ role, text }) => [role, text.slice(-40)]));
      for (const [place, { id, text }] of before.entries()) {
        expect(messages[place]?.id, `render ${index}: ${was} → ${is}`).toBe(id);
        expect(messages[place]?.text.startsWith(text), `render ${index}: ${was} → ${is}`).toBe(true);
      }
    }
    return renders.length;
  }
}
