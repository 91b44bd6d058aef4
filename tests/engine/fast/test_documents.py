"""Rows end to end, and what all of them begin with."""

import torch

from studio.engine.fast.documents import Document, Layout, common_beginning, grouped, lay_out
from studio.templates.packed import IGNORED


def document(ids, learned_from):
    labels = [IGNORED] * learned_from + ids[learned_from:]
    return Document(torch.tensor(ids), torch.tensor(labels))


ROWS = [document([1, 2, 3, 4, 5, 60, 61], 6), document([1, 2, 3, 4, 5, 70, 71, 72], 6)]


def test_a_common_beginning_stands_once_and_positions_go_on_from_it():
    batch = lay_out(ROWS)
    assert batch.layout == Layout(5, (1, 2))
    assert batch.ids.tolist() == [[1, 2, 3, 4, 5, 60, 70, 71]]
    assert batch.positions.tolist() == [[0, 1, 2, 3, 4, 5, 5, 6]]


def test_tokens_behind_the_last_that_predicts_are_left_out_and_predicted_all_the_same():
    row = Document(torch.arange(9), torch.tensor([IGNORED] * 4 + [4, 5] + [IGNORED] * 3))
    batch = lay_out([row])
    assert batch.ids.tolist() == [[0, 1, 2, 3, 4]] and batch.targets.tolist() == [4, 5]
    assert batch.ids[0, batch.places].tolist() == [3, 4]


def test_places_predict_the_tokens_that_follow_them():
    batch = lay_out(ROWS)
    assert batch.counts == (1, 2)
    assert batch.targets.tolist() == [61, 71, 72]
    assert batch.ids[0, batch.places].tolist() == [60, 70, 71]


def test_without_sharing_every_row_has_its_beginning():
    batch = lay_out(ROWS, shared=False)
    assert batch.layout == Layout(0, (6, 7))
    assert batch.ids[0, batch.places].tolist() == [60, 70, 71] and batch.targets.tolist() == [61, 71, 72]


def test_a_token_that_predicts_is_never_shared():
    # the fifth token predicts the sixth, which differs from row to row
    rows = [document([1, 2, 3, 4, 5, 60], 5), document([1, 2, 3, 4, 5, 70], 5)]
    assert common_beginning(rows) == 4
    assert common_beginning([document([1, 2, 3, 4, 5, 6], 1)] * 2) == 0


def test_equal_rows_keep_something_of_their_own():
    rows = [document([1, 2, 3, 4, 5, 6, 7], 7)] * 3
    batch = lay_out(rows)
    assert batch.layout.prefix < 7 and all(length > 0 for length in batch.layout.lengths)
    assert len(batch.targets) == 0


def test_groups_keep_the_order_and_hold_no_more_than_they_may_but_for_a_single_row():
    rows = [document(list(range(count)), count) for count in (3, 4, 9, 2, 2)]
    assert [[len(row) for row in group] for group in grouped(rows, 7)] == [[3, 4], [9], [2, 2]]
