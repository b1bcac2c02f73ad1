/** The two files of a labelling session on the disk: every step is there before the next prompt is shown. */
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import type { Row } from '../data/index.js';
import { IoError } from '../errors/index.js';
import { LineFile, replaceFile } from '../runs/files.js';
import { preferenceRows, type SessionOrigin } from './preferenceRows.js';
import { LabelSession, type Decision, type SessionRecord } from './session.js';
import {
  readSession,
  requireSameSession,
  sessionPath,
  type SessionHeader,
  type SessionSettings,
} from './sessionFile.js';

/** What `LabelFiles.open` needs. */
export interface LabelFilesOptions {
  /** Path of the preferences. */
  readonly out: string;
  readonly settings: SessionSettings;
  /** Row of each prompt. */
  readonly rows: readonly Row[];
  /** Goes on with the session that is there, instead of starting one. */
  readonly resume: boolean;
}

/**
 * The session's file, which is appended to and synced step by step, and the preferences, which follow from it. They are
 * appended to as well, and written anew, whole or not at all, when a session is opened, undone or closed.
 */
export class LabelFiles {
  readonly session: LabelSession;
  private readonly options: LabelFilesOptions;
  private readonly origin: SessionOrigin;
  private readonly steps: LineFile;
  private preferences: LineFile | undefined;

  private constructor(options: LabelFilesOptions, header: SessionHeader, session: LabelSession) {
    const { model, weightsSha256, seed, mode, completions, temperature, maxNewTokens } =
      options.settings;
    this.options = options;
    this.session = session;
    this.origin = {
      session: header.session,
      model,
      weightsSha256,
      seed,
      sampling: { completions, temperature, maxNewTokens },
      mode,
    };
    this.steps = new LineFile(sessionPath(options.out));
  }

  /**
   * Starts a session, or goes on with one.
   *
   * @throws IoError if a new session would overwrite something, or there is none to go on with
   * @throws CheckpointError if it was started with something else; DataError if its file is damaged
   */
  static open(options: LabelFilesOptions): LabelFiles {
    const path = sessionPath(options.out);
    if (options.resume) {
      const { header, session } = readSession(path);
      requireSameSession(header.settings, options.settings);
      const files = new LabelFiles(options, header, session);
      files.rewrite();
      return files;
    }
    for (const existing of [options.out, path]) {
      if (!existsSync(existing)) continue;
      throw new IoError(`label: expected a new file for --out, but ${existing} is there already.`, {
        hint: 'Add --resume to go on with it, or choose another name.',
      });
    }
    const header: SessionHeader = {
      kind: 'session',
      version: 1,
      session: randomBytes(6).toString('hex'),
      started: new Date().toISOString(),
      settings: options.settings,
    };
    const session = new LabelSession(options.settings.prompts);
    replaceFile(path, `${JSON.stringify(header)}\n`);
    const files = new LabelFiles(options, header, session);
    files.rewrite();
    return files;
  }

  /**
   * Takes one step, and returns when it is on the disk.
   *
   * @returns what an undo took back, last decision first
   * @throws DataError for a step that cannot come now; IoError if it cannot be written
   */
  take(record: SessionRecord): Decision[] {
    this.session.check(record);
    this.steps.append(`${JSON.stringify(record)}\n`);
    this.steps.sync();
    const undone = this.session.apply(record);
    if (record.kind === 'undo') this.rewrite();
    else {
      this.preferences ??= new LineFile(this.options.out);
      this.preferences.append(this.linesOf(record));
      this.preferences.sync();
    }
    return undone;
  }

  /** How many pairs the decisions give. */
  get pairs(): number {
    return this.session.decisions.reduce((sum, decision) => sum + this.rowsOf(decision).length, 0);
  }

  /** Writes the preferences whole and lets go of both files. */
  close(): void {
    this.rewrite();
    this.steps.close();
  }

  private rewrite(): void {
    this.preferences?.close();
    this.preferences = undefined;
    const { decisions } = this.session;
    replaceFile(this.options.out, decisions.map((decision) => this.linesOf(decision)).join(''));
  }

  private linesOf(decision: Decision): string {
    return this.rowsOf(decision)
      .map((row) => `${JSON.stringify(row)}\n`)
      .join('');
  }

  private rowsOf(decision: Decision): Record<string, unknown>[] {
    const row = this.options.rows[decision.row];
    return row === undefined ? [] : preferenceRows(decision, row, this.origin);
  }
}
