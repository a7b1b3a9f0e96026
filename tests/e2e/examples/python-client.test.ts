/** examples/python-client, run as its README says, against the server of the vanilla example. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { CuttingProxy } from "../proxy.js";
import { PYTHON } from "../server.js";
import { counted, eventually, fresh, within } from "../support.js";
import { EXAMPLES, Example } from "./example.js";

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

let example: Example;
beforeAll(async () => {
  example = await Example.begin("vanilla", ["main.py", "index.html"]);
});
afterAll(() => example?.close());

/** The program. `out` grows; `done` is its exit code. */
function run(args: string[], url = example.server.url) {
  const child = spawn(PYTHON, [join(EXAMPLES, "python-client/main.py"), "--url", `${url}/api`, ...args]);
  const program = {
    out: "",
    err: "",
    done: within(
      40_000,
      `main.py ${args.join(" ")}`,
      once(child, "close").then(([code]) => code as number | null),
    ),
    interrupt: () => child.kill("SIGINT"),
    says: (what: string | RegExp) =>
      eventually(`${args[0]} prints ${what}`, () => program.out.match(what) !== null),
  };
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    program.out += text;
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    program.err += text;
  });
  return program;
}

test("send prints the reply, exactly, although its connection is killed again and again", async () => {
  const session = fresh("py");
  let feeds = 0;
  const proxy = await CuttingProxy.begin(example.server.port, ({ path }) => {
    if (!path.includes("/events")) return undefined;
    feeds += 1;
    // In the middle of frames, and once before the answer, and once with an answer that is not the server's.
    return [{ cutAfter: 900 }, { cutAfter: 700 }, { swallow: true }, { status: 502 }, { cutAfter: 1100 }][
      feeds - 1
    ];
  });
  try {
    const send = run(["send", session, "count to 60 every 20 ms"], proxy.url);
    expect(await send.done, send.err).toBe(0);
    expect(send.out).toBe(`${counted(60)}\n`);
    expect(feeds).toBe(6);
    expect(send.err.match(/reconnecting/g)?.length).toBe(5);
    expect(await example.runs(session)).toMatchObject([{ status: "completed" }]);
  } finally {
    await proxy.close();
  }
});

test("a message whose answer was lost is sent again, and answered once", async () => {
  const session = fresh("lost-answer");
  let posts = 0;
  const proxy = await CuttingProxy.begin(example.server.port, ({ path }) => {
    if (!path.endsWith("/messages")) return undefined;
    posts += 1;
    return posts === 1 ? { swallow: true } : undefined;
  });
  try {
    const send = run(["send", session, "count to 5 every 1 ms"], proxy.url);
    expect(await send.done, send.err).toBe(0);
    expect(send.out).toBe(`${counted(5)}\n`);
    expect(posts).toBe(2);
    expect((await example.runs(session)).length).toBe(1);
  } finally {
    await proxy.close();
  }
});

test("follow joins in the middle and goes on; stop ends it for everybody; list knows it", async () => {
  const session = fresh("follow");
  const send = run(["send", session, "count to 5000 every 20 ms"]);
  await send.says(/\b8 /);
  const follow = run(["follow", session]);
  await follow.says(/\b20 /);
  const listed = run(["list"]);
  expect(await listed.done).toBe(0);
  expect(listed.out).toContain(`${session}\t*\tcount to 5000 every 20 ms\n`);
  const stop = run(["stop", session]);
  expect(await stop.done).toBe(0);
  expect(stop.out).toBe("stopped\n");
  expect(await send.done).toBe(0);
  await follow.says("[stopped]");
  const reply = send.out.slice(0, -"[stopped]\n".length);
  expect(counted(5000).startsWith(reply)).toBe(true);
  expect(follow.out).toBe(`user: count to 5000 every 20 ms\nassistant: ${send.out}`);

  const more = run(["send", session, "count to 3 every 1 ms"]);
  expect(await more.done).toBe(0);
  await follow.says(/user: count to 3 every 1 ms\nassistant: 1 2 3 \n$/);
  follow.interrupt();
  expect(await follow.done).toBe(0);
});

test.each([
  ["approve", "[approved: delete_file {'path': 'report.pdf'}]\n", "`delete_file` is done."],
  ["deny", "[denied: delete_file {'path': 'report.pdf'}]\n", "`delete_file` was not called."],
])(
  "%s answers what a reply waits for, prints how it goes on, and does nothing again",
  async (command, note, end) => {
    const session = fresh(command);
    const send = run(["send", session, "delete report.pdf"]);
    expect(await send.done, send.err).toBe(0);
    expect(send.out).toMatch(/\[suspended\]\n$/);
    const decide = run([command, session]);
    expect(await decide.done, decide.err).toBe(0);
    expect(decide.out.startsWith(note)).toBe(true);
    expect(decide.out).toContain(end);
    expect(await example.runs(session)).toMatchObject([{ status: "suspended" }, { status: "completed" }]);
    const again = run([command, session]);
    expect(await again.done, again.err).toBe(0);
    expect(again.out).toBe("");
  },
);

test("what cannot be mended is said, and is an error", async () => {
  const follow = run(["follow", "nobody-has-this"]);
  expect(await follow.done).toBe(1);
  expect(follow.err).toContain('"code":"not-found"');
});
