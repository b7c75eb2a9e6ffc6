"""Vocabularies of real kinds of tokenizers, made here: byte-level BPE, SentencePiece with byte tokens, whole words."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wrongturn.errors import EngineError

pytestmark = pytest.mark.torch
transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

from wrongturn.engines._tokenizer import HFVocabulary, split  # noqa: E402
from wrongturn.engines.embedded import packaged  # noqa: E402

TEXT = ["Let x = 12.\n\nThen 3x is 36 — naïve, but true. Also: 東京 and 🙂 and é!\n"] * 3 + [
    "the then there\n\nthat"
] * 3


def byte_level() -> HFVocabulary:
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=330,
        initial_alphabet=alphabet,
        special_tokens=["<|end|>", "<|user|>", "<|bot|>"],
        show_progress=False,
    )
    made.train_from_iterator(TEXT, trainer)
    made.add_tokens(["</think>"])
    return HFVocabulary(transformers.PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|end|>"))


def sentencepiece() -> HFVocabulary:
    """As Llama 2 has it: a mark for a space, byte tokens for what is in no other, a first space that is dropped."""
    words = ["▁", "▁the", "the", "n", "a", "▁a", ".", "\n", "é", "▁x", "x", "=", "1", "2", "�"]
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2}
    vocab |= {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
    vocab |= {word: 259 + i for i, word in enumerate(words)}
    merges = [("▁", "a"), ("▁", "x")]
    made = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    made.normalizer = tokenizers.normalizers.Sequence(
        [tokenizers.normalizers.Prepend("▁"), tokenizers.normalizers.Replace(" ", "▁")]
    )
    decoders = tokenizers.decoders
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    made.add_special_tokens(["<s>", "</s>"])
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)]
    )
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>", bos_token="<s>")
    return HFVocabulary(fast)


VOCABULARIES = {"byte_level": byte_level(), "sentencepiece": sentencepiece(), "words": HFVocabulary.load(packaged())}
relaxed = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("kind", VOCABULARIES)
@relaxed
@given(data=st.data())
def test_pieces_joined_are_the_decoded_text(kind: str, data: st.DataObject) -> None:
    """For any ids, broken characters among them."""
    vocabulary = VOCABULARIES[kind]
    size = len(vocabulary._tokenizer)
    ids = data.draw(st.lists(st.integers(0, size - 1), max_size=24))
    pieces = vocabulary.pieces(ids)
    assert len(pieces) == len(ids)
    assert "".join(pieces) == vocabulary.decode(ids)
    assert vocabulary.decode(ids) == vocabulary._tokenizer.decode(
        ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
    )


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece"])
@relaxed
@given(text=st.text(st.sampled_from("a the\nx=12 é🙂東—"), max_size=30))
def test_a_text_comes_back_and_characters_are_whole(kind: str, text: str) -> None:
    vocabulary = VOCABULARIES[kind]
    ids = vocabulary.encode(text)
    pieces = vocabulary.pieces(ids)
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


def test_a_character_is_in_the_token_that_completes_it() -> None:
    vocabulary = VOCABULARIES["sentencepiece"]
    ids = [263, *(3 + byte for byte in "é🙂".encode()), 263]
    assert vocabulary.pieces(ids) == ["a", "", "é", "", "", "", "🙂", "a"]


def test_broken_bytes_are_marked_and_do_not_swallow_their_neighbours() -> None:
    vocabulary = VOCABULARIES["byte_level"]
    (whole,) = [vocabulary.encode("x")]
    broken = vocabulary._tokenizer.convert_tokens_to_ids("ð")  # the first byte of an emoji
    assert vocabulary.pieces([*whole, broken, *whole]) == ["x", "\ufffd", "x"]
    assert vocabulary.pieces([*whole, broken]) == ["x", "\ufffd"]


def test_what_the_tokens_cannot_say_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot say 'hello'"):
        VOCABULARIES["words"].encode("hello")


def test_special_tokens_have_no_text_and_others_do() -> None:
    vocabulary = VOCABULARIES["byte_level"]
    ids = [*vocabulary.encode("a</think>"), *vocabulary.stop_ids]
    assert vocabulary.pieces(ids) == ["a", "</think>", ""]
    assert vocabulary.stop_ids == (0,)


def test_tokens_that_contain_a_mark() -> None:
    vocabulary = VOCABULARIES["byte_level"]
    found = vocabulary.containing(["\n", "="])
    assert found
    assert set(vocabulary.encode("x\nx")) & set(found)
    everything = {i: vocabulary.pieces([5, i])[1] for i in range(len(vocabulary._tokenizer))}
    assert found == tuple(i for i, text in everything.items() if "\n" in text or "=" in text)


def test_a_prompt_follows_the_template_or_is_plain() -> None:
    vocabulary = byte_level()
    messages = [{"role": "user", "content": "the x"}]
    assert vocabulary.prompt(messages) == vocabulary.encode("the x")
    vocabulary._tokenizer.chat_template = (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|bot|>{% endif %}"
    )
    assert vocabulary.prompt(messages) == vocabulary.encode("<|user|>the x<|end|><|bot|>")
    sp = VOCABULARIES["sentencepiece"]
    assert sp.prompt(messages) == [1, *sp.encode("the x")]
    vocabulary._tokenizer.chat_template = "{{ raise_exception('no system message, please') }}"
    with pytest.raises(EngineError, match="no system message, please"):
        vocabulary.prompt(messages)


def test_stop_ids_come_from_the_generation_config(tmp_path: Path) -> None:
    VOCABULARIES["byte_level"]._tokenizer.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [7, 9]}')
    assert HFVocabulary.load(tmp_path).stop_ids == (7, 9, 0)
    assert HFVocabulary.load(packaged()).stop_ids == (2,)


def test_a_tokenizer_file_alone_will_do() -> None:
    vocabulary = HFVocabulary.load(packaged() / "tokenizer.json")
    assert vocabulary.encode("1,2|3,4") == VOCABULARIES["words"].encode("1,2|3,4")


@pytest.mark.parametrize("content", [None, "{", '{"model": 3}'])
def test_what_is_no_tokenizer_is_one_line(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
        with pytest.raises(EngineError, match="no tokenizer can be loaded from") as said:
            HFVocabulary.load(tmp_path / "tokenizer.json")
        assert "\n" not in str(said.value)
    with pytest.raises(EngineError, match="no tokenizer can be loaded from") as said:
        HFVocabulary.load(tmp_path)
    assert "\n" not in str(said.value)


def test_split_gives_a_character_to_its_last_token() -> None:
    assert split("a€b", ["", "a", "a\ufffd", "a\ufffd", "a€"]) == ["a", "", "", "€", "b"]
    assert split("", ["", ""]) == ["", ""]
