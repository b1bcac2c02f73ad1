#!/usr/bin/env node
/**
 * Sets up what is missing and runs the command line: `node scripts/run.mjs quickstart --json`.
 */
import { join } from 'node:path';
import { ROOT } from './setup.mjs';
import { runAfterSetup } from './launch.mjs';

await runAfterSetup(join(ROOT, 'dist/src/cli/main.js'));
