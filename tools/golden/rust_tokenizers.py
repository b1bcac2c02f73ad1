"""Tokenizers of every kind, trained on a corpus written here, and what the Rust library makes of 10,000 strings.

Writes test/golden/tokenizers/rust/: one <name>.json.gz per tokenizer, strings.json.gz, and expected.json.gz with, per
tokenizer, two three-byte hashes per string (ids; decoded texts) in base64 and the full ids of the first strings.

    pip install tokenizers==0.23.3 sentencepiece==0.2.1 protobuf
    python tools/golden/rust_tokenizers.py

Tokenizers that are there already are kept: the library's training takes hash maps in any order. Delete one to train it
anew.
"""

import base64
import gzip
import hashlib
import io
import json
import os
import random
import unicodedata

import sentencepiece
import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "test", "golden", "tokenizers", "rust")
SEED = 20261126
STRINGS = 10_000
WRITTEN_OUT = 150
VOCABULARY = 2000

random_ = random.Random(SEED)
pick = random_.choice
between = random_.randint

# --- the corpus -------------------------------------------------------------------------------------------------------

WORDS = {
    "english": "the of and to in is that for it as was with be by on not he his but at are this have from or had an they which one you were her all she there would their we him been has when who will more no if out so said what up its about into than them can only other new some could time these two may then do first any my now such like our over man me even most made after also did many before must through years where much your way well down should because each just those people take day good how long little see great world year still own work life being between never last might another while us off came go school state here hand part house place old right night left small light government tokenization unhappiness internationalization".split(),
    "latin": "café über straße naïve façade señor Ærøskøbing Zürich łódź Dvořák garçon coöperate piñata Ångström İstanbul ışık ŠKODA Œuvre ñandú ﬁnance ﬂow ſtraße groß GROSSE Tiếng Việt".split(),
    "greek": "ΟΔΥΣΣΕΥΣ λόγος ΣΑΣ Σίσυφος άνθρωπος ΑΣ. ελληνικά ᾳ ΰ".split(),
    "cyrillic": "Привет мир съешь ещё этих мягких французских булок да выпей чаю Київ їжак".split(),
    "chinese": "中文 你好 世界 我們 学习 機器學習 模型 语言 数据 人工智能 训练 北京 的 了 是 在 有 𠀀𠮷 㐀 豈".split(),
    "japanese": "日本語 ひらがな カタカナ テスト ﾊﾝｶｸ 食べる 東京 ガ が ー 々 こんにちは".split(),
    "korean": "한국어 안녕하세요 세계 각 ᄒᆞᆫ 가나다".split(),
    "arabic": "مرحبا بالعالم العربية السَّلَامُ عَلَيْكُمْ ٱللَّه ١٢٣ ۴۵ کتاب می‌خواهم לשלום עִבְרִית".split(),
    "hindi": "नमस्ते दुनिया हिन्दी क्षेत्र १२३ विद्यार्थी தமிழ் ไทย สวัสดี ภาษา বাংলা ক্ষ".split(),
    "emoji": "🙂 😀 👩‍👩‍👧‍👦 🇩🇪 🇯🇵 👍🏽 ❤️ 🏳️‍🌈 ☃ ✂️ 🤷🏻‍♀️ 1️⃣ 👨‍💻 🫠".split(),
    "numbers": "0 1 42 407 1234 1234567 3.14159 1,000,000 ½ ² ③ Ⅷ ١٢٣ 12:30 2026-11-26 0x1F 1e-5 ༣ 𝟘".split(),
    "contractions": "I'll don't we've they'RE he's I'm you'd IT'S o'clock rock'n'roll 'tis dogs' I’ll it’s 'ſ 'K DON'T".split(),
    "code": ["def f(x):\n    return x + 1\n", "for (let i = 0; i < n; i++) {\n\tsum += a[i];\n}", "#include <stdio.h>", "if(!ok){throw new Error(`${x}`);}", "SELECT * FROM t WHERE id=10;", "https://example.com/a?b=c&d=%20#e", "snake_case_name camelCaseName CONST_VALUE", "{\"key\": [1, 2.5, null, true]}", "a->b::c<T>()", "// ----------", "==> <= >= != && || ...", "\\begin{equation}x^{2}\\end{equation}", "<div class='x'>&nbsp;</div>", "user@mail.org", "C:\\path\\file.txt", "    return None", "\t\t\tdeep", "x=y;;;"],
    "combining": ["e\u0301", "a\u0308\u0323", "Z\u0351\u036b\u0343a\u0314l\u0334g\u0362o\u035f", "\u1e9b\u0323", "q\u0307\u0323", "\u0627\u0653", "\u212b", "\u1100\u1161\u11a8", "n\u0303", "\u0301alone", "क\u094dष", "\u0e33"],
    "control": ["\u0000", "\u0001\u0002", "\u0007", "\u001b[31m", "\u007f", "\u0085", "\u00ad", "\u200b", "\u200d", "\u200e", "\u202e", "\u2028", "\u2029", "\u2060", "\ufeff", "\ufffd", "\ufffd\ufffd", "\ufffc", "\ue000", "\u0378", "\U000e0001", "\U0010ffff", "\u2581", "\u2581\u2581x", "\u0120", "\u010a"],
    "space": [" ", "  ", "   ", "\t", "\n", "\r\n", "\r", "\n\n", " \n", "\n ", "\u00a0", "\u3000", "\u2003", "\u1680", "\u202f", "\x0b", "\x0c", "\n\n\n\n", "        ", "\r\n\r\n", " \t "],
    "punctuation": list(".,;:!?-–—…\"'`“”‘’«»()[]{}<>/\\|@#$%^&*_+=~§¶†‡•°€£¥©®™×÷¿¡、。！？「」，：") + [" .", " ,", " '", " n't", " do not", "...", "!!!", "?!", "--", "“”", " 's", " ' "],
    "special": ["<s>", "</s>", "<unk>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "[MASK]", " [MASK] ", "[CLS]", "<mask>", "  <mask>  ", "x<mask>y", "<tool_call>", "<0x0A>", "<0xFF>", "Word", " Word ", "wOrd", "Words", "ÉTÉ", "été", "e\u0301te\u0301", "<|im_en", "<extra_id_0>", "<|eot_id|>", "newtoken", "new token", "\n\n\n", "▁▁", "##ing", "@@"],
}
KINDS = list(WORDS)
PROSE = ["english"] * 8 + ["latin", "greek", "cyrillic", "chinese", "japanese", "korean", "arabic", "hindi", "numbers", "contractions"]


def word(kind):
    text = pick(WORDS[kind])
    chance = random_.random()
    if chance < 0.08:
        return text.upper()
    if chance < 0.16:
        return text.capitalize()
    return text


def prose():
    return " ".join(word(pick(PROSE)) + (pick(",.;:!?") if random_.random() < 0.12 else "") for _ in range(between(2, 14)))


def mixed():
    return "".join(word(pick(KINDS)) + (pick([" ", " ", " ", "", "\n"])) for _ in range(between(1, 12)))


def squeezed():
    kinds = [pick(KINDS), pick(KINDS)]
    return "".join(word(pick(kinds)) for _ in range(between(1, 14)))


def code():
    return pick(["\n", "\r\n", "\n\n", "\n    "]).join(word("code") for _ in range(between(1, 4)))


def run():
    return word(pick(KINDS)) + pick(["a", " ", "é", "\n", "中", "-", "🙂", "0", "ab", "\u0301", "▁", "x" * 50, "\u00a0", "ن"]) * between(5, 90) + word(pick(KINDS))


def noise():
    def character():
        high = pick([0x80, 0x80, 0x250, 0x3000, 0xA000, 0x10000, 0x20000])
        code = random_.randrange(high)
        return "\ufffd" if 0xD800 <= code < 0xE000 else chr(code)

    return "".join(character() for _ in range(between(1, 24)))


def is_old(character):
    """Whether Unicode 3.2 had the character: of newer ones, the tables of the libraries know different parts."""
    return unicodedata.ucd_3_2_0.category(character) != "Cn"


def text():
    make = random_.choices([prose, mixed, squeezed, code, run, noise], [30, 30, 14, 8, 6, 12])[0]
    return "".join(c for c in make() if is_old(c) or c in KNOWN)


KNOWN = set("".join("".join(words) for words in WORDS.values()))


def corpus():
    lines = [text() for _ in range(4000)]
    return [line for line in lines if "\u2581" not in line]


# --- tokenizers -------------------------------------------------------------------------------------------------------

LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
O200K = "|".join(
    [
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)
DEEPSEEK = [
    r"\p{N}{1,3}",
    r"[一-龥぀-ゟ゠-ヿ]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
METASPACE_DECODER = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]


def special(content, **options):
    return AddedToken(content, special=True, normalized=options.pop("normalized", False), **options)


def template(tokenizer, single):
    names = [part for part in single.split() if part != "$A"]
    return processors.TemplateProcessing(single=single, pair=single + " $B:1", special_tokens=[(n, tokenizer.token_to_id(n)) for n in names])


def byte_level(lines, pre_tokenizer, tokens, normalizer=None, **options):
    tokenizer = Tokenizer(models.BPE(**options))
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=VOCABULARY, initial_alphabet=alphabet, show_progress=False))
    tokenizer.add_special_tokens([special(token) for token in tokens])
    return tokenizer


def splits(*patterns):
    parts = [pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in patterns]
    return pre_tokenizers.Sequence([*parts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def byte_fallback(lines, changes, special_tokens=("<unk>", "<s>", "</s>")):
    """SentencePiece-style BPE: trained on cut words, then used on whole texts."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    plain = [line for line in lines if all(ord(c) < 0x500 for c in line)]
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=[*special_tokens, *BYTES], show_progress=False, limit_alphabet=200)
    tokenizer.train_from_iterator(plain, trainer)
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = [token for token in data["added_tokens"] if not token["content"].startswith("<0x")]
    data["pre_tokenizer"] = None
    tokenizer = Tokenizer.from_str(json.dumps(data))
    changes(tokenizer)
    return tokenizer


def unigram(lines, byte_tokens, normalizer, scheme, split):
    tokenizer = Tokenizer(models.Unigram())
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=True)
    plain = [line for line in lines if all(ord(c) < 0x3100 for c in line)]
    names = ["<pad>", "</s>", "<unk>", *(BYTES if byte_tokens else [])]
    tokenizer.train_from_iterator(plain, trainers.UnigramTrainer(vocab_size=VOCABULARY, special_tokens=names, unk_token="<unk>", show_progress=False))
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = [token for token in data["added_tokens"] if not token["content"].startswith("<0x")]
    data["model"]["byte_fallback"] = byte_tokens
    data["model"]["vocab"] = [[token, round(score, 6)] for token, score in data["model"]["vocab"]]
    tokenizer = Tokenizer.from_str(json.dumps(data))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=split)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme=scheme, split=split)
    return tokenizer


def charsmap():
    """The compiled table of SentencePiece's default rules, nmt_nfkc."""
    from sentencepiece import sentencepiece_model_pb2 as pb

    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a b c d e f"] * 20), model_writer=file, vocab_size=10, normalization_rule_name="nmt_nfkc", minloglevel=2
    )
    model = pb.ModelProto()
    model.ParseFromString(file.getvalue())
    return model.normalizer_spec.precompiled_charsmap


def gpt2(lines):
    tokenizer = byte_level(lines, pre_tokenizers.ByteLevel(add_prefix_space=False), ["<|endoftext|>"])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    return tokenizer


def roberta(lines):
    tokenizer = byte_level(lines, pre_tokenizers.ByteLevel(add_prefix_space=True), ["<s>", "</s>", "<unk>"])
    tokenizer.add_special_tokens([special("<mask>", lstrip=True)])
    tokenizer.add_tokens([AddedToken("Word", single_word=True), AddedToken("é", normalized=False)])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", tokenizer.token_to_id("</s>")), ("<s>", tokenizer.token_to_id("<s>")))
    return tokenizer


def llama3(lines):
    tokenizer = byte_level(lines, splits(LLAMA3), ["<|begin_of_text|>", "<|eot_id|>", "<|im_end|>"], ignore_merges=True)
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template(tokenizer, "<|begin_of_text|> $A")])
    return tokenizer


def qwen2(lines):
    tokenizer = byte_level(lines, splits(QWEN2), ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], normalizer=normalizers.NFC())
    tokenizer.add_tokens([AddedToken("<tool_call>", normalized=False), AddedToken("ÉTÉ", normalized=True)])
    return tokenizer


def o200k(lines):
    return byte_level(lines, splits(O200K), ["<|endoftext|>"])


def deepseek(lines):
    tokenizer = byte_level(lines, splits(*DEEPSEEK), ["<s>", "</s>"])
    tokenizer.post_processor = template(tokenizer, "<s> $A")
    return tokenizer


def llama2(lines):
    def changes(tokenizer):
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.decoder = decoders.Sequence([*METASPACE_DECODER, decoders.Strip(" ", 1, 0)])
        tokenizer.post_processor = template(tokenizer, "<s> $A")

    return byte_fallback(lines, changes)


def mistral(lines):
    def changes(tokenizer):
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        tokenizer.decoder = decoders.Sequence([*METASPACE_DECODER, decoders.Strip(" ", 1, 0)])
        tokenizer.add_special_tokens([special("<|im_end|>")])
        tokenizer.post_processor = template(tokenizer, "<s> $A")

    return byte_fallback(lines, changes)


def gemma(lines):
    def changes(tokenizer):
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
        tokenizer.decoder = decoders.Sequence(METASPACE_DECODER)
        tokenizer.add_tokens([AddedToken(text, normalized=False) for text in ["\n\n", "\n\n\n", "▁▁", "▁▁▁", "<tool_call>"]])
        tokenizer.post_processor = template(tokenizer, "<s> $A")

    return byte_fallback(lines, changes)


def t5(lines):
    tokenizer = unigram(lines, False, normalizers.NFKC(), "always", True)
    tokenizer.add_special_tokens([special("<extra_id_0>", lstrip=True, rstrip=True)])
    tokenizer.post_processor = template(tokenizer, "$A </s>")
    return tokenizer


def unigram_bytes(lines):
    tokenizer = unigram(lines, True, None, "first", False)
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first", split=False)])
    return tokenizer


def xlmr(lines):
    normalizer = normalizers.Sequence([normalizers.Precompiled(charsmap()), normalizers.Strip(left=False, right=True), normalizers.Replace(Regex(" {2,}"), "▁")])
    tokenizer = unigram(lines, False, normalizers.NFKC(), "always", True)
    tokenizer.normalizer = normalizer
    tokenizer.add_special_tokens([special("<s>"), special("<mask>", lstrip=True)])
    tokenizer.post_processor = template(tokenizer, "<s> $A </s>")
    return tokenizer


def word_piece(lines, lowercase):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=30))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=VOCABULARY, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], show_progress=False)
    tokenizer.train_from_iterator(lines, trainer)
    tokenizer.decoder = decoders.WordPiece(cleanup=lowercase)
    return tokenizer


def bert(lines):
    tokenizer = word_piece(lines, True)
    tokenizer.add_tokens([AddedToken("newToken", single_word=True), AddedToken("ÉTÉ", rstrip=True)])
    tokenizer.post_processor = template(tokenizer, "[CLS] $A [SEP]")
    return tokenizer


def bert_cased(lines):
    tokenizer = word_piece(lines, False)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def clip(lines):
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>", fuse_unk=False))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), behavior="removed", invert=True)
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=["<unk>"], end_of_word_suffix="</w>", limit_alphabet=150, show_progress=False)
    tokenizer.train_from_iterator(lines, trainer)
    tokenizer.decoder = decoders.BPEDecoder(suffix="</w>")
    return tokenizer


def prefix_bpe(lines):
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", continuing_subword_prefix="##", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKD(), normalizers.StripAccents(), normalizers.Strip()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.Digits(individual_digits=False)]
    )
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=["<unk>"], continuing_subword_prefix="##", limit_alphabet=150, show_progress=False)
    tokenizer.train_from_iterator(lines, trainer)
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    return tokenizer


def word_level(lines):
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.CharDelimiterSplit("-"), pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation("merged_with_next"), pre_tokenizers.Digits(individual_digits=True)]
    )
    tokenizer.train_from_iterator(lines, trainers.WordLevelTrainer(vocab_size=VOCABULARY, special_tokens=["<unk>"], show_progress=False))
    return tokenizer


MAKERS = [gpt2, roberta, llama3, qwen2, o200k, deepseek, llama2, mistral, gemma, t5, unigram_bytes, xlmr, bert, bert_cased, clip, prefix_bpe, word_level]

# --- what is expected -------------------------------------------------------------------------------------------------


def hash3(text):
    return hashlib.sha256(text.encode()).digest()[:3]


def numbers(ids):
    return ",".join(map(str, ids))


def write(name, value):
    data = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    with open(os.path.join(ROOT, name + ".json.gz"), "wb") as file:
        file.write(gzip.compress(data, 9, mtime=0))


def read(name):
    with gzip.open(os.path.join(ROOT, name + ".json.gz"), "rt", encoding="utf-8") as file:
        return Tokenizer.from_str(file.read())


def main():
    os.makedirs(ROOT, exist_ok=True)
    lines = corpus()
    strings = ["", " ", "Hello world"]
    seen = set(strings)
    while len(strings) < STRINGS:
        candidate = text()
        if candidate not in seen:
            seen.add(candidate)
            strings.append(candidate)
    write("strings", strings)
    cases = {}
    for make in MAKERS:
        name = make.__name__.replace("_", "-")
        if not os.path.exists(os.path.join(ROOT, name + ".json.gz")):
            write(name, json.loads(make(lines).to_str()))
        tokenizer = read(name)
        encoded, decoded, written = b"", b"", []
        for index, string in enumerate(strings):
            ids = tokenizer.encode(string).ids
            bare = tokenizer.encode(string, add_special_tokens=False).ids
            encoded += hash3(numbers(ids) + ";" + numbers(bare))
            # Backwards, characters are torn into bytes that are no UTF-8.
            texts = [tokenizer.decode(ids, skip_special_tokens=False), tokenizer.decode(ids), tokenizer.decode(bare[::-1], skip_special_tokens=False)]
            decoded += hash3("\x1f".join(texts))
            if index < WRITTEN_OUT:
                written.append({"ids": ids, "decoded": texts})
        cases[name] = {"ids": base64.b64encode(encoded).decode(), "decoded": base64.b64encode(decoded).decode(), "written": written}
        print(name, tokenizer.get_vocab_size(), len({i for s in strings[:2000] for i in tokenizer.encode(s).ids}), flush=True)
    versions = {"tokenizers": tokenizers.__version__, "sentencepiece": sentencepiece.__version__}
    write("expected", {"source": "tools/golden/rust_tokenizers.py", "seed": SEED, "libraries": versions, "cases": cases})


if __name__ == "__main__":
    main()
