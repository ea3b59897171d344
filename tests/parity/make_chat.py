#!/usr/bin/env python3
"""Golden files for chat templates and row formats, from transformers 5.23.0 and TRL 1.16.0.

    make_chat.py --out tests/parity/golden [--seed 0]

Writes a small byte-level tokenizer, four templates of the Llama-3, Qwen and ChatML kind (written for these tests), renderings with token ids and assistant masks
(chats.jsonl), and rows as TRL's SFTTrainer prepares them (rows.jsonl: ids and which labels count). Equality is exact.
"""
import argparse
import json
import pathlib
import random
import tempfile

import datasets
import tokenizers
import torch
import transformers
import trl

CHATML = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content | trim + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

CHATML_MARKED = """\
{% for message in messages %}
{{ '<|im_start|>' ~ message['role'] }}
{% if message['role'] == 'assistant' %}
{% generation %}
{{ message['content'] }}<|im_end|>
{% endgeneration %}

{% else %}
{{ message['content'] }}<|im_end|>
{% endif %}
{% endfor %}
{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}
"""

LLAMA3 = """\
{{- bos_token }}
{%- macro header(role) -%}<|head|>{{ role }}<|body|>
{% endmacro %}
{%- set ns = namespace(system=none) %}
{%- if messages[0]['role'] == 'system' %}
    {%- set ns.system = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- endif %}
{%- if ns.system is not none or tools %}
    {{- header('system') + '\\n' }}
    {%- if tools is not none %}
        {{- 'You may call:\\n' }}
        {%- for tool in tools %}
            {{- tool | tojson(indent=2) }}
            {{- '\\n' }}
        {%- endfor %}
    {%- endif %}
    {{- ns.system if ns.system }}{{- eos_token }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {{- header(message.role) + '\\n' }}
        {%- generation %}
            {%- if message.tool_calls is defined and message.tool_calls %}
                {%- for call in message.tool_calls %}
                    {{- call.function.name ~ '(' ~ call.function.arguments | tojson ~ ')' }}
                {%- endfor %}
            {%- else %}
                {{- message.content }}
            {%- endif %}
            {{- eos_token }}
        {%- endgeneration %}
    {%- elif message.role in ['user', 'tool'] %}
        {{- header(message.role) + '\\n' + message.content + eos_token }}
    {%- else %}
        {{- raise_exception('unknown role ' ~ message.role) }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- header('assistant') + '\\n' }}
{%- endif %}
"""

QWEN = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\\n\\n' }}
    {%- endif %}
    {{- "# Tools" }}
    {%- for tool in tools %}
        {{- "\\n" ~ (tool | tojson) }}
    {%- endfor %}
    {{- "<|im_end|>\\n" }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(last_query=messages | length - 1, searching=true) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages | length - 1) - loop.index0 %}
    {%- if ns.searching and message.role == "user" and message.content is string and not message.content.startswith('<reply>') %}
        {%- set ns.searching = false %}
        {%- set ns.last_query = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == "user" or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set thinking = '' %}
        {%- if message.reasoning_content is string %}
            {%- set thinking = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set thinking = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- '<|im_start|>' + message.role + '\\n' }}
        {%- generation %}
            {%- if loop.index0 > ns.last_query and (loop.last or thinking) %}
                {{- '<think>\\n' + thinking.strip('\\n') + '\\n</think>\\n\\n' }}
            {%- endif %}
            {{- content }}
            {%- for call in message.tool_calls or [] %}
                {%- set call = call.function or call %}
                {{- '\\n<call>{"name": "' + call.name + '", "arguments": ' + (call.arguments if call.arguments is string else call.arguments | tojson) + '}</call>' }}
            {%- endfor %}
            {{- '<|im_end|>' }}
        {%- endgeneration %}
        {{- '\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or messages[loop.index0 - 1].role != "tool" %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<reply>\\n' + content + '\\n</reply>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != "tool" %}
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

TEMPLATES = {"chatml": CHATML, "chatml_marked": CHATML_MARKED, "llama3": LLAMA3, "qwen": QWEN}
SPECIALS = ["<s>", "</s>", "<|head|>", "<|body|>", "<|im_start|>", "<|im_end|>"]
TOOLS = [{"type": "function", "function": {"name": "add", "description": "Adds \"a\" & <b>: é.",
          "parameters": {"type": "object", "properties": {"a": {"type": "number", "default": 1.0}}, "required": ["a"]}}}]
WORDS = ["the", "weather", "is", "sunny", "and", "Zürich", "lies", "by", "a", "lake", "了解", "🙂👍🏽", "x = {'a': 1}", "it's", "\"so\"", "tell", "me", "100", "3.14", "naïve"]


def make_tokenizer(directory, rng):
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=340, special_tokens=SPECIALS, show_progress=False,
                                             initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator([text(rng, 40) for _ in range(50)], trainer)
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))])
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    config = {"bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 100000}
    (directory / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return transformers.PreTrainedTokenizerFast(tokenizer_file=str(directory / "tokenizer.json"), bos_token="<s>", eos_token="</s>")


def text(rng, most=8):
    return rng.choice(["", " "]) + rng.choice([" ", " ", "\n"]).join(rng.choice(WORDS) for _ in range(rng.randint(1, most)))


def conversation(rng, tools):
    messages = [{"role": "system", "content": text(rng)}] if rng.random() < 0.5 else []
    for _ in range(rng.randint(1, 3)):
        messages.append({"role": "user", "content": text(rng)})
        if tools and rng.random() < 0.5:
            call = {"type": "function", "function": {"name": "add", "arguments": {"a": rng.random() * 100, "b": [1, None, True]}}}
            messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
            messages.append({"role": "tool", "content": text(rng, 3)})
        answer = {"role": "assistant", "content": text(rng)}
        if rng.random() < 0.3:
            answer[rng.choice(["reasoning_content", "thinking", "reasoning"])] = text(rng, 4)
        messages.append(answer)
    return messages


def mask_text(mask):
    return "".join(str(int(bit)) for bit in mask)


def chat_cases(tokenizer, rng):
    for name, source in TEMPLATES.items():
        for i in range(6):
            tools = TOOLS if name in ("llama3", "qwen") and i % 2 else None
            messages = conversation(rng, tools)
            prompt = i % 3 == 2
            extra = {"enable_thinking": False} if name == "qwen" and prompt else {}
            arguments = dict(tools=tools, chat_template=source, add_generation_prompt=prompt, **extra)
            marked = "generation" in source.replace("add_generation_prompt", "")
            encoded = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=marked, **arguments)
            case = {"template": name, "messages": messages, "tools": tools, "add_generation_prompt": prompt, "extra": extra,
                    "text": tokenizer.apply_chat_template(messages, tokenize=False, **arguments), "ids": encoded["input_ids"]}
            if marked:
                case["mask"] = mask_text(encoded["assistant_masks"])
            yield case


def prepared_by_trl(tokenizer, rows, **settings):
    """Input ids and labels as SFTTrainer makes them."""
    config = transformers.LlamaConfig(vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    with tempfile.TemporaryDirectory() as directory:
        arguments = trl.SFTConfig(output_dir=directory, max_length=None, use_cpu=True, bf16=False, report_to="none", **settings)
        trainer = trl.SFTTrainer(model=transformers.LlamaForCausalLM(config), args=arguments, processing_class=tokenizer,
                                 train_dataset=datasets.Dataset.from_list(rows))
        return [(row["input_ids"], row.get("labels", row["input_ids"])) for row in trainer.train_dataset]


def row_cases(tokenizer, rng):
    def emit(rows, template, loss_on, **settings):
        tokenizer.chat_template = TEMPLATES.get(template)
        for row, (ids, labels) in zip(rows, prepared_by_trl(tokenizer, rows, **settings), strict=True):
            yield {"row": row, "template": template, "loss_on": loss_on, "ids": ids, "mask": mask_text(label != -100 for label in labels)}

    texts = [text(rng) for _ in range(4)]
    yield from emit([{"text": t} for t in texts] + [{"text": texts[0] + "</s>"}], None, "all")
    pairs = [{"prompt": text(rng), "completion": text(rng)} for _ in range(5)]
    pairs += [{"prompt": "it is sun", "completion": "ny"}, {"prompt": "the wea", "completion": "ther"}, {"prompt": "a ", "completion": " lake</s>"}, {"prompt": "Z", "completion": "ürich"}]
    yield from emit(pairs, None, "completion")
    yield from emit(pairs[:2], None, "all", completion_only_loss=False)
    chats = [{"prompt": [{"role": "user", "content": text(rng)}], "completion": [{"role": "assistant", "content": text(rng)}]} for _ in range(3)]
    yield from emit(chats, "chatml", "completion")
    yield from emit(chats, "qwen", "completion")
    yield from emit([{"messages": conversation(rng, None)} for _ in range(4)], "llama3", "assistant", assistant_only_loss=True)
    yield from emit([{"messages": conversation(rng, None)} for _ in range(3)], "chatml", "all")


def write_lines(path, cases):
    with open(path, "w", encoding="utf-8") as out:
        for case in cases:
            out.write(json.dumps(case, ensure_ascii=False, separators=(",", ":")) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rng = random.Random(arguments.seed)
    out = arguments.out / "chat"
    tokenizer = make_tokenizer(out / "tokenizer", rng)
    for name, source in TEMPLATES.items():
        (out / f"{name}.jinja").write_text(source, encoding="utf-8")
    write_lines(out / "chats.jsonl", chat_cases(tokenizer, rng))
    write_lines(out / "rows.jsonl", row_cases(tokenizer, rng))


if __name__ == "__main__":
    main()
