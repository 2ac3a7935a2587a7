import torch

from thalweg.race.tasks.text import (
    BUCKETS,
    CONTEXT,
    ORDERS,
    OTHER,
    Transformer,
    contexts,
    embedding,
    prose,
    transformer,
)


def test_the_text_is_split_in_order_and_numbered_by_its_training_part() -> None:
    text = prose()
    assert len(text.train) + len(text.test) > 300_000
    assert len(text.test) / (len(text.train) + len(text.test)) < 0.1001
    assert set(text.train.tolist()) == set(range(OTHER + 1, text.characters))
    assert set(text.test.tolist()) <= set(range(text.characters))


def test_targets_of_windows_are_the_next_characters() -> None:
    text, task = prose(), transformer()
    for split, part in (("train", text.train), ("test", text.test)):
        x, y = next(iter(task.batches(split, torch.Generator().manual_seed(0))))
        assert x.shape == y.shape
        assert x.shape[1] == CONTEXT
        assert torch.equal(x[:, 1:], y[:, :-1])
        whole = part.unfold(0, CONTEXT + 1, 1)
        for row, target in zip(x, y, strict=True):
            window = torch.cat([row, target[-1:]])
            assert (whole == window).all(dim=1).any()


def test_the_transformer_does_not_look_ahead() -> None:
    torch.manual_seed(0)
    model = Transformer(20)
    x = torch.randint(20, (2, CONTEXT))
    changed = x.clone()
    changed[:, 40:] = (changed[:, 40:] + 1) % 20
    with torch.no_grad():
        before, after = model(x), model(changed)
    torch.testing.assert_close(before[:, :40], after[:, :40])
    assert not torch.allclose(before[:, 40:], after[:, 40:])
    # It does look back.
    changed = x.clone()
    changed[:, 0] = (changed[:, 0] + 1) % 20
    with torch.no_grad():
        assert not torch.allclose(before[:, -1], model(changed)[:, -1], atol=1e-7)


def test_contexts_are_the_characters_before() -> None:
    text = torch.tensor([3, 1, 4, 1, 5, 9, 2, 6, 3, 1, 4, 1, 7])
    rows = contexts(text)
    assert rows.shape == (13, ORDERS)
    for order in range(ORDERS):
        assert (rows[:, order] // BUCKETS == order).all()
    # 3 1 4 1 comes before the fifth and the last character, 1 before others as well
    assert torch.equal(rows[4], rows[12])
    assert rows[2, 0] == rows[4, 0]
    assert rows[2, 1] != rows[4, 1]
    # The character itself and those after it do not count.
    text[4:] = 8
    assert torch.equal(contexts(text)[:5], rows[:5])


def test_all_gradients_of_the_embedding_are_sparse() -> None:
    task = embedding()
    model = task.model()
    batch = next(iter(task.batches("train", torch.Generator().manual_seed(0))))
    task.loss(model, batch).backward()
    for p in model.parameters():
        assert p.grad.is_sparse
        assert p.grad.coalesce().indices().unique().numel() <= 1024


def test_test_rows_of_the_embedding_are_in_range_and_belong_to_their_targets() -> None:
    text, task = prose(), embedding()
    ((rows, targets),) = task.batches("test", torch.Generator())
    assert len(rows) == len(targets)
    assert int(rows.max()) < ORDERS * BUCKETS
    assert torch.equal(rows, contexts(text.test)[::11])
    assert torch.equal(targets, text.test[::11])
