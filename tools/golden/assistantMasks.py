"""Writes test/golden/assistantMasks: a tokenizer, chat templates of the common kinds, and what transformers makes of them.

    python tools/golden/assistantMasks.py

with transformers and tokenizers. Nothing is random. The templates are written for these tests; of the published ones they
have the structure: which tokens begin and end a turn, where tools, system messages and thoughts stand. Expected texts,
ids and masks come from `apply_chat_template(return_assistant_tokens_mask=True)`.
"""

import json
from pathlib import Path

import tokenizers
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

GOLDEN = Path(__file__).parents[2] / "test" / "golden"
OUT = GOLDEN / "assistantMasks"
G, E = "{% generation %}", "{% endgeneration %}"

TEMPLATES = {
    "chatml": dict(
        bos=None,
        eos="<|im_end|>",
        text="{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' }}"
        "{% if message.role == 'assistant' %}" + G + "{{ message.content + '<|im_end|>' }}" + E + "{{ '\\n' }}"
        "{% else %}{{ message.content + '<|im_end|>\\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    ),
    # Tags on lines of their own: their line ends and indents are not part of the text.
    "llama3": dict(
        bos="<|begin_of_text|>",
        eos="<|eot_id|>",
        text="""{{- bos_token }}
{%- if tools is not none %}
    {{- '<|start_header_id|>system<|end_header_id|>\\n\\nTools:' }}
    {%- for tool in tools %}
        {{- '\\n' + (tool | tojson) }}
    {%- endfor %}
    {{- '<|eot_id|>' }}
{%- endif %}
{%- for message in messages %}
    {{- '<|start_header_id|>' + ('ipython' if message.role == 'tool' else message.role) + '<|end_header_id|>\\n\\n' }}
    {%- if message.role == 'assistant' %}
        {%- generation -%}
        {%- if message.tool_calls %}
            {{- '{"name": "' + message.tool_calls[0].function.name + '", "parameters": ' }}
            {{- message.tool_calls[0].function.arguments | tojson }}
            {{- '}' }}
        {%- else %}
            {{- message.content | trim }}
        {%- endif %}
        {{- '<|eot_id|>' }}
        {%- endgeneration -%}
    {%- else %}
        {{- message.content | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
""",
    ),
    "mistral": dict(
        bos="<s>",
        eos="</s>",
        text="{{- bos_token }}{%- for message in messages %}"
        "{%- if message.role == 'user' %}"
        "{%- if tools is not none and loop.last %}{{- '[AVAILABLE_TOOLS]' + (tools | tojson) + '[/AVAILABLE_TOOLS]' }}{%- endif %}"
        "{{- '[INST]' + message.content + '[/INST]' }}"
        "{%- elif message.tool_calls %}{% generation %}{{- '[TOOL_CALLS][' }}"
        "{%- for call in message.tool_calls %}{{- '{\"name\": \"' + call.function.name + '\", \"arguments\": ' + (call.function.arguments | tojson) + '}' }}"
        "{%- if not loop.last %}{{- ', ' }}{%- endif %}{%- endfor %}{{- ']' + eos_token }}{% endgeneration %}"
        "{%- elif message.role == 'assistant' %}{% generation %}{{- message.content + eos_token }}{% endgeneration %}"
        "{%- elif message.role == 'tool' %}{{- '[TOOL_RESULTS]' + message.content + '[/TOOL_RESULTS]' }}"
        "{%- else %}{{- raise_exception('Only user, assistant and tool messages are known') }}{%- endif %}{%- endfor %}",
    ),
    "gemma": dict(
        bos="<bos>",
        eos="<end_of_turn>",
        text="{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        "{% for message in messages %}"
        "{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}{% endif %}"
        "{% set role = 'model' if message.role == 'assistant' else message.role %}{{ '<start_of_turn>' + role + '\\n' }}"
        "{% if role == 'model' %}{% generation %}{{ message.content | trim + '<end_of_turn>' }}{% endgeneration %}{{ '\\n' }}"
        "{% else %}{{ message.content | trim + '<end_of_turn>\\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}",
    ),
    # Thoughts stay in answers after the last question only: earlier ones are written without them.
    "qwen3": dict(
        bos=None,
        eos="<|im_end|>",
        text="{%- set ns = namespace(last=0) %}{%- for message in messages %}{%- if message.role == 'user' %}{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}"
        "{%- for message in messages %}"
        "{%- if message.role == 'assistant' %}{{- '<|im_start|>assistant\\n' }}{% generation %}"
        "{%- if message.reasoning_content and loop.index0 > ns.last %}{{- '<think>\\n' + message.reasoning_content + '\\n</think>\\n\\n' }}{%- endif %}"
        "{{- message.content }}"
        "{%- for call in message.tool_calls or [] %}{{- '\\n<tool_call>\\n' + (call.function | tojson) + '\\n</tool_call>' }}{%- endfor %}"
        "{{- '<|im_end|>' }}{% endgeneration %}{{- '\\n' }}"
        "{%- elif message.role == 'tool' %}{{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}"
        "{%- else %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{%- endif %}"
        "{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}",
    ),
    "phi3": dict(
        bos=None,
        eos="<|end|>",
        text="{% for message in messages %}{{ '<|' + message.role + '|>\\n' }}"
        "{% if message.role == 'assistant' %}{% generation %}{{ message.content + '<|end|>' }}{% endgeneration %}{{ '\\n' }}"
        "{% else %}{{ message.content + '<|end|>\\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}",
    ),
    # Line ends between the parts of a turn are written by the template's own text.
    "zephyr": dict(
        bos=None,
        eos="</s>",
        text="{% for message in messages %}\n{% if message.role == 'user' %}\n{{ '<|user|>\\n' + message.content + eos_token }}\n"
        "{% elif message.role == 'system' %}\n{{ '<|system|>\\n' + message.content + eos_token }}\n"
        "{% elif message.role == 'assistant' %}\n{{ '<|assistant|>\\n' }}{% generation %}{{ message.content + eos_token }}{% endgeneration %}\n\n{% endif %}\n"
        "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>\\n' }}{% endif %}\n{% endfor %}",
    ),
}
SPECIAL = """<|endoftext|> <|im_start|> <|im_end|> <|begin_of_text|> <|start_header_id|> <|end_header_id|> <|eot_id|> <s> </s>
[INST] [/INST] [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] [TOOL_CALLS] [TOOL_RESULTS] [/TOOL_RESULTS] <bos> <start_of_turn>
<end_of_turn> <|system|> <|user|> <|assistant|> <|end|>""".split()
SPLIT = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def turn(role, content, **more):
    return dict(role=role, content=content, **more)


CALL = [dict(type="function", function=dict(name="add", arguments=dict(a=1, b="é")))]
TOOLS = [dict(type="function", function=dict(name="add", description="Adds", parameters=dict(type="object")))]
CHATS = {
    "one turn": dict(messages=[turn("user", "How much is 1+1?"), turn("assistant", "2 🙂")]),
    "three turns": dict(
        messages=[
            turn("user", "Hi"),
            turn("assistant", "Hello there!"),
            turn("user", " Größe? \n"),
            turn("assistant", "line\n\nbreak"),
            turn("user", "日本"),
            turn("assistant", "ok"),
        ]
    ),
    "a system message": dict(messages=[turn("system", "Be short."), turn("user", "Hi"), turn("assistant", "Yes")]),
    "tools": dict(
        tools=TOOLS,
        messages=[
            turn("user", "Add 1 and é"),
            turn("assistant", "", tool_calls=CALL),
            turn("tool", "1é"),
            turn("assistant", "It is 1é."),
        ],
    ),
    "thoughts": dict(
        messages=[
            turn("user", "Hi"),
            turn("assistant", "Hello", reasoning_content="greet"),
            turn("user", "Why?"),
            turn("assistant", "Because.", reasoning_content="think again"),
        ]
    ),
    "no answer": dict(messages=[turn("user", "Hi")]),
}


def make_tokenizer():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    corpus = (GOLDEN / "tokenizers" / "corpus.txt").read_text(encoding="utf-8")
    trainer = trainers.BpeTrainer(
        vocab_size=340, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([corpus], trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return tokenizer


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    backend = make_tokenizer()
    backend.save(str(OUT / "tokenizer.json"), pretty=False)
    cases = []
    for name, template in TEMPLATES.items():
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=backend,
            eos_token=template["eos"],
            bos_token=template["bos"],
            chat_template=template["text"],
            clean_up_tokenization_spaces=False,
        )
        for chat_name, chat in CHATS.items():
            made = {}
            try:
                arguments = dict(tools=chat.get("tools"))
                made["text"] = tokenizer.apply_chat_template(chat["messages"], tokenize=False, **arguments)
                made["prompt"] = tokenizer.apply_chat_template(
                    chat["messages"][:1], tokenize=False, add_generation_prompt=True, **arguments
                )
                marked = tokenizer.apply_chat_template(
                    chat["messages"], return_dict=True, return_assistant_tokens_mask=True, **arguments
                )
                made["ids"], made["mask"] = list(marked["input_ids"]), list(marked["assistant_masks"])
            except Exception as error:
                made = dict(error=str(error).split("\n")[0])
            cases.append(dict(template=name, chat=chat_name, **made))
    header = dict(
        generator="tools/golden/assistantMasks.py",
        versions=dict(transformers=transformers.__version__, tokenizers=tokenizers.__version__),
        templates=TEMPLATES,
        chats=CHATS,
    )
    text = json.dumps(header, ensure_ascii=False)[:-1] + ', "cases": [\n'
    text += ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases) + "\n]}\n"
    (OUT / "cases.json").write_text(text, encoding="utf-8")
    print(len(cases), "cases,", sum("error" in case for case in cases), "refused")


if __name__ == "__main__":
    main()
