/**
 * Folders and programs that look like libtorch, Python, pip and a compiler to the setup.
 */
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

/** What a fake libtorch looks like; the defaults are those of the official CPU build of 2.13. */
export interface FakeLibtorch {
  readonly version?: string;
  readonly cuda?: boolean;
  readonly cxx11Abi?: boolean;
  /** Files that are missing. */
  readonly without?: readonly string[];
}

/** Writes a file and the folders above it. */
export function put(path: string, content: string | Buffer, mode = 0o644): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, content);
  chmodSync(path, mode);
}

/** The files of a fake libtorch by their path in it. */
export function libtorchFiles({ version = '2.13.0', cuda, cxx11Abi, without }: FakeLibtorch = {}) {
  const [major, minor, patch] = version.split('.');
  const abi = cxx11Abi === false ? 'SourceLocationESs' : 'SourceLocationENSt7__cxx1112basic_string';
  const files = new Map([
    ['lib/libc10.so', `\0_ZN3c105ErrorC1ENS_14${abi}\0`],
    ['lib/libtorch_cpu.so', `torch_cpu ${version}`],
    ['include/ATen/core/dispatch/Dispatcher.h', ''],
    [
      'include/torch/headeronly/version.h',
      `#define TORCH_VERSION_MAJOR ${major}\n#define TORCH_VERSION_MINOR ${minor}\n#define TORCH_VERSION_PATCH ${patch}\n`,
    ],
  ]);
  if (cuda === true) files.set('lib/libtorch_cuda.so', 'torch_cuda');
  for (const path of without ?? []) files.delete(path);
  return files;
}

/** Writes a fake libtorch into a folder and gives that folder. */
export function putLibtorch(folder: string, fake: FakeLibtorch = {}): string {
  for (const [path, content] of libtorchFiles(fake)) put(join(folder, path), content);
  return folder;
}

/** Writes an executable shell script. */
export function putProgram(path: string, script: string): string {
  put(path, `#!/bin/sh\n${script}\n`, 0o755);
  return path;
}
