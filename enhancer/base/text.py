"""The base model's text side: a small CLIP text encoder and its tokenizer, built locally.

Weights stay random: a fixed random embedding tells the few prompts of a run apart, which is
all that a small base model needs, and nothing is downloaded.
"""

from pathlib import Path

from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from enhancer.config import TextConfig
from runtime.atomic import write_json, write_text

_BYTES = [*range(33, 127), *range(161, 173), *range(174, 256)]
_START, _END = "<|startoftext|>", "<|endoftext|>"


def write_tokenizer(folder: Path, *, max_length: int) -> None:
    """Write a CLIP tokenizer without merges: one token a byte, one a byte that ends a word."""
    symbols = [chr(value) for value in _BYTES]
    symbols += [chr(256 + index) for index in range(256 - len(_BYTES))]
    vocabulary = [*symbols, *(symbol + "</w>" for symbol in symbols), _START, _END]
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "vocab.json", {token: index for index, token in enumerate(vocabulary)})
    write_text(folder / "merges.txt", "#version: 0.2\n")
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "CLIPTokenizer",
            "model_max_length": max_length,
            "bos_token": _START,
            "eos_token": _END,
            "unk_token": _END,
            "pad_token": _END,
        },
    )


def build_text_encoder(config: TextConfig, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Build the text encoder that fits a tokenizer; random weights from torch's generator."""
    encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.hidden_size,
            intermediate_size=4 * config.hidden_size,
            projection_dim=config.hidden_size,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            max_position_embeddings=config.max_length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    return encoder.eval().requires_grad_(False)


def load_tokenizer(folder: Path) -> CLIPTokenizer:
    """Load a tokenizer folder."""
    return CLIPTokenizer.from_pretrained(folder)
