/** The dashboard: a server that shows run folders in the browser, docs/dashboard.md. */
export { startDashboard, type Dashboard, type DashboardOptions } from './server.js';
export type { Rhythm } from './runRegistry.js';
