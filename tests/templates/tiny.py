"""Tokenizers small enough to see through."""

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from studio.templates import TextTokenizer


def byte_tokenizer(*specials):
    """Its tokens are bytes, so that every text has tokens and places are easy to see. specials: start and end first."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(letters)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(each, normalized=False) for each in specials])
    return TextTokenizer(backend, {"bos_token": specials[0], "eos_token": specials[1]})


def learned(encoded, tokenizer):
    """The text of the tokens that carry loss."""
    return tokenizer.decode([i for i, on in zip(encoded.input_ids, encoded.supervised, strict=True) if on])
