"""The same shapes through transformers and peft, with random weights drawn on the GPU: what gpu_bench is held against.

    python3 peers.py --what step|generate --shape 1b|8b|124m|tiny --method full|lora --tokens 4096 [--compile] [--device cuda|cpu]

The last line has the figures. Both run in bfloat16 with PyTorch's scaled dot product attention; the optimizer is torch's fused AdamW
(full: bfloat16 weights and moments, which is less than gpu_bench's float32 masters; lora: peft's float32 adapters, multiplied in
bfloat16 by autocast, as Trainer's bf16 = True does). The CPU and "tiny" are for a test of this program.
"""

import argparse
import time

import torch
import transformers

LLAMA = dict(max_position_embeddings=131072, rope_theta=500000.0)
SHAPES = {
    "124m": transformers.GPT2Config(embd_pdrop=0, attn_pdrop=0, resid_pdrop=0),  # Temper does not apply a model's own dropout
    "1b": transformers.LlamaConfig(vocab_size=128256, hidden_size=2048, intermediate_size=8192, num_hidden_layers=16,
                                   num_attention_heads=32, num_key_value_heads=8, tie_word_embeddings=True, **LLAMA),
    "8b": transformers.LlamaConfig(vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32,
                                   num_attention_heads=32, num_key_value_heads=8, tie_word_embeddings=False, **LLAMA),
    "tiny": transformers.LlamaConfig(vocab_size=512, hidden_size=128, intermediate_size=256, num_hidden_layers=2,
                                     num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=False, **LLAMA),
}  # fmt: skip


def synchronize(arguments):
    if arguments.device == "cuda":
        torch.cuda.synchronize()


def model_of(arguments):
    config = SHAPES[arguments.shape]
    with torch.device(arguments.device):
        torch.set_default_dtype(torch.bfloat16)
        model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=torch.bfloat16)
    if arguments.method == "lora":
        import peft

        for parameter in model.parameters():
            parameter.requires_grad_(False)
        model = peft.get_peft_model(model, peft.LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"))
    return model


def step(arguments):
    model = model_of(arguments)
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5, fused=True)
    run = torch.compile(model) if arguments.compile else model
    ids = torch.randint(0, SHAPES[arguments.shape].vocab_size, (arguments.rows, arguments.tokens), device=arguments.device)
    times = []
    for i in range(arguments.steps + 2):
        synchronize(arguments)
        start = time.perf_counter()
        with torch.autocast(arguments.device, torch.bfloat16, enabled=arguments.method == "lora"):
            loss = run(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        synchronize(arguments)
        times.append(time.perf_counter() - start)
    seconds = sorted(times[2:])[len(times[2:]) // 2]
    tokens = arguments.rows * arguments.tokens
    print(f"transformers {transformers.__version__} torch {torch.__version__} {'compiled' if arguments.compile else 'eager'} "
          f"{arguments.shape} {arguments.method}: {seconds:.3f} s, {tokens / seconds:.0f} tokens/s, "
          f"peak {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")


def generate(arguments):
    model = model_of(arguments)
    model.eval()
    ids = torch.randint(0, SHAPES[arguments.shape].vocab_size, (arguments.samples, 64), device=arguments.device)
    options = dict(do_sample=True, max_new_tokens=arguments.tokens, min_new_tokens=arguments.tokens, pad_token_id=0)
    model.generate(ids, **{**options, "max_new_tokens": 4, "min_new_tokens": 4})
    synchronize(arguments)
    start = time.perf_counter()
    model.generate(ids, **options)
    synchronize(arguments)
    seconds = time.perf_counter() - start
    print(f"transformers {transformers.__version__} generate {arguments.shape}: {arguments.samples} x {arguments.tokens} tokens in "
          f"{seconds:.1f} s, {arguments.samples * arguments.tokens / seconds:.0f} tokens/s")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--what", choices=["step", "generate"], default="step")
    parser.add_argument("--shape", choices=list(SHAPES), default="1b")
    parser.add_argument("--method", choices=["full", "lora"], default="full")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    arguments = parser.parse_args()
    (step if arguments.what == "step" else generate)(arguments)


if __name__ == "__main__":
    main()
