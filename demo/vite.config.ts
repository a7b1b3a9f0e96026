import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

// The built page is part of the Python package: `strandline demo` serves it at `/`.
export default defineConfig({
  base: "./",
  plugins: [react()],
  build: {
    outDir: "../python/strandline/demo/static",
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    sourcemap: false,
    target: "es2022",
    chunkSizeWarningLimit: 700,
  },
  server: { proxy: { "/api": process.env["STRANDLINE_SERVER"] ?? "http://127.0.0.1:8000" } },
});
