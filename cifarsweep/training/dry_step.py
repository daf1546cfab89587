"""One step of training and one of evaluation on two images, before anything is written. Writes nothing itself."""

import warnings

import torch
from torch import Tensor

from cifarsweep.data import Batcher
from cifarsweep.training import checkpoint
from cifarsweep.training.session import Session, naming


def check(session: Session) -> None:
    """ValueError names the group of the configuration whose class cannot do its part.

    Nobody else may use the session after it: weights, optimizer and random states are no longer those of a beginning.
    """
    dataset, device = session.dataset, session.device
    places = dataset.train_indices[: min(2, session.description.batch_size)]
    images, labels = dataset.train_images[places].to(device), dataset.train_labels[places].to(device)
    mean, std = torch.tensor(dataset.mean, device=device), torch.tensor(dataset.std, device=device)
    batcher = Batcher(images, labels, torch.arange(len(places), device=device), mean, std)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the run says them in its log
        for batch, labels in batcher.training(len(places), dataset.augmentation, seed=0):
            session.model.train()
            loss = _loss(session, batch, labels)
            with naming("loss"):
                loss.backward()  # type: ignore[no-untyped-call]
            with naming("optimizer"):
                session.optimizer.step()
        session.model.eval()
        with torch.inference_mode():
            for batch, labels in batcher.evaluation(len(places)):
                _loss(session, batch, labels)
    for group, part in (("model", session.model), ("optimizer", session.optimizer)):
        with naming(group):
            checkpoint.check_state(part.state_dict())


def _loss(session: Session, batch: Tensor, labels: Tensor) -> Tensor:
    """Of a batch, where it is one number, and the scores are one for each class."""
    with naming("model"), session.autocast:
        scores = session.model(batch)
        expected = (len(labels), len(session.dataset.class_names))
        if not isinstance(scores, Tensor) or scores.shape != expected:
            got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise ValueError(f"expected scores of shape {expected} for {len(labels)} images, got {got}")
    with naming("loss"), session.autocast:
        loss = session.loss_fn(scores, labels)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            got = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(f"expected a tensor with one number for a batch, got {got}")
        return loss
