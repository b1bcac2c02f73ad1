import { tensor, type Tensor } from '../../src/torch/index.js';
import type { StepReport, Trainer } from '../../src/trainers/index.js';

/** A trainer that counts: its "model" is one tensor to which every step adds its number. */
export class CountingTrainer implements Trainer {
  readonly method = 'counting';
  readonly totalSteps: number;
  step = 0;
  sum = 0;
  /** Called at the start of each step. */
  beforeStep: ((step: number) => void | Promise<void>) | undefined;
  /** Metrics of a step beside the usual ones. */
  extra: Record<string, number> = {};

  constructor(totalSteps: number) {
    this.totalSteps = totalSteps;
  }

  async trainStep(): Promise<StepReport> {
    await this.beforeStep?.(this.step + 1);
    this.step++;
    this.sum += this.step;
    return {
      metrics: { loss: 1 / this.step, tokens: 10, ...this.extra },
      samples: [{ step: this.step - 1, completion: `c${this.step}` }] as never,
      warnings: this.step === 2 ? ['two is odd'] : [],
    };
  }

  state(): Record<string, unknown> {
    return { step: this.step };
  }

  tensors(): Map<string, Tensor> {
    return new Map([['sum', tensor([this.sum])]]);
  }

  restore(state: Readonly<Record<string, unknown>>, tensors: ReadonlyMap<string, Tensor>): void {
    this.step = Number(state['step']);
    this.sum = Number(tensors.get('sum')?.item());
  }
}
