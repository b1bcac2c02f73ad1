"""Writes test/golden/tokenizers: small tokenizers of the common kinds, and what transformers makes of hard strings.

Run after `npx tsx tools/golden/madeTokenizers.ts`, with transformers, tokenizers and jinja2 installed:

    python tools/golden/text_tokenizers.py

Nothing is random. The expected values come from the Rust tokenizers library and Python's Jinja, never from posttrain.
"""

import json
import os

import tokenizers
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

ROOT = os.path.join(os.path.dirname(__file__), "..", "..", "test", "golden")
FOLDER = os.path.join(ROOT, "tokenizers")
with open(os.path.join(FOLDER, "corpus.txt"), encoding="utf-8") as file:
    CORPUS = file.read()

LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_SPLIT = LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")

# Written for these tests, in the manner of the published templates.
LLAMA3_TEMPLATE = """{{- bos_token }}
{%- if tools is not none %}
    {{- '<|start_header_id|>system<|end_header_id|>\\n\\nTools: ' }}
    {%- for tool in tools %}
        {{- tool | tojson(indent=4) }}
        {{- '\\n' }}
    {%- endfor %}
    {{- '<|eot_id|>' }}
{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if message.tool_calls | length != 1 %}
            {{- raise_exception('This model only supports single tool-calls at once!') }}
        {%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
        {{- '{"name": "' + call.name + '", "parameters": ' + (call.arguments | tojson) + '}<|eot_id|>' }}
    {%- else %}
        {{- '<|start_header_id|>ipython<|end_header_id|>\\n\\n' }}
        {%- if message.content is mapping or message.content is iterable and message.content is not string %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
CHATML_TEMPLATE = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\\n\\n' }}
    {%- endif %}
    {{- '# Tools\\n<tools>' }}
    {%- for tool in tools %}
        {{- '\\n' }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- '\\n</tools><|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- else %}
    {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif %}
{% for message in messages %}
    {%- if message.role == 'user' or message.role == 'assistant' and not message.tool_calls %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- elif message.role == 'assistant' %}
        {{- '<|im_start|>assistant' }}
        {%- if message.content %}
            {{- '\\n' + message.content }}
        {%- endif %}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}
                {%- set tool_call = tool_call.function %}
            {%- endif %}
            {{- '\\n<tool_call>\\n{"name": "' }}
            {{- tool_call.name }}
            {{- '", "arguments": ' }}
            {{- tool_call.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == 'tool' %}
        {%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""
LLAMA2_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + ' ' + eos_token }}{% endif %}{% endfor %}"
)


def special(content):
    return AddedToken(content, special=True, normalized=False)


def bos(token, tokenizer):
    """Post-processor that puts BOS first."""
    return processors.TemplateProcessing(
        single=f"{token} $A", pair=f"{token} $A {token}:1 $B:1", special_tokens=[(token, tokenizer.token_to_id(token))]
    )


def byte_level(split, vocab_size, tokens, ignore_merges, normalizer=None):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        [CORPUS], trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    )
    tokenizer.add_special_tokens([special(token) for token in tokens])
    return tokenizer


def make_llama3():
    tokens = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    tokenizer = byte_level(LLAMA3_SPLIT, 480, tokens, ignore_merges=True)
    tokenizer.post_processor = processors.Sequence(
        [processors.ByteLevel(trim_offsets=False), bos("<|begin_of_text|>", tokenizer)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
        clean_up_tokenization_spaces=True,
        chat_template=LLAMA3_TEMPLATE,
    )


def make_qwen():
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = byte_level(QWEN_SPLIT, 470, tokens, ignore_merges=False, normalizer=normalizers.NFC())
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in ["<tool_call>", "</tool_call>", "<think>", "</think>"]])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        chat_template=CHATML_TEMPLATE,
    )


def make_sentencepiece():
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    # Trained with the words split, then used without: as SentencePiece models are.
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=True)
    plain = [line for line in CORPUS.splitlines() if all(ord(c) < 0x250 for c in line)]
    trainer = trainers.BpeTrainer(
        vocab_size=480, special_tokens=["<unk>", "<s>", "</s>", *byte_tokens], show_progress=False
    )
    tokenizer.train_from_iterator(plain, trainer)
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = [token for token in data["added_tokens"] if not token["content"].startswith("<0x")]
    tokenizer = Tokenizer.from_str(json.dumps(data))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = bos("<s>", tokenizer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        chat_template=LLAMA2_TEMPLATE,
    )


TEXTS = [
    "",
    "Hello world",
    " leading space",
    "  two leading, trailing  ",
    "line\nbreak\r\nand\n\n\nmore\t\ttabs",
    "407+086=493 and 1234567",
    "I'll SAY it's they'RE don't",
    "The café is über-groß: naïve façade",
    "e\u0301 composed later",
    "日本語のテキスト、中文。",
    "🙂👩‍👩‍👧‍👦🇩🇪 emoji",
    "Привет, мир!",
    "\u00a0non-breaking\u200bzero width\ufeffbom",
    "text with <|im_end|> and <|eot_id|> and </s> inside",
    "<s>already<|begin_of_text|>",
    "func(a, b){ return a+b; } // code . , !",
    "x\u0000y",
    "aaaaaaaaaaaa banana bandana",
    "<think>\nmaybe\n</think>",
    "ﬁ ligature Ａ ½ ²",
]
MADE_TEXTS = ["407+086=493<eos>", "0 + 1 = é日🙂", "", "99", "<bos>5"]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Adds <two> numbers & says “so”",
            "parameters": {"type": "object", "properties": {"a": {"type": "number", "default": 1.5}}, "required": ["a"]},
        },
    }
]
CHATS = [
    {"messages": [{"role": "user", "content": "Hi"}], "addGenerationPrompt": True},
    {
        "messages": [
            {"role": "system", "content": "Be short. "},
            {"role": "user", "content": " How much is 1+1?\n"},
            {"role": "assistant", "content": "2 🙂"},
        ],
        "addGenerationPrompt": False,
    },
    {
        "messages": [
            {"role": "user", "content": "Add 1 and 2"},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": [2, None, True, "é\"<"]}}}],
            },
            {"role": "tool", "content": "3"},
            {"role": "assistant", "content": "It is 3."},
            {"role": "user", "content": "Thanks"},
        ],
        "tools": TOOLS,
        "addGenerationPrompt": True,
    },
    {"messages": [{"role": "user", "content": "Hi"}], "addGenerationPrompt": True, "variables": {"enable_thinking": False}},
    {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}], "addGenerationPrompt": False},
    {"messages": [{"role": "assistant", "content": "wrong start"}], "addGenerationPrompt": False},
]


def encode_case(tokenizer, text):
    ids = tokenizer.encode(text)
    bare = tokenizer.encode(text, add_special_tokens=False)
    return {
        "text": text,
        "ids": ids,
        "idsWithoutSpecial": bare,
        "decoded": tokenizer.decode(ids),
        "decodedWithoutSpecial": tokenizer.decode(ids, skip_special_tokens=True),
        # Every prefix: cuts characters in the middle of their bytes.
        "decodedPrefixes": [tokenizer.decode(bare[:n]) for n in range(1, min(len(bare), 24))],
    }


def chat_case(tokenizer, chat):
    arguments = {"tools": chat.get("tools"), "add_generation_prompt": chat["addGenerationPrompt"], **chat.get("variables", {})}
    try:
        text = tokenizer.apply_chat_template(chat["messages"], tokenize=False, **arguments)
    except Exception as error:  # the template's own refusal
        return {**chat, "error": str(error)}
    ids = tokenizer.encode(text, add_special_tokens=False)
    return {**chat, "text": text, "ids": ids}


def trained_by_python(folder):
    """The merges that the tokenizers library itself learns from the corpus, with the settings of `trained`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=480,
        min_frequency=2,
        special_tokens=["<pad>", "<eos>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([CORPUS], trainer)
    return json.loads(tokenizer.to_str())["model"]


def main():
    for name, make in [("llama3", make_llama3), ("qwen", make_qwen), ("sentencepiece", make_sentencepiece)]:
        make().save_pretrained(os.path.join(FOLDER, name))

    cases = {}
    for name in ["llama3", "qwen", "sentencepiece", "characters", "trained"]:
        tokenizer = AutoTokenizer.from_pretrained(os.path.join(FOLDER, name))
        texts = MADE_TEXTS if name == "characters" else TEXTS
        cases[name] = {
            "class": type(tokenizer).__name__,
            "vocabSize": len(tokenizer),
            "bosTokenId": tokenizer.bos_token_id,
            "eosTokenId": tokenizer.eos_token_id,
            "padTokenId": tokenizer.pad_token_id,
            "texts": [encode_case(tokenizer, text) for text in texts],
            "chats": [chat_case(tokenizer, chat) for chat in CHATS] if tokenizer.chat_template else [],
        }
    golden = {
        "source": "tools/golden/text_tokenizers.py",
        "libraries": {"transformers": transformers.__version__, "tokenizers": tokenizers.__version__},
        "cases": cases,
        "trainedByPython": trained_by_python(FOLDER),
    }
    with open(os.path.join(ROOT, "tokenizers.json"), "w", encoding="utf-8") as file:
        json.dump(golden, file, ensure_ascii=True, separators=(",", ":"))
        file.write("\n")


if __name__ == "__main__":
    main()
