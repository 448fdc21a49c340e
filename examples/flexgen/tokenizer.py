"""The word tokenizer, put where the hub's client looks for `facebook/opt-30b`.

FlexGen loads that tokenizer by name whatever the model's size. With HF_HUB_CACHE naming the folder
made here and HF_HUB_OFFLINE=1 it finds ours.
"""

from pathlib import Path

from huggingface_hub.file_download import repo_folder_name
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import OPTConfig, PreTrainedTokenizerFast

from examples.flexgen import recital

NAME = "facebook/opt-30b"
_REVISION = "0" * 40  # the client wants something of a commit's form


def make(hub: Path) -> None:
    """Writes the tokenizer into a folder of the hub client's cache layout."""
    words = Tokenizer(
        WordLevel(
            {word: i for i, word in enumerate(recital.vocabulary())}, unk_token=recital.UNKNOWN
        )
    )
    words.pre_tokenizer = WhitespaceSplit()
    repository = hub / repo_folder_name(repo_id=NAME, repo_type="model")
    snapshot = repository / "snapshots" / _REVISION
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(_REVISION)
    OPTConfig().save_pretrained(snapshot)  # AutoTokenizer wants to read a configuration first
    PreTrainedTokenizerFast(
        tokenizer_object=words,
        bos_token=recital.START,
        pad_token=recital.PADDING,
        eos_token=recital.END,
        unk_token=recital.UNKNOWN,
        clean_up_tokenization_spaces=False,
    ).save_pretrained(snapshot)
