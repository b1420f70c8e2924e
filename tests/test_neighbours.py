"""kNN and retrieval: equal to plain NumPy and to scikit-learn, by chunks or whole, ties by the lowest index."""

import jax
import numpy as np
import pytest
from conftest import tiny_model
from sklearn.neighbors import KNeighborsClassifier

from modeling_vit_cls import ConfigError, FlaxViTClsModel
from modeling_vit_cls.evaluation.features import extract
from modeling_vit_cls.evaluation.neighbours import KS, knn, knn_predictions, retrieval, search
from modeling_vit_cls.images.sources import load_images


def random(n: int, width: int = 12, classes: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, width) around the centre of their class, and their classes."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, n)
    centres = np.random.default_rng(99).normal(size=(classes, width))
    return (centres[labels] + 2 * generator.normal(size=(n, width))).astype(np.float32), labels


@pytest.fixture(scope="module")
def digits():
    """Features of 300 and 100 digits: train, labels, test, labels."""
    backbone = tiny_model(FlaxViTClsModel)
    rows = load_images("digits", "train").select(range(400))
    features = extract(backbone, rows, batch_size=100, disable_tqdm=True)
    vectors = features.of("cls_mean")
    return vectors[:300], features.labels[:300], vectors[300:], features.labels[300:]


def found(*args, **kwargs) -> tuple[np.ndarray, np.ndarray]:
    """All similarities and rows of a search."""
    blocks = list(search(*args, **kwargs))
    return np.concatenate([block[1] for block in blocks]), np.concatenate([block[2] for block in blocks])


def by_numpy(queries, features, own=False):
    """Similarities (M, N) in float64, and rows by similarity, the lower row first."""
    unit = [
        x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True) for x in (queries, features)
    ]
    similarities = unit[0] @ unit[1].T
    if own:
        np.fill_diagonal(similarities, -np.inf)
    return similarities, np.argsort(-similarities, axis=1, kind="stable")


def test_search_is_that_of_numpy_by_chunks_or_whole():
    (queries, _), (features, _) = random(70, seed=1), random(2500)
    similarities, order = by_numpy(queries, features)
    whole = found(queries, features, 40)
    np.testing.assert_array_equal(whole[1], order[:, :40])
    np.testing.assert_allclose(whole[0], np.take_along_axis(similarities, order[:, :40], 1), atol=1e-6)
    for chunked in (found(queries, features, 40, rows_at_once=1), found(queries, features, 40, rows_at_once=2048)):
        for a, b in zip(whole, chunked):
            np.testing.assert_array_equal(a, b)
    assert (np.sort(found(queries, features, 2500)[1]) == np.arange(2500)[None]).all(), "k may be N"


def test_of_equal_similarities_the_lower_row_comes_first():
    features = np.tile(np.eye(4, dtype=np.float32)[[0, 1, 0, 2]], (600, 1))  # rows 0, 2, 4, 6, ... are equal
    for size in (1024, 4096):
        _, rows = found(np.eye(4, dtype=np.float32)[:1] * 8, features, 700, rows_at_once=size)
        assert rows[0].tolist() == list(range(0, 1400, 2))
    labels = np.arange(len(features)) % 4
    assert knn_predictions(features, labels, np.eye(4, dtype=np.float32)[3:], (4,), 4)[4] == [0], "all are equal"


def test_zeros_have_similarity_0_and_scale_changes_nothing():
    features, _ = random(50)
    with_zeros = np.concatenate([features, np.zeros((1, 12), np.float32)])
    assert found(with_zeros[-1:], with_zeros, 51)[0].tolist() == [[0] * 51]
    np.testing.assert_array_equal(found(features * 4, features, 9)[1], found(features, features / 8, 9)[1])


@pytest.mark.parametrize("kind", ["random", "digits"])
def test_knn_is_that_of_numpy_and_scikit_learn(kind, digits):
    if kind == "digits":
        train, labels, test, _ = digits
        classes = 10
    else:
        (train, labels), (test, _), classes = random(900), random(150, seed=1), 5
    predictions = knn_predictions(train, labels, test, KS, classes)
    similarities, order = by_numpy(test, train)
    for k in KS:
        nearest = np.take_along_axis(similarities, order[:, :k], 1)
        weights = np.exp(nearest / 0.07) / np.exp(nearest / 0.07).sum(axis=1, keepdims=True)
        votes = [np.bincount(labels[rows], row, classes) for rows, row in zip(order[:, :k], weights)]
        np.testing.assert_array_equal(predictions[k], np.argmax(votes, axis=1))
        theirs = KNeighborsClassifier(k, weights=lambda d: np.exp((1 - d) / 0.07), metric="cosine", algorithm="brute")
        np.testing.assert_array_equal(predictions[k], theirs.fit(train, labels).predict(test))


def test_accuracies_are_of_each_k_that_the_training_set_allows(digits):
    train, labels, test, test_labels = digits
    accuracies = knn(train, labels, test, test_labels)
    assert list(accuracies) == [f"knn_{k}_accuracy" for k in KS]
    assert 0.5 < accuracies["knn_10_accuracy"] < 1, "a random backbone tells digits apart"
    predicted = knn_predictions(train, labels, test, (10,), 10)[10]
    assert accuracies["knn_10_accuracy"] == np.mean(predicted == test_labels)
    assert list(knn(train[:99], labels[:99], test, test_labels)) == ["knn_10_accuracy", "knn_20_accuracy"]
    assert knn(train, labels, train, labels)["knn_10_accuracy"] > accuracies["knn_10_accuracy"]


def by_loops(order, labels, query_labels) -> dict[str, float]:
    """Recall and mAP@R, image by image. `order` has for each query all rows of the gallery, the nearest first."""
    recall, precision = {1: [], 5: [], 10: []}, []
    for rows, label in zip(order, query_labels):
        hits = [labels[row] == label for row in rows]
        if not any(hits):
            continue
        for k, values in recall.items():
            values.append(any(hits[:k]))
        total = sum(hits)
        precision.append(sum(sum(hits[: i + 1]) / (i + 1) for i in range(total) if hits[i]) / total)
    return {f"recall_at_{k}": np.mean(v) for k, v in recall.items()} | {"map_at_r": np.mean(precision)}


def test_retrieval_is_that_of_a_reference(digits):
    train, labels, test, test_labels = digits
    got = retrieval(train, labels, test, test_labels)
    assert got == pytest.approx(by_loops(by_numpy(test, train)[1], labels, test_labels))
    assert 0 < got["map_at_r"] < got["recall_at_1"] < got["recall_at_10"] <= 1

    got = retrieval(train, labels, train, labels, leave_one_out=True)
    order = by_numpy(train, train, own=True)[1][:, :-1]
    assert got == pytest.approx(by_loops(order, labels, labels))
    assert retrieval(train, labels, train, labels)["recall_at_1"] == 1, "each image finds itself"


def test_queries_without_an_image_of_their_class_are_left_out():
    (gallery, labels), (queries, query_labels) = random(60), random(30, seed=1)
    few = query_labels % 2
    got = retrieval(gallery[labels < 4], labels[labels < 4], queries, np.where(few, 7, query_labels % 4))
    wanted = retrieval(gallery[labels < 4], labels[labels < 4], queries[few == 0], query_labels[few == 0] % 4)
    assert got == pytest.approx(wanted)
    perfect = retrieval(np.eye(3), np.arange(3), np.eye(3), np.arange(3))
    assert perfect == {"recall_at_1": 1, "map_at_r": 1}


def test_bad_input_is_one_line():
    features, labels = random(20)
    broken = np.where(np.arange(20)[:, None] == 7, np.nan, features)
    for call, message in (
        (lambda: next(search(features, features, 21)), r"k=21: must be a number of neighbours from 1 to 20"),
        (lambda: next(search(features, features, 20, leave_one_out=True)), "from 1 to 19"),
        (lambda: next(search(features[:, :5], features, 3)), r"has width 5, the features have 12: use one model"),
        (lambda: next(search(broken, features, 3)), r"queries=\(20, 12\): must be finite in float32: row 7 is not"),
        (lambda: knn(broken, labels, features, labels), r"train=\(20, 12\): must be finite in float32: row 7"),
        (lambda: knn(features, labels[:3], features, labels), "has 20 rows, but there are 3 labels"),
        (lambda: knn(features[:9], labels[:9], features, labels), "has fewer images than .* neighbours, 10"),
        (lambda: knn(features[0], labels, features, labels), r"must be features of shape \(N, F\)"),
        (
            lambda: knn_predictions(features, labels, features, [3], int(labels.max())),
            "must be above the largest label",
        ),
        (lambda: next(search(features.astype(np.float64) * 1e200, features, 3)), "must be finite in float32: row 0"),
        (lambda: retrieval(features, labels, features, labels + 9), "no query has an image of its class"),
    ):
        with pytest.raises(ConfigError, match=message):
            call()


@pytest.mark.parametrize("scale", [1e-30, 1e-19, 1.0, 1e19, 1e30])
def test_neighbours_do_not_depend_on_the_scale_of_the_features(scale):
    features, _ = random(20)
    _, similarities, rows = next(search(features * np.float32(scale), features * np.float32(scale), 5))
    _, expected, right = next(search(features, features, 5))
    np.testing.assert_allclose(similarities, expected, atol=1e-6)
    np.testing.assert_array_equal(rows, right)


def test_memory_does_not_grow_with_the_features(monkeypatch):
    """Arrays on the device are of one chunk, whatever N is."""
    sizes = []
    place = jax.numpy.asarray
    monkeypatch.setattr(
        "modeling_vit_cls.evaluation.neighbours._nearer",
        lambda best, unit, chunk, *_, k: (sizes.append(chunk.shape), best)[1],
    )
    for n in (1024, 4096):
        list(search(place(random(3)[0]), random(n)[0], 2, rows_at_once=1024))
    assert sizes == [(1024, 12)] * 5
