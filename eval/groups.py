"""Whether a space keeps classes together: clustering, linear probe, zero-shot classification of unit embeddings."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from unialign_gen.errors import InputError, as_input_error

with as_input_error("clustering, linear probe and zero-shot need scikit-learn: install the extra `eval`", ImportError):
    from sklearn.cluster import KMeans
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import adjusted_rand_score, v_measure_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

__all__ = ["clustering", "linear_probe", "zero_shot"]


def clustering(z: Tensor, labels: Sequence[str | int], seed: int = 0) -> dict[str, float]:
    """Agreement of k-means clusters of embeddings (N, d) with their labels; as many clusters as labels, the best of 10 starts.

    Returns:
        `V-measure` (Rosenberg & Hirschberg 2007), in [0, 1]; `ARI`, the adjusted Rand index (Hubert & Arabie 1985), at most 1.

    Raises:
        InputError: fewer than two labels, or not one a row.

    Example:
        >>> clustering(torch.eye(2).repeat(5, 1), ["cat", "dog"] * 5)
        {'V-measure': 1.0, 'ARI': 1.0}
    """
    count = check(z, labels)
    found = KMeans(count, n_init=10, random_state=seed).fit_predict(z.double().numpy())
    return {"V-measure": float(v_measure_score(labels, found)), "ARI": float(adjusted_rand_score(labels, found))}


def linear_probe(
    train: Tensor, train_labels: Sequence[str | int], test: Tensor, test_labels: Sequence[str | int]
) -> dict[str, float]:
    """Accuracy on (M, d) of a logistic regression that was fitted on (N, d), features standardised, L2 weight 1.

    Raises:
        InputError: fewer than two labels to learn, or not one a row.

    Example:
        >>> z = torch.eye(2).repeat(5, 1)
        >>> linear_probe(z, ["cat", "dog"] * 5, z, ["cat", "dog"] * 5)
        {'linear probe top-1': 1.0}
    """
    check(train, train_labels)
    check(test, test_labels, least=1)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(train.double().numpy(), list(train_labels))
    return {"linear probe top-1": float(model.score(test.double().numpy(), list(test_labels)))}


def zero_shot(z: Tensor, labels: Sequence[int | Collection[int]], classes: Tensor) -> dict[str, float]:
    """How often a right class is the nearest, or among the five nearest, of class embeddings (C, d) to embeddings (N, d).

    Args:
        labels: of each row the number of its class, or of all its classes.

    Raises:
        InputError: a class that there is not, or not one entry a row.

    Example:
        >>> zero_shot(torch.eye(3), [0, {0, 1}, 0], torch.eye(3))
        {'zero-shot top-1': 0.6666666666666666, 'zero-shot top-5': 1.0}
    """
    check(z, labels, least=0)
    right = torch.zeros(len(z), len(classes), dtype=torch.bool)  # (N, C)
    for i, label in enumerate(labels):
        names = [label] if isinstance(label, int) else list(label)
        if not all(0 <= name < len(classes) for name in names):
            raise InputError(f"row {i} is of class {max(names)}: there are {len(classes)}, numbered from 0")
        right[i, names] = True
    order = (z.double() @ classes.double().T).topk(min(5, len(classes)), dim=1).indices  # (N, 5)
    hits = right.gather(1, order)
    return {f"zero-shot top-{k}": float(hits[:, :k].any(1).double().mean()) for k in (1, 5)}


def check(z: Tensor, labels: Sequence[object], least: int = 2) -> int:
    """How many labels there are; an `InputError` where they are too few, or not one a row of (N, d)."""
    if z.ndim != 2 or len(z) != len(labels):
        raise InputError(f"one label a row is needed: embeddings {tuple(z.shape)}, {len(labels)} labels")
    count = len(set(labels)) if least else 0
    if count < least:
        raise InputError(f"at least {least} different labels are needed, got {count}")
    return count
