"""The process a sentence encoder lives in: torch and transformers are here and nowhere else in the runtime.

It shuts itself in before the model's bytes arrive, and those arrive through its standard input: it opens no file of the
model, holds no key, and can make no connection. It reads one JSON line (``sizes`` of config, tokenizer and weights,
``longest``), then these bytes, then one JSON line a text; it writes one JSON line for each: first ``measures``, then
``embedding``, or ``error`` once, and ends. When standard input closes, it ends itself.

The forward pass is transformers' BertModel with plain attention, one text at a time, in one thread, in float32. Sentence
vectors: mean over the attention mask, of length 1 (Reimers & Gurevych 2019, 1908.10084).
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import IO, Any

from studbook.errors import BytesLie, StudbookError
from studbook.models.strict_json import read_object
from studbook.runtime.routing.embeddings import rounded
from studbook.sandbox.libc import prctl
from studbook.sandbox.limits import Limits, confine, surroundings
from studbook.sandbox.lockdown import lock_down, own_network
from studbook.sandbox.places import library_trees
from studbook.training.backend import require_torch, torch

try:
    import safetensors.torch as safetensors
    import tokenizers
    import transformers
except ImportError:
    safetensors = tokenizers = transformers = None

__all__ = ["main", "read_network", "read_tokenizer"]

_PR_SET_PDEATHSIG = 1
# A service is bounded by its parent's patience with each text, not by processor seconds of all of them together.
_SECONDS, _MEMORY, _FILE = 1 << 31, 16 << 30, 1 << 20
# Field of the config -> most it may be. What is built is then held against the tensors before it takes any memory.
_BOUNDS = {
    "vocab_size": 1 << 20,
    "hidden_size": 4096,
    "num_hidden_layers": 64,
    "num_attention_heads": 64,
    "intermediate_size": 1 << 15,
    "max_position_embeddings": 1 << 15,
    "type_vocab_size": 16,
}
_ACTIVATIONS = ("gelu", "relu", "gelu_new")


def main() -> None:
    """Serve until standard input closes."""
    parent = os.getppid()
    asked, told = sys.stdin.buffer, sys.stdout.buffer
    try:
        require_torch("a sentence encoder")
        # Asked for once before the doors close: what torch loads late, it loads now.
        torch.nn.functional.gelu(torch.ones(8, 8) @ torch.ones(8, 8))
        measures = _shut_in(Path.cwd(), parent)
        head = json.loads(asked.readline() or b"{}")
        config, tokenizer, weights = (asked.read(size) for size in head["sizes"])
        network = read_network(config, weights)
        words = read_tokenizer(tokenizer, head["longest"], network.config)
        _tell(told, {"measures": measures})
        for line in asked:
            _tell(told, {"embedding": _embed(network, words, json.loads(line)).tolist()})
    except StudbookError as error:
        fields = {name: str(getattr(error, name)) for name in ("message", "where", "advice", "reason")}
        _tell(told, {"error": {"type": type(error).__name__, **fields}})


def _shut_in(own: Path, parent: int) -> list[str]:
    """Every measure this system offers, the ones that allow no way back at the end."""
    around, network = surroundings(parent), own_network()
    limited = confine(Limits(seconds=_SECONDS, memory_bytes=_MEMORY, file_bytes=_FILE))
    if sys.platform == "linux":
        # That signal comes with the end of the thread that opened the encoder; standard input closes with the process.
        prctl(_PR_SET_PDEATHSIG, 0)
    found = {*around, *network, *limited, *lock_down(own, (), library_trees())}
    return sorted(found - {"dies-with-lab"})


def read_network(config: bytes, weights: bytes) -> Any:
    """The model in evaluation, float32; its bytes are taken over only where names and shapes are the config's.

    Args:
        config: Bytes of ``config.json``.
        weights: Bytes of ``model.safetensors``; tensors that the model has no use for are not looked at.

    Raises:
        BytesLie: if they are no BERT model, out of bounds, or not finite; ``route.encoder``.
    """
    named = _config(read_object(config, "config.json", "route.encoder"))
    with torch.device("meta"):
        network = transformers.BertModel(named, add_pooling_layer=False)
    found = {name.removeprefix("bert."): tensor for name, tensor in safetensors.load(weights).items()}
    wanted = dict(network.named_parameters())
    for name, parameter in wanted.items():
        tensor = found.get(name)
        if tensor is None or tensor.shape != parameter.shape or not tensor.is_floating_point():
            shape = None if tensor is None else tuple(tensor.shape)
            raise _lie(f"{name} is {shape}; its config asks for {tuple(parameter.shape)}", "model.safetensors")
        if not bool(torch.isfinite(tensor).all()):
            raise _lie(f"{name} holds what is not finite", "model.safetensors")
    # Buffers (positions, token types) follow from the config and are computed, not read.
    network = network.to_empty(device="cpu")
    for name, parameter in network.named_parameters():
        parameter.data = found[name].to(torch.float32)
    positions = torch.arange(named.max_position_embeddings).expand((1, -1))
    network.embeddings.position_ids = positions
    network.embeddings.token_type_ids = torch.zeros_like(positions)
    return network.eval()


def _config(told: dict[str, Any]) -> Any:
    """The fields that decide the forward pass, each within its bounds; whatever else the file says is not looked at."""
    if told.get("model_type") != "bert" or told.get("position_embedding_type", "absolute") != "absolute":
        raise _lie("is no BERT with absolute positions", "config.json")
    if told.get("hidden_act") not in _ACTIVATIONS:
        raise _lie(f"hidden_act is none of {', '.join(_ACTIVATIONS)}", "config.json")
    for field, most in _BOUNDS.items():
        value = told.get(field)
        if type(value) is not int or not 0 < value <= most:
            raise _lie(f"{field} is not between 1 and {most}", "config.json")
    if told["hidden_size"] % told["num_attention_heads"]:
        raise _lie("num_attention_heads does not divide hidden_size", "config.json")
    epsilon = told.get("layer_norm_eps", 1e-12)
    if type(epsilon) is not float or not 0 < epsilon < 1:
        raise _lie("layer_norm_eps is not between 0 and 1", "config.json")
    fields = {field: told[field] for field in _BOUNDS}
    return transformers.BertConfig(
        **fields, hidden_act=told["hidden_act"], layer_norm_eps=epsilon, pad_token_id=None, attn_implementation="eager"
    )


def read_tokenizer(data: bytes, longest: int, config: Any) -> Any:
    """The tokenizer, which can ask the model for nothing it does not have.

    Args:
        data: Bytes of ``tokenizer.json``; what it says of padding and truncation is not followed.
        longest: Most tokens of a text.
        config: The model's config.

    Raises:
        BytesLie: if it is none, or does not fit the model; ``route.encoder``.
    """
    try:
        words = tokenizers.Tokenizer.from_str(data.decode())
        words.no_padding()
        words.enable_truncation(max_length=longest)
        least = len(words.encode("").ids)
    except Exception as error:
        raise _lie(f"is no tokenizer: {str(error)[:200]}", "tokenizer.json") from error
    if longest > config.max_position_embeddings:
        raise _lie(f"reads {config.max_position_embeddings} tokens, and {longest} are asked for", "config.json")
    if least == 0 or max(words.get_vocab(with_added_tokens=True).values()) >= config.vocab_size:
        raise _lie("adds no token of its own, or has tokens that the model does not know", "tokenizer.json")
    return words


def _embed(network: Any, words: Any, text: str) -> Any:
    with torch.inference_mode():
        hidden = network(input_ids=torch.tensor([words.encode(text).ids])).last_hidden_state
        # One text and no padding: the mask is all ones.
        vector = torch.nn.functional.normalize(hidden[0].mean(0), dim=0)
    if not bool(torch.isfinite(vector).all()):
        raise _lie("gives a vector that is not finite", "model.safetensors")
    return rounded(vector.numpy())


def _tell(told: IO[bytes], message: dict[str, Any]) -> None:
    told.write(json.dumps(message).encode() + b"\n")
    told.flush()


def _lie(text: str, where: str) -> BytesLie:
    return BytesLie(
        text, where=where, reason="route.encoder", advice="Take a sentence encoder that is a plain BERT model."
    )


if __name__ == "__main__":
    main()
