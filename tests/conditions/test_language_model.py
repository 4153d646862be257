"""Captions by text encoders: tiny ones made here, as nothing is downloaded in tests."""

from pathlib import Path
from typing import Any

import pytest
import torch

from ddpm_lightning.conditions import encodings
from ddpm_lightning.conditions.language_model import LanguageModelCaption

transformers = pytest.importorskip("transformers", reason="needs the extra text")
pytestmark = pytest.mark.slow  # importing transformers takes seconds

WORDS = ["<pad>", "</s>", "<unk>", "a", "dog", "cat", "jumps"]
WIDTH = 16


def save_tokenizer(folder: Path) -> None:
    import tokenizers

    vocabulary = {word: i for i, word in enumerate(WORDS)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)


@pytest.fixture(scope="module", params=["t5", "clip"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights, with its tokenizer, as huggingface.co has them."""
    path = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    if request.param == "t5":
        config = transformers.T5Config(
            vocab_size=len(WORDS), d_model=WIDTH, d_kv=8, d_ff=32, num_layers=1, num_heads=2
        )
        model = transformers.T5ForConditionalGeneration(config)
    else:
        small = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
        text = {"vocab_size": len(WORDS), "hidden_size": WIDTH, "eos_token_id": 1, **small}
        vision = {"hidden_size": WIDTH, "image_size": 32, **small}
        config = transformers.CLIPConfig(text_config=text, vision_config=vision)
        model = transformers.CLIPModel(config)
    model.save_pretrained(path)
    save_tokenizer(path)
    return path


@pytest.fixture
def caption(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LanguageModelCaption:
    monkeypatch.chdir(tmp_path)  # below which results are kept
    torch.manual_seed(0)
    return LanguageModelCaption(str(folder), width=WIDTH, max_tokens=5)


def test_tokens_are_the_hidden_states(caption: LanguageModelCaption, folder: Path) -> None:
    """Up to half precision; of norm 1, and the rest is the trained token."""
    encoded = caption.encode(["a dog jumps", None, ""])
    assert (caption.vector_width, caption.token_width) == (WIDTH, WIDTH)
    tokenizer, encoder = encodings._loaded(str(folder), "main")
    inputs = tokenizer(["a dog jumps"], return_tensors="pt")
    states = encoder(inputs["input_ids"], inputs["attention_mask"]).last_hidden_state[0]
    assert states.shape == (3, WIDTH)
    wanted = torch.nn.functional.normalize(states, dim=1)
    torch.testing.assert_close(encoded["tokens"][0, :3], wanted, atol=2e-3, rtol=0)
    torch.testing.assert_close(encoded["tokens"][0, 3:], caption.no_token.expand(2, -1))
    torch.testing.assert_close(encoded["tokens"][1:], caption.no_token.expand(2, 5, -1))
    norms = encoded["vectors"].norm(dim=1)
    torch.testing.assert_close(norms, torch.tensor([1.0, 0.0, 0.0]))


def test_captions_are_encoded_once(
    caption: LanguageModelCaption, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what follows in this process and, as after a restart, by another condition."""
    calls: list[Any] = []
    encode = encodings.Encodings._encoded

    def counted(self: Any, captions: Any, device: Any) -> Any:
        calls.append(captions)
        return encode(self, captions, device)

    monkeypatch.setattr(encodings.Encodings, "_encoded", counted)
    caption.prepare(["a dog", "a cat", "a dog"])
    assert calls == [["a dog", "a cat"]]
    before = caption.encode(["a cat"])
    again = LanguageModelCaption(str(folder), width=WIDTH, max_tokens=5)
    again.load_state_dict(caption.state_dict())
    after = again.encode(["a cat"])
    assert all(torch.equal(before[name], after[name]) for name in before)
    again.encode(["a cat jumps"])  # as sample.py asks for it
    assert calls[1:] == [["a cat jumps"]]


def test_another_length_has_its_own_results(caption: LanguageModelCaption, folder: Path) -> None:
    other = LanguageModelCaption(str(folder), width=WIDTH, max_tokens=2)
    assert other.encodings.path.name != caption.encodings.path.name


@pytest.mark.parametrize("text", ["zxqvw", "a " * 1000, "\ud800", "東京", "😀"])
def test_odd_captions_are_encoded(caption: LanguageModelCaption, text: str) -> None:
    encoded = caption.encode([text])
    assert encoded["tokens"].shape == (1, 5, WIDTH)
    assert all(t.isfinite().all() for t in encoded.values())


def test_the_encoder_is_no_part_of_the_denoiser(caption: LanguageModelCaption) -> None:
    caption.encode(["a dog"])
    assert [name for name, _ in caption.named_parameters()] == ["no_token"]
    caption.encode(["a dog"])["tokens"].sum().backward()
    assert caption.no_token.grad is not None


def test_a_damaged_file_is_named(caption: LanguageModelCaption) -> None:
    caption.prepare(["a dog"])
    caption.encodings.path.write_bytes(b"nonsense" * 1000)
    with pytest.raises(ValueError, match=r"cannot be used: .*; delete it"):
        caption.encode(["a dog"])


def test_what_is_not_there_is_refused(tmp_path: Path, caption: LanguageModelCaption) -> None:
    with pytest.raises(ValueError, match=r"no text encoder .*; give a model") as error:
        LanguageModelCaption(str(tmp_path)).prepare(["a dog"])
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"16 numbers .*; set condition.caption.width=16"):
        LanguageModelCaption(caption.model, width=8).prepare(["a dog"])
    with pytest.raises(ValueError, match="no clip has a caption"):
        caption.prepare([])
