"""How good are completions (Task 4b)? Draws from q(Z|Psi*) and from p(Z|x_L), for images spread over the test set.

-log p(x_R|x_L) for soft targets as in Task 2d, squared error beside simple guesses, labels by a classifier, and why the
worst fail. Writes report/results/completions-<run>.json and two figures: of the worst, and of those whose digit is
least certain.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from common import cli
from common.annealing import CHAINS, TEMPERATURES, LogDensity, anneal, log_joint, resampled
from common.config import FAVOURITE
from common.evaluation import importance_bound, log_weights, mean_and_se
from common.figures import columns_grid, save_figure
from common.likelihoods import Likelihood
from common.vae import LEFT, VAE, Score, masked
from report.studies.classifier import Classifier, load_classifier
from task_4.complete import TITLES
from task_4.inference import infer

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, MixtureSameFamily, MultivariateNormal, Normal
from tqdm import tqdm

ROWS, SHOWN, BLOCK = 8, 4, 50  # of the figure; completions in it; images at a time
SAMPLES = 200  # for an ELBO
SURE = 1 - 1e-4  # the largest confidence that is scored, of pixels and labels
CHECKED, CHECK_DRAWS = 10, 16_000  # the sampler is checked on every tenth image by importance sampling
KEEP = 4  # optimisations whose q(Z|Psi*) the chains start from


def main() -> None:
    images = cli.number(CHECKED + 1), 200, "test images to score"
    options, mnist, vae, source = cli.with_model(__doc__, FAVOURITE.run, images=images)
    cli.require(vae.likelihood.independent, options.run, "pixels that are independent given z")
    net, net_left = (load_classifier(source, vae.zeros.device, name) for name in ("classifier", "classifier-left"))
    test, left = mnist.test.spread(options.images), LEFT.to(vae.zeros.device)
    blocks = [score(vae, x, net) for x in tqdm(test.x.split(BLOCK), desc="blocks of images")]
    scores = {name: torch.cat([block[name] for block in blocks]) for name in blocks[0]}
    log_p_left, x_left = scores["log_p_left"], torch.where(left, test.x, 0.0)
    distances = torch.cdist(x_left.flatten(1), torch.where(left, mnist.train.x, 0.0).flatten(1))
    nearest = mnist.train.x[distances.topk(CHAINS, largest=False).indices]  # as many as there are draws, nearest first
    mean = mnist.train.x.mean(dim=0).expand_as(test.x)
    guesses = {name: scores[f"image_{name}"] for name in ("draws", "psi", "psi_one", "psi_shown")}
    guesses |= {"nearest": nearest.mean(dim=1), "nearest_one": nearest[:, 0]}
    guesses |= {"mean_image": mean, "black": torch.zeros_like(mean)}
    p_y = {name: scores[f"p_y_{name}"] for name in ("draws", "psi")}
    p_y |= {"left_classifier": net_left(x_left).softmax(dim=1), "original": net(test.x).softmax(dim=1)}
    nats, entropy = log_p_left - scores["log_p"], torch.special.entr(p_y["draws"]).sum(dim=1)
    squared_error = {name: right((test.x - guess).square()) for name, guess in guesses.items()}
    log_loss = {name: -p[range(len(p)), test.y].clamp(1 - SURE, SURE).log() for name, p in p_y.items()}
    results = {
        "images": len(test.x),
        "chains": CHAINS,
        "temperatures": TEMPERATURES,
        "least_probability": 1 - SURE,
        "conditional_nats": mean_and_se(nats),
        "pyro_form": mean_and_se(log_p_left - scores["by_encoder"]),
        "mean_image_nats": mean_and_se(-right(soft(mean, test.x))),
        "squared_error": beside_draws(squared_error),
        "label_log_loss": beside_draws(log_loss),
        **failures(scores, nats, test.x),
        "check": check(vae, test.x[::CHECKED], log_p_left[::CHECKED], scores["log_p"][::CHECKED]),
    }
    source.save(f"completions-{options.run}", results)
    for name, by in (("worst", nats), ("several", entropy)):
        rows = by.argsort(descending=True)[:ROWS]
        z = resampled(scores["z"][rows], scores["log_w"][rows], SHOWN)
        new = [torch.where(left, test.x[rows], vae.likelihood.show(vae.p_x(part))) for part in z.unbind(dim=1)]
        titles = [*TITLES[:2], *map(str, range(1, SHOWN + 1))]
        if name == "worst":  # can the decoder draw it at all? With the q(Z|Psi) that has seen the whole image
            new[-1], titles[-1] = vae.likelihood.show(vae.p_x(scores["seen"][rows])), "from $x$"
        figure = columns_grid([test.x[rows], x_left[rows], *new], titles, width=3.6, numbered=True)
        save_figure(figure, f"{options.run}-{name}-completions", source)


def beside_draws(scores: dict[str, Tensor]) -> dict[str, object]:
    """Mean scores of images (N,), and by how much each is above that of draws of p(Z|x_L), paired."""
    draws = scores["draws"]
    return {name: mean_and_se(part) | {"above_draws": mean_and_se(part - draws)} for name, part in scores.items()}


def soft(pi: Tensor, x: Tensor) -> Tensor:
    """Minus the cross-entropy of each pixel of x, as a soft target, under pi."""
    return Bernoulli(pi.clamp(1 - SURE, SURE)).log_prob(x)


def right(values: Tensor) -> Tensor:
    """The sum over pixels of right halves: (N,)."""
    return torch.where(LEFT.to(values.device), 0.0, values).sum(dim=(1, 2, 3))


def whole_score(likelihood: Likelihood, mask: Tensor) -> Score:
    """log p(x_d|z) on the model's own scale on the left, and as soft targets under E[X|z] on the right."""
    left = masked(likelihood.log_prob, mask)
    return lambda p_x, x: torch.where(mask, left(p_x, x), soft(likelihood.mean(p_x), x))


def score(vae: VAE, x: Tensor, net: Classifier) -> dict[str, Tensor]:
    """Draws of p(Z|x_L) for x (N, 1, 28, 28), and the measures of each image, (N, ...).

    p(x_R|x_L) is the mean of p(x_R|z) over p(Z|x_L), but of a few draws hardly one is near the z that fit x_R. So the
    finite-draw error is made small by a proposal that has seen x: p(x_R|x_L) = p(x_L, x_R) / p(x_L), both annealed, the
    first from a q(Z|Psi) fitted to the whole image.
    """
    mask = LEFT.to(x.device)
    left, whole = masked(vae.likelihood.log_prob, mask), whole_score(vae.likelihood, mask)
    q_left, q_seen = [one.psi.q_z() for one in infer(vae, x, mask, keep=KEEP)], infer(vae, x)[0].psi.q_z()
    z, log_w = anneal(log_joint(vae, x, left), q_left, CHAINS, TEMPERATURES)
    _, both = anneal(log_joint(vae, x, whole), [q_seen], CHAINS // 2, TEMPERATURES // 2)  # one narrow mode: easier
    left_best, left_by_psi = (log_weights(vae, x, q_z, SAMPLES, left) for q_z in (q_left[0], q_seen))
    by_encoder, by_psi = (log_weights(vae, x, q_z, SAMPLES, whole).mean(dim=0) for q_z in (vae.q_z(x), q_seen))
    with torch.random.fork_rng():  # other draws do not depend on these
        z_psi = infer(vae, x, mask)[0].psi.q_z().sample((CHAINS,))  # of task_4/complete.py's q(Z|Psi*)
        shown = torch.where(mask, x, vae.likelihood.show(vae.p_x(z_psi[0])))  # ... and what it draws
    image, p_y = mean_completion(vae, x, net, z, log_w.softmax(dim=0))
    image_psi, p_y_psi = mean_completion(vae, x, net, z_psi, torch.full_like(log_w, 1 / CHAINS))
    return {
        "seen": q_seen.mean,
        "z": z.transpose(0, 1),
        "log_w": log_w.T,
        "log_p_left": importance_bound(log_w),  # log p(x_L)
        "log_p": importance_bound(both),  # log p(x_L, x_R), x_R as soft targets
        "by_encoder": by_encoder,  # its ELBO with q(Z|x)
        "by_psi": by_psi,  # ... with q_seen
        "left_by_psi": left_by_psi.mean(dim=0),  # the left half's ELBO with q_seen
        "left_best": left_best.mean(dim=0),  # ... with the q(Z|Psi*) of the left half
        "error": ((left_best.var(dim=0) + left_by_psi.var(dim=0)) / SAMPLES).sqrt(),  # of the difference
        "image_draws": image,
        "p_y_draws": p_y,
        "image_psi": image_psi,
        "image_psi_one": torch.where(mask, x, vae.likelihood.mean(vae.p_x(z_psi[0]))),
        "image_psi_shown": shown,
        "p_y_psi": p_y_psi,
    }


def mean_completion(vae: VAE, x: Tensor, net: Classifier, z: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Means over z (C, N, K) with shares (C, N): of images with E[X_R|z], (N, 1, 28, 28), and p(y|image), (N, 10)."""
    images = torch.stack([torch.where(LEFT.to(x.device), x, vae.likelihood.mean(vae.p_x(one))) for one in z])
    p_y = torch.stack([net(image).softmax(dim=1) for image in images])
    return torch.einsum("cn,cnihw->nihw", share, images), torch.einsum("cn,cny->ny", share, p_y)


def failures(scores: dict[str, Tensor], nats: Tensor, x: Tensor) -> dict[str, object]:
    """What the ROWS worst images and the worst twentieth of all suffer from.

    -log p(x_R|x_L) is at least the entropy of p(B_R|x). Of what is above it a part stays when q(Z|Psi) is fitted to the
    whole image: the cross-entropy of x_R under this q. The rest is what the model did not infer from the left half.
    Where this q gives the left half a higher ELBO than its own Psi* (by two errors), a better one was missed.
    """
    entropy = -right(soft(x, x))
    stays = (scores["left_by_psi"] - scores["by_psi"] - entropy) / (nats - entropy)
    missed = scores["left_by_psi"] > scores["left_best"] + 2 * scores["error"]
    worst = nats.argsort(descending=True)[: max(ROWS, len(nats) // 20)]
    twentieth = {"images": len(worst), "share_that_stays": mean_and_se(stays[worst])}
    return {
        "worst_share_that_stays": stays[worst[:ROWS]].tolist(),
        "worst_twentieth": twentieth | {"missed_optima": int(missed[worst].sum())},
    }


def check(vae: VAE, x: Tensor, log_p_left: Tensor, log_p: Tensor) -> dict[str, object]:
    """log p(x_L) by annealing beside importance sampling; it and log p(x_L, x_R) with twice the chains and
    temperatures."""
    mask, sampled, doubled, both = LEFT.to(x.device), [], [], []
    for part in tqdm(x.split(BLOCK), desc="check"):
        q_z = [one.psi.q_z() for one in infer(vae, part, mask, keep=KEEP)]
        target = log_joint(vae, part, masked(vae.likelihood.log_prob, mask))
        doubled.append(importance_bound(anneal(target, q_z, 2 * CHAINS, 2 * TEMPERATURES)[1]))
        proposal, weights = curved(target, q_z), []
        for _ in range(CHECK_DRAWS // BLOCK):
            z = proposal.sample((BLOCK,))
            weights.append(target(z) - proposal.log_prob(z))
        sampled.append(importance_bound(torch.cat(weights)))
        with torch.random.fork_rng():  # other draws do not depend on these
            whole = log_joint(vae, part, whole_score(vae.likelihood, mask))
            q_seen = [infer(vae, part)[0].psi.q_z()]
            both.append(importance_bound(anneal(whole, q_seen, CHAINS, TEMPERATURES)[1]))
    return {
        "images": len(x),
        "draws": CHECK_DRAWS,
        "importance_minus_annealed": mean_and_se(torch.cat(sampled) - log_p_left),
        "doubled_minus_annealed": mean_and_se(torch.cat(doubled) - log_p_left),
        "both_doubled_minus_annealed": mean_and_se(torch.cat(both) - log_p),
    }


def curved(target: LogDensity, q_z: list[Normal]) -> MixtureSameFamily:
    """Normals at the means of q_z, with full covariances: a little more than the target's curvature there says."""
    covariances = []
    for q in q_z:
        steps = torch.diag_embed(q.stddev / 2).transpose(0, 1)  # (K, N, K): half a standard deviation in each direction
        z = torch.cat([q.mean + steps, q.mean - steps]).requires_grad_()
        ahead, behind = torch.autograd.grad(target(z).sum(), z)[0].chunk(2)
        curvature = ((behind - ahead) / q.stddev.T.unsqueeze(2)).transpose(0, 1)  # (N, K, K)
        values, vectors = torch.linalg.eigh((curvature + curvature.mT) / 2)
        variances = 1.3 / values.clamp_min(1.0)  # the prior's curvature is 1
        covariances.append(vectors @ torch.diag_embed(variances) @ vectors.mT)
    parts = MultivariateNormal(torch.stack([q.mean for q in q_z], dim=1), torch.stack(covariances, dim=1))
    return MixtureSameFamily(Categorical(torch.ones(parts.batch_shape, device=parts.loc.device)), parts)


if __name__ == "__main__":
    cli.main(main)
