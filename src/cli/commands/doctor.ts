import type { Command } from 'commander';
import { withExample, withJson } from '../options.js';
import type { CommandContext } from '../program.js';

/** Adds `doctor`. */
export function registerDoctor(program: Command, { io, setExitCode }: CommandContext): void {
  const command = program
    .command('doctor')
    .description('show what was found on this machine, and what to do about what is missing');
  withExample(withJson(command), 'posttrain doctor');
  command.action(async (options: { json?: boolean }) => {
    const { examine } = await import('../examine.js');
    const report = await examine();
    if (options.json === true) io.out(JSON.stringify(report));
    else {
      for (const { name, isFine, found, advice } of report.checks) {
        io.out(`${isFine ? 'ok ' : 'NO '} ${name.padEnd(10)} ${found}`);
        if (advice !== undefined) io.out(`               ${advice}`);
      }
      io.out(
        report.isUsable ? 'posttrain can be used here.' : 'posttrain cannot be used here yet.',
      );
    }
    if (!report.isUsable) setExitCode(1);
  });
}
