"""What transformers makes of a model: greedy continuations of a language model, scores of a reward model."""

import torch

NEW_TOKENS = 24


@torch.no_grad()
def reads(model, rows):
    """`rows` are token ids of different lengths. Scores are read in one batch that is padded at the right."""
    model.eval()
    if hasattr(model, "score"):
        longest = max(len(row) for row in rows)
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        scores = model(ids, attention_mask=(ids != 0).long()).logits.squeeze(-1)
        return {"rows": rows, "scores": scores.double().tolist()}
    logits = [model(torch.tensor([row])).logits[0, -1].double().tolist() for row in rows]
    greedy = []
    for row in rows:
        ids = torch.tensor([row])
        made = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NEW_TOKENS, pad_token_id=0
        )
        greedy.append(made[0, len(row) :].tolist())
    return {"rows": rows, "greedy": greedy, "logits": [[float(f"{v:.9g}") for v in row] for row in logits]}
