#!/usr/bin/env node
/**
 * Sets up what is missing and runs the benchmarks: `node scripts/bench.mjs dispatch`.
 */
import { join } from 'node:path';
import { ROOT } from './setup.mjs';
import { runAfterSetup } from './launch.mjs';

await runAfterSetup(join(ROOT, 'dist/bench/main.js'));
