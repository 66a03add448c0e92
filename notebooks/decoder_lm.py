"""A small decoder language model of several languages, with transformers alone, as a directory that sensikit opens.

    make demo                                      # demo/data has text of five languages
    python notebooks/decoder_lm.py demo/data lm    # a Llama of 1.0 M parameters, a few minutes on two cores
    sensikit analyze lm --data demo/data --out lm-run --batches 40
    sensikit prune lm-run --metric loss,bpb --order specificity,reverse,random,sensitivity
    sensikit prune lm-run --metric loss,bpb --cross --ratios 0.3,0.6 --resume
    sensikit report lm-run

The groups of the run are languages alone. What to look for: whether the related languages (Catalan and Galician) use
the same parameters more than the others do, and whether a model pruned for one of them is better on the other.
"""

import argparse
import random
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

IGNORED = -100


def sentences(data: Path, split: str) -> dict[str, list[str]]:
    """The distinct lines of each language, of files such as text/train.cat-eng.cat."""
    found: dict[str, dict[str, None]] = {}
    for path in sorted((data / "text").glob(f"{split}.*")):
        lines = path.read_text(encoding="utf-8").split("\n")
        found.setdefault(path.suffix[1:], {}).update(dict.fromkeys(line for line in lines if line.strip()))
    return {language: list(lines) for language, lines in found.items()}


def byte_pairs(lines: list[str], size: int) -> PreTrainedTokenizerFast:
    """A tokenizer of byte-level BPE: there is no unknown text, so bits per byte compare across models."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "</s>", "<pad>"]
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(lines, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=special[0], eos_token=special[1], pad_token=special[2]
    )


def padded(rows: list[list[int]], pad: int) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=pad)


def loss_of(model: LlamaForCausalLM, rows: list[list[int]], pad: int) -> torch.Tensor:
    """Cross-entropy of the next token, a mean over the tokens of some lines."""
    mask = padded([[1] * len(row) for row in rows], 0)
    return model(input_ids=padded(rows, pad), attention_mask=mask, labels=padded(rows, IGNORED)).loss


def train(data: Path, out: Path, updates: int = 600, width: int = 128, layers: int = 4, vocabulary: int = 2000) -> None:
    """Train a model on the train split of every language, 64 lines an update, and save it with its tokenizer."""
    torch.manual_seed(1)
    draw = random.Random(1)
    text, held = sentences(data, "train"), sentences(data, "valid")
    tokenizer = byte_pairs([line for lines in text.values() for line in lines], vocabulary)
    positions = 256

    def encoded(lines: list[str]) -> list[list[int]]:
        bodies = tokenizer(lines, add_special_tokens=False)["input_ids"]
        return [[tokenizer.bos_token_id, *ids, tokenizer.eos_token_id][:positions] for ids in bodies]

    rows = sorted((ids for lines in text.values() for ids in encoded(lines)), key=len)
    batches = [rows[start : start + 64] for start in range(0, len(rows), 64)]  # of like length: little padding
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=3 * width, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=positions, tie_word_embeddings=True,
        **ids,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.98), weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=updates, pct_start=0.1)
    started = time.monotonic()
    for update in range(1, updates + 1):
        loss = loss_of(model.train(), draw.choice(batches), tokenizer.pad_token_id)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if update % max(1, updates // 10) == 0:
            with torch.no_grad():
                nats = {
                    language: loss_of(model.eval(), encoded(lines), tokenizer.pad_token_id).item()
                    for language, lines in held.items()
                }
            shown = ", ".join(f"{language} {value:.2f}" for language, value in nats.items())
            print(f"{update} updates, {time.monotonic() - started:.0f} s: {loss:.2f}; held out: {shown}")
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train a small decoder language model of several languages.")
    parser.add_argument("data", type=Path, help="what sensikit corpus, or sensikit demo, made")
    parser.add_argument("out", type=Path, help="the directory to write")
    for option, usual in (("updates", 600), ("width", 128), ("layers", 4), ("vocabulary", 2000)):
        parser.add_argument(f"--{option}", type=int, default=usual)
    train(**vars(parser.parse_args()))
