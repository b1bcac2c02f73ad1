"""Training rows: additions in words and figures, of many lengths. Prompts end with a character that nothing merges with."""

import random

WORDS = "zero one two three four five six seven eight nine ten eleven twelve".split()
ASIDES = ["", " Of course.", " Let me count again to be sure of it.", " That is all."]


def addition(rng):
    a, b = rng.randrange(13), rng.randrange(13)
    asked = rng.choice([f"{a} + {b} =\n", f"What is {WORDS[a]} plus {b}?\n", f"Add {a} to {b}, and say it.\n"])
    right = rng.choice([str(a + b), f"It is {a + b}."])
    wrong = rng.choice([str(a + b + rng.randrange(1, 9)), f"{WORDS[a]} and {WORDS[b]}, I think"])
    return asked, right + rng.choice(ASIDES), wrong + rng.choice(ASIDES)


def demonstrations(count, seed):
    rng = random.Random(seed)
    return [{"prompt": p, "completion": c} for p, c, _ in (addition(rng) for _ in range(count))]


def preferences(count, seed):
    rng = random.Random(seed)
    return [{"prompt": p, "chosen": c, "rejected": r} for p, c, r in (addition(rng) for _ in range(count))]


def rollouts(count, group, tokenizer, max_tokens, seed):
    """Prompts, each with fixed completions (token ids) and scores; the first group has the same score four times."""
    rng = random.Random(seed)
    found = []
    for at in range(count):
        prompt, _, _ = addition(rng)
        prompt = f"{at}: {prompt}"
        completions = []
        for _ in range(group):
            ids = tokenizer(rng.choice(addition(rng)[1:]))["input_ids"][: max_tokens - 1]
            # Some stop, some are cut at the limit.
            ids = ids + [1] if rng.random() < 0.7 else (ids * max_tokens)[:max_tokens]
            completions.append({"ids": ids, "score": 1.0 if at == 0 else rng.choice([0.0, 0.25, 1.0, -0.5])})
        found.append({"prompt": prompt, "completions": completions})
    return found
