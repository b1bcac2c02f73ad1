"""Tokens per second of transformers' `generate`: new tokens over wall time, the pass over the prompts included."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

import time

import torch
import transformers
from transformers import AutoModelForCausalLM, StoppingCriteria, StoppingCriteriaList

from worker import read_job, report

WARM_UP_TOKENS = 8


class RowLimits(StoppingCriteria):
    """Ends each row at a length of its own. The batch goes on until its longest row has ended, as it does under TRL."""

    def __init__(self, prompt_tokens, limits):
        self.ends = torch.tensor(limits) + prompt_tokens

    def __call__(self, input_ids, scores, **_):
        return self.ends <= input_ids.size(1)


def main():
    transformers.utils.logging.disable_progress_bar()
    job = read_job()
    torch.manual_seed(0)
    shape = job["shape"]
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=getattr(torch, job["dtype"])).eval()
    model.generation_config.pad_token_id = 0
    copies = job.get("copies", 1)
    prompts = torch.randint(shape["vocabSize"], (job["batch"] // copies, job["promptTokens"]))
    prompts = prompts.repeat_interleave(copies, 0)
    mask = torch.ones_like(prompts)
    limits = job.get("limits") or [job["newTokens"]] * job["batch"]

    @torch.inference_mode()
    def run(new_tokens, criteria=None):
        return model.generate(
            prompts,
            attention_mask=mask,
            max_new_tokens=new_tokens,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            stopping_criteria=criteria,
        )

    def timed():
        # Without limits of its own every row ends together, and no criterion is asked.
        criteria = StoppingCriteriaList([RowLimits(job["promptTokens"], limits)]) if job.get("limits") else None
        drawn = run(max(limits), criteria)
        assert drawn.size(1) == job["promptTokens"] + max(limits)

    warm_up_end = time.perf_counter() + job["warmUpSeconds"]
    run(WARM_UP_TOKENS)
    while time.perf_counter() < warm_up_end:
        run(WARM_UP_TOKENS)
    speeds = []
    end = time.perf_counter() + job["seconds"]
    while len(speeds) < job["rounds"] or time.perf_counter() < end:
        start = time.perf_counter()
        timed()
        speeds.append(sum(limits) / (time.perf_counter() - start))
    report({"tokens/s": speeds}, {"transformers": transformers.__version__})


main()
