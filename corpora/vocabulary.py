"""
Where the ids of a tokenizer and the rows of weights meet. There can be more of either: tokens are added to a
tokenizer for which nobody gives the weights rows, and weights are padded with rows for which there is no
token. Ids without a row are refused where a text has them; rows without a token are never drawn.
"""
from corpora.tokenizers import start_of
from engine.cli import BadInput


def must_have_rows(model, path, *corpora):
    """Raises BadInput where one of these Tokens has an id that the weights in `path` have no row for.

    What counts are the ids that the text has: tokens are often added to a tokenizer, one for padding say,
    that no text has and nobody gave a row. The text is searched only where the tokenizer has more ids than
    the weights.
    """
    for tokens in corpora:
        if tokens.vocab_size > model.config.vocab_size:
            must_have_row(model, path, tokens.highest_id(), tokens.vocab_size, f"{tokens.path}.bin")


def must_have_row(model, path, highest, n_ids, source):
    """The same for the highest id of a text from `source`, whose tokenizer has n_ids."""
    n_rows = model.config.vocab_size
    if highest >= n_rows:
        raise BadInput(f"{path or 'the model'} has rows for {n_rows} token ids, the tokenizer of {source} "
                       f"has {n_ids}, and id {highest} is in use: give weights with a row for each id, or a "
                       f"corpus made with the weights' own tokenizer")


def tokenizer_must_fit(model, path, enc, source, texts):
    """The same for what the tokenizer of the corpus `source` makes of these texts, and for what it puts
    before and behind a text. texts: anything to go through, which is done only where it has more ids."""
    if enc.n_vocab > model.config.vocab_size:
        highest = max([enc.eot_token, *start_of(enc)])
        for text in texts:
            highest = max([highest, *enc.encode_ordinary(text)])
        must_have_row(model, path, highest, enc.n_vocab, source)


def draw_only(n_ids, *models):
    """Let these models draw none but the first n_ids ids, of which each has a row: their tokenizer knows no
    others, or one of the models does not."""
    n_drawn = min(n_ids, *(model.config.vocab_size for model in models))
    for model in models:
        model.n_drawn = n_drawn
