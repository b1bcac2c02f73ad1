/** The model lab of the dashboard: completions and scores by models of runs, in a process of its own. No libtorch here. */
export { LabProcess, type LabProcessOptions } from './labProcess.js';
