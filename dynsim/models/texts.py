"""Text as the inputs of a model: excerpts of equal length, or one text a line."""

from __future__ import annotations

from typing import Any

from dynsim._values import whole
from dynsim.models.sources import Source

__all__ = ["excerpts", "lines"]


def excerpts(
    source: Source, text: str, n_tokens: int, samples: int, special_tokens: bool = False
) -> dict[str, Any]:
    """The first excerpts of a text, all of one length, as inputs of a model.

    Parameters
    ----------
    n_tokens : int
        Tokens of an excerpt, its special tokens included.
    samples : int
        Excerpts at most; a short text gives fewer.
    special_tokens : bool
        Put the tokenizer's special tokens around every excerpt, as [CLS] and [SEP] of BERT.

    Returns
    -------
    dict
        input_ids and attention_mask, (samples, n_tokens); for an encoder with a decoder also what
        the decoder is given, the excerpt one token later.

    Raises
    ------
    ValueError
        For a text of fewer tokens than an excerpt, fewer than two tokens, more than the model has
        positions for, or a model that takes no text.
    """
    _check_length(source, whole("number of tokens", n_tokens, 1))
    samples = whole("number of samples", samples, 1)
    before, after = _special_tokens(source) if special_tokens else ([], [])
    inner = n_tokens - len(before) - len(after)
    if inner < 1:
        raise ValueError(
            f"{n_tokens} tokens leave none for text beside {n_tokens - inner} special ones; use "
            f"more tokens"
        )
    ids = _encoded(source, text)
    available = len(ids) // inner
    if not available:
        raise ValueError(
            f"the text is too short: {len(ids)} tokens for excerpts of {inner}; give a longer text "
            f"or fewer tokens"
        )
    return _inputs(source, [
        [*before, *ids[k * inner : (k + 1) * inner], *after] for k in range(min(samples, available))
    ])  # fmt: skip


def lines(source: Source, text: str, samples: int, special_tokens: bool = False) -> dict[str, Any]:
    """The first lines of a text that are not empty, one text each, as inputs of a model.

    As `excerpts`, but shorter texts are padded on the right, and attention_mask is 0 there. Raises
    ValueError for a line of fewer than two tokens, or more than the model has positions for.
    """
    samples = whole("number of samples", samples, 1)
    _check_length(source, 2)
    before, after = _special_tokens(source) if special_tokens else ([], [])
    numbered = [(k, line) for k, line in enumerate(text.splitlines(), 1) if line.strip()]
    rows = []
    for k, line in numbered[:samples]:
        rows.append([*before, *_encoded(source, line), *after])
        _check_length(source, len(rows[-1]), f"line {k}: ")
    if not rows:
        raise ValueError("the text is empty; give one with a text on every line")
    return _inputs(source, rows)


def _inputs(source: Source, rows: list[list[int]]) -> dict[str, Any]:
    import torch

    longest = max(map(len, rows))
    tokenizer = source.tokenizer
    fillers = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)  # masked, so any token does
    filler = next(token for token in fillers if token is not None)
    ids = torch.tensor([row + [filler] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    inputs = {"input_ids": ids, "attention_mask": mask}
    config = source.config
    if getattr(config, "is_encoder_decoder", False):
        start = getattr(config, "decoder_start_token_id", None)
        first = torch.full_like(ids[:, :1], filler if start is None else start)
        inputs["decoder_input_ids"] = torch.cat([first, ids[:, :-1]], dim=1)
        inputs["decoder_attention_mask"] = mask
    return inputs


def _check_length(source: Source, n_tokens: int, where: str = "") -> None:
    if source.takes_images:
        raise ValueError(
            f"{source.name} takes images, not text; give dynsim.probe its pixel_values in Python"
        )
    if source.tokenizer is None:
        raise ValueError(
            f"{source.name} has no tokenizer in {source.folder}; put it there with "
            f"tokenizer.save_pretrained(folder)"
        )
    if n_tokens < 2:
        raise ValueError(
            f"{where}a text has at least two tokens, for distances between them are measured; got "
            f"{n_tokens}; give a longer text"
        )
    if source.positions is not None and n_tokens > source.positions:
        raise ValueError(
            f"{where}{source.name} has positions for {source.positions} tokens; got {n_tokens}; "
            f"use fewer"
        )


def _encoded(source: Source, text: str) -> list[int]:
    ids = source.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    if ids and set(ids) == {source.tokenizer.unk_token_id}:
        raise ValueError(
            f"the tokenizer of {source.name} knows no word of the text; give another text, or the "
            f"model's own tokenizer"
        )
    return ids


def _special_tokens(source: Source) -> tuple[list[int], list[int]]:
    """What the tokenizer puts before and after a text."""
    bare, dressed = _encoded(source, "a"), source.tokenizer("a")["input_ids"]
    starts = [k for k in range(len(dressed)) if dressed[k : k + len(bare)] == bare]
    if not starts:
        raise ValueError(
            f"the tokenizer of {source.name} puts no special tokens around a text; leave them out"
        )
    start = starts[0]
    return dressed[:start], dressed[start + len(bare) :]
