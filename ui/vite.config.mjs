/** Builds the dashboard's page into dist/ui: plain files, nothing inline, nothing fetched from elsewhere. */
import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vite';

const here = fileURLToPath(new URL('.', import.meta.url));

export default defineConfig({
  root: here,
  // Relative addresses: the page works below any path.
  base: './',
  clearScreen: false,
  build: {
    outDir: fileURLToPath(new URL('../dist/ui', import.meta.url)),
    emptyOutDir: true,
    target: 'es2022',
    // A data: address would be refused by the policy `default-src 'self'`.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
  esbuild: { jsx: 'automatic', jsxImportSource: 'preact' },
  server: {
    // npx vite --config ui/vite.config.mjs, beside a running `posttrain dashboard --port 7070`
    proxy: { '/api': 'http://127.0.0.1:7070' },
  },
});
