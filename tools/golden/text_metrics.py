"""Sentence metrics by the packages that define them: sacrebleu, rouge-score and pycocoevalcap.

    pip install sacrebleu==2.6.0 rouge-score==0.1.2 pycocoevalcap==1.2
    python tools/golden/text_metrics.py

The written sets are one case each; the drawn ones come from a seed. CIDEr-D takes all sets as one corpus. Its package
always counts n-grams up to 4: for other orders the counts are made by the package's own `precook` with that order (2 or
more: its lengths are numbers of bigrams).
"""

import json
import os
import random
from importlib.metadata import version

from pycocoevalcap.cider.cider_scorer import CiderScorer, precook
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU

PATH = os.path.join(os.path.dirname(__file__), "..", "..", "test", "golden", "textMetrics.json")
SEED = 20261125
PACKAGES = ["sacrebleu", "rouge-score", "pycocoevalcap", "numpy"]

WRITTEN = [
    ("equal", "the cat sat on the mat", ["the cat sat on the mat"]),
    ("candidate shorter", "the cat sat", ["the cat sat on the mat"]),
    ("candidate longer", "the cat sat on the mat and slept all day", ["the cat sat on the mat"]),
    ("no word shared", "dogs run fast", ["the cat sat on the mat"]),
    ("words shared, no bigram", "mat the on cat", ["the cat sat on a mat"]),
    ("reversed", "mat the on sat cat the", ["the cat sat on the mat"]),
    ("repeated word", "the the the the the the the", ["the cat is on the mat", "there is a cat on the mat"]),
    ("repeated in the reference", "very good", ["very very very good indeed"]),
    ("repeated bigram", "a b a b a b c", ["a b c a b d", "b a b"]),
    ("empty candidate", "", ["the cat sat"]),
    ("blank candidate", "  \t\n ", ["the cat sat"]),
    ("empty reference", "the cat sat", [""]),
    ("one empty reference of two", "the cat sat", ["", "the cat sat down"]),
    ("both empty", "", [""]),
    ("one word, equal", "yes", ["yes"]),
    ("one word, other", "yes", ["no"]),
    ("one word of three", "cat", ["the cat sat"]),
    ("two words", "the cat", ["the cat sat"]),
    ("two words, equal", "the cat", ["the cat"]),
    ("two words exchanged", "cat the", ["the cat"]),
    ("three words, equal", "the cat sat", ["the cat sat"]),
    ("three words, one wrong", "the dog sat", ["the cat sat"]),
    ("three words against one", "the cat sat", ["cat"]),
    ("nearest length tied", "a b c d", ["a b c d e f", "a b"]),
    ("nearest length tied, shorter first", "a b c d", ["a b", "a b c d e f"]),
    ("shortest is not nearest", "a b c d e", ["a", "a b c d e f g", "a b c d x y"]),
    ("several references", "a man rides a horse", ["a man is riding a horse", "the man rides a brown horse", "someone on a horse"]),
    ("references that complement", "a b c d e f", ["a b c x y z", "u v w d e f"]),
    ("same reference twice", "a b d", ["a b c", "a b c"]),
    ("rouge ties", "a b", ["a x", "b y", "a b c d e f"]),
    ("capitals", "The Cat Sat On The Mat", ["the cat sat on the mat"]),
    ("full stop", "The cat sat on the mat.", ["The cat sat on the mat"]),
    ("punctuation", "Hello, world! (It's me.)", ["Hello world, it is me!", "Hello, world -- it's me."]),
    ("quotes and entities", "&quot;Stop&quot; &amp; go &lt;now&gt;", ['"Stop" & go <now>']),
    ("entity of an entity", "&amp;lt; a", ["< a", "&lt; a"]),
    ("skipped", "a <skipped>b c", ["a b c"]),
    ("hyphenated", "a state-of-the-art model", ["a state of the art model", "state-of-the-art"]),
    ("dash at a line's end", "inter-\nnational law\nof sea", ["international law of sea"]),
    ("dash at the end", "so it ends-\n", ["so it ends-", "so it ends"]),
    ("nothing but a dash at the end", "it ends-\n", ["it ends-"]),
    ("slashes", "a/b and/or c", ["a / b and / or c", "and/or"]),
    ("dash before blanks at the end", "ends-  \n ", ["ends-", "ends - "]),
    ("numbers", "it costs 1,234.50 or 3-4 dollars", ["it costs 1,234.50 or 3 - 4 dollars"]),
    ("numbers with other points", "v1.2.3, 0.5. 7,8,", ["v1.2.3 , 0.5 . 7,8 ,", "1.2"]),
    ("number at the end", "in 1999.", ["in 1999 .", "in 1999."]),
    ("points next to letters", "a.b ,c .5 6. d,7", ["a . b , c .5 6 . d ,7"]),
    ("points in a row", "wait... what?!", ["wait ... what ? !", "wait. . . what?"]),
    ("currencies and signs", "$5 + 20% = x_1^2 * [y]{z} ~ a|b \\ `c` @d #e; f:g / h", ["$ 5 + 20 % = x _ 1 ^ 2 * y z"]),
    ("apostrophes", "don't won't 'tis", ["do n't won't ' tis", "don't won't 'tis"]),
    ("accents", "caf\u00e9 na\u00efve \u00fcber", ["caf\u00e9 naive \u00fcber", "cafe na\u00efve"]),
    ("composed and not", "cafe\u0301", ["caf\u00e9"]),
    ("Cyrillic", "\u043a\u043e\u0442 \u0441\u0438\u0434\u0438\u0442 \u043d\u0430 \u043a\u043e\u0432\u0440\u0435", ["\u043a\u043e\u0442 \u0441\u043f\u0438\u0442 \u043d\u0430 \u043a\u043e\u0432\u0440\u0435"]),
    ("Chinese", "\u732b\u5750\u5728\u57ab\u5b50\u4e0a\u3002", ["\u732b\u5728\u57ab\u5b50\u4e0a\u3002", "\u4e00\u53ea\u732b"]),
    ("emoji", "good \U0001f600\U0001f600. bad", ["good \U0001f600 \U0001f600 . bad", "\U0001f600.x"]),
    ("emoji before a point", "\U0001f600. \U0001f602,", ["\U0001f600 . \U0001f602 ,"]),
    ("typographic", "\u201cquoted\u201d \u2014 dash\u2026", ['"quoted" - dash...', "\u201cquoted\u201d \u2014 dash"]),
    ("white space of Unicode", "a\u00a0b\u2003c\u3000d", ["a b c d"]),
    ("white space that only Python knows", "a\u0085b\u001cc d", ["a b c d"]),
    ("no white space to Python", "a\ufeffb c", ["a b c"]),
    ("tabs and breaks", "a\tb\r\nc  d", ["a b c d"]),
    ("capital beyond ASCII", "\u00dcBER \u0130stanbul \u212aelvin \u03a3\u03a3", ["\u00fcber istanbul kelvin \u03c3\u03c2"]),
    ("names of objects' members", "constructor __proto__ toString", ["constructor __proto__ valueOf"]),
    ("five words", "one two three four five", ["one two three four six"]),
    ("gaps for the subsequence", "a x b y c z d", ["a b c d", "q a b q c d q"]),
]

BLEU_SETTINGS = [
    dict(),
    dict(smoothing="floor"),
    dict(smoothing="floor", smoothValue=0.37),
    dict(smoothing="floor", smoothValue=0),
    dict(smoothing="add-k"),
    dict(smoothing="add-k", smoothValue=0.25),
    dict(smoothing="add-k", smoothValue=0),
    dict(smoothing="none"),
    dict(tokenize="none"),
    dict(tokenize="char"),
    dict(tokenize="char", smoothing="none"),
    dict(lowercase=True),
    dict(maxOrder=1),
    dict(maxOrder=2, smoothing="none"),
    dict(maxOrder=6),
]
ROUGE_ORDERS = [1, 2, 3, 4]
CIDER_SETTINGS = [
    dict(),
    dict(lowercase=True),
    dict(sigma=1.5),
    dict(maxOrder=2),
    dict(maxOrder=3, sigma=20),
]


def drawn_sets(rng):
    words = "a b c the of to red blue cat dog runs sat . , 12 x-y".split()
    for index in range(24):
        count = rng.choice([1, 1, 2, 3, 5])
        references = [[rng.choice(words) for _ in range(rng.randint(1, 12))] for _ in range(count)]
        candidate = list(rng.choice(references))
        for _ in range(rng.randint(0, 4)):
            at = rng.randrange(len(candidate) + 1)
            if rng.random() < 0.5:
                candidate.insert(at, rng.choice(words))
            elif len(candidate) > 1:
                del candidate[at - 1]
        yield (f"drawn {index}", " ".join(candidate), [" ".join(reference) for reference in references])


def bleu_values(sets, settings):
    metric = BLEU(
        lowercase=settings.get("lowercase", False),
        tokenize=settings.get("tokenize", "13a"),
        smooth_method=settings.get("smoothing", "exp"),
        smooth_value=settings.get("smoothValue"),
        max_ngram_order=settings.get("maxOrder", 4),
        effective_order=True,
    )
    return [metric.sentence_score(candidate, references).score for _, candidate, references in sets]


def rouge_values(sets):
    names = [f"rouge{n}" for n in ROUGE_ORDERS] + ["rougeL"]
    scorer = RougeScorer(names, use_stemmer=False)
    for _, candidate, references in sets:
        scores = scorer.score_multi(references, candidate)
        yield {name: [scores[name].precision, scores[name].recall, scores[name].fmeasure] for name in names}


def cider_values(sets, settings):
    order = settings.get("maxOrder", 4)
    scorer = CiderScorer(n=order, sigma=settings.get("sigma", 6.0))
    change = str.lower if settings.get("lowercase") else str
    for _, candidate, references in sets:
        scorer.ctest.append(precook(change(candidate), order))
        scorer.crefs.append([precook(change(reference), order) for reference in references])
    return [float(value) for value in scorer.compute_score()[1]]


def main():
    sets = WRITTEN + list(drawn_sets(random.Random(SEED)))
    golden = {
        "generator": "tools/golden/text_metrics.py",
        "versions": {name: version(name) for name in PACKAGES},
        "seed": SEED,
        "sets": [dict(name=n, candidate=c, references=r) for n, c, r in sets],
        "bleu": [dict(settings=s, scores=bleu_values(sets, s)) for s in BLEU_SETTINGS],
        "rouge": list(rouge_values(sets)),
        "ciderD": [dict(settings=s, scores=cider_values(sets, s)) for s in CIDER_SETTINGS],
    }
    with open(PATH, "w", encoding="utf-8") as file:
        lines = (f" {json.dumps(key)}: {json.dumps(value)}" for key, value in golden.items())
        file.write("{\n" + ",\n".join(lines) + "\n}\n")
    print(len(sets), "sets")


main()
