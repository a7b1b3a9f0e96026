import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

// vitest 5.1 reports failures with Map.groupBy, which Node has from 21 on.
if (!("groupBy" in Map)) {
  Object.assign(Map, {
    groupBy<T, K>(items: Iterable<T>, keyOf: (item: T) => K): Map<K, T[]> {
      const groups = new Map<K, T[]>();
      for (const item of items) groups.set(keyOf(item), [...(groups.get(keyOf(item)) ?? []), item]);
      return groups;
    },
  });
}

const source = (name: string) => fileURLToPath(new URL(`../js-adapter/src/${name}.ts`, import.meta.url));

export default defineConfig({
  // The tests run what is written, not what was last built.
  resolve: {
    alias: [
      { find: "strandline/ai-sdk/sessions", replacement: source("ai-sdk-sessions") },
      { find: /^strandline\/(.+)$/, replacement: source("$1") },
      { find: /^strandline$/, replacement: source("index") },
    ],
  },
  test: {
    include: ["js/**/*.test.ts", "e2e/**/*.test.ts"],
    // A rejection that nobody handles fails the run: "no unhandled rejections" is one of the promises.
    dangerouslyIgnoreUnhandledErrors: false,
    unstubGlobals: true,
    // A page is asked until it says so: what a device shows follows what was said to another one.
    expect: { poll: { timeout: 15_000, interval: 20 } },
  },
});
