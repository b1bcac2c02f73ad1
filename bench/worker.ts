/** One measuring process: a job as its first argument, a line of JSON as its last output. */
import type { Job, WorkerReport } from './jobs.js';

const job = JSON.parse(process.argv[2] ?? '') as Job;
// Before anything that binds operators; see profile.ts.
const profile = process.argv.includes('--profile') ? await import('./profile.js') : undefined;
const { getNumThreads, runtimeInfo } = await import('../src/torch/index.js');

async function measure(): Promise<Record<string, number[]>> {
  if (job.kind === 'dispatch') return (await import('./dispatch.js')).measureDispatch(job);
  if (job.kind === 'packing') return (await import('./packing.js')).measurePacking(job);
  if (job.kind === 'encode') return (await import('./encode.js')).measureEncode(job);
  if (job.kind === 'startup') return (await import('./startup.js')).measureStartup(job);
  if (job.kind === 'ceiling') return (await import('./ceiling.js')).measureCeiling(job);
  if (job.kind === 'train') {
    const { measureTrain } = await import('./train.js');
    return measureTrain(job, () => profile?.resetProfile());
  }
  if (job.kind === 'modelFolder') {
    const { makeModelFolder } = await import('./modelFolder.js');
    await makeModelFolder(job.folder, job.shape);
    return {};
  }
  if (job.kind === 'gguf') {
    (await import('./gguf.js')).writeGguf(job.folder, job.shape, job.dtype, job.path);
    return {};
  }
  const { measureGenerate } = await import('./generate.js');
  return measureGenerate(job, () => profile?.resetProfile());
}

const rounds = await measure();
const rows = profile?.readProfile();
const { user, system } = process.cpuUsage();
const { version, cpuCapability } = runtimeInfo();
const report: WorkerReport = {
  rounds,
  peakRssBytes: process.resourceUsage().maxRSS * 1024,
  cpuSeconds: job.kind === 'startup' ? null : (user + system) / 1e6,
  threads: getNumThreads(),
  versions: { node: process.versions.node, libtorch: version },
  cpuCapability,
  ...(rows && { profile: rows }),
};
process.stdout.write(`${JSON.stringify(report)}\n`, () => process.exit(0));
