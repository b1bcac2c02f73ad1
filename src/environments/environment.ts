/** What an environment is. Environments see text and the user's row; never tokens, tensors or models. */

/** What an episode starts from. */
export interface EpisodeStart<Row = Readonly<Record<string, unknown>>> {
  /** The prompt as the model sees it. */
  readonly prompt: string;
  /** The row that the prompt came from, with all its columns. */
  readonly row: Row;
}

/** What the model wrote in one turn. */
export interface ModelTurn {
  /** Without special tokens; the stop text that ended it included. */
  readonly text: string;
  /** Which turn of the model, from 0. */
  readonly index: number;
  /**
   * Why the turn ended: the EOS token, a stop text, or the turn's length limit. After EOS the episode is over whatever
   * the environment says.
   */
  readonly finishReason: 'eos' | 'stop' | 'length';
}

/** What an environment makes of a turn. */
export interface EnvironmentStep<State = unknown> {
  /** Handed to the next `step`. */
  readonly state: State;
  /** What the model reads before its next turn; not read where no turn follows. */
  readonly observation: string;
  /** Whether the episode is over. */
  readonly done: boolean;
}

/**
 * The other side of an episode of several turns. `reset` is called once for each episode, then `step` after every turn
 * of the model, the last one included. Episodes run side by side: what belongs to one of them lives in its state. An
 * environment gives no reward; rewards read the finished episode.
 */
export interface Environment<State = unknown, Row = Readonly<Record<string, unknown>>> {
  /** For logs and errors. */
  readonly name: string;
  /**
   * Texts that end the model's turn; they stay part of it. A special token (`<|im_end|>`) may be named too, although it
   * is no part of the text; where it is the EOS token, it then ends the turn and not the episode.
   */
  readonly stop: readonly string[];
  /** @returns the state of a new episode */
  reset(start: EpisodeStart<Row>): State | Promise<State>;
  /** Answers a turn of the model. */
  step(state: State, turn: ModelTurn): EnvironmentStep<State> | Promise<EnvironmentStep<State>>;
}
