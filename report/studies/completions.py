"""How good are completions (Task 4b)? Draws from p(Z|x_L), scored on images spread over the test set.

-log p(x_R|x_L) for soft targets as in Task 2d, squared error beside simple guesses, labels by a classifier, and why the
worst fail. Writes report/results/completions-<run>.json and two figures: of the worst, and of those whose draws agree
least about the digit.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from common import cli
from common.annealing import CHAINS, TEMPERATURES, Draws, LogDensity, anneal, log_joint
from common.config import FAVOURITE
from common.evaluation import Score, importance_bound, log_weights, mean_and_se, own_score
from common.figures import columns_grid, save_figure
from common.likelihoods import Likelihood
from common.mnist import Mnist, Split
from common.vae import LEFT, VAE
from report.studies.classifier import Classifier, label_probabilities, load_classifier
from task_4.complete import TITLES
from task_4.inference import infer

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, MixtureSameFamily, MultivariateNormal, Normal
from tqdm import tqdm

ROWS, SHOWN, BLOCK = 8, 4, 50  # of the figure; completions in it; images at a time
SAMPLES = 200  # for an ELBO
SURE = 1 - 1e-4  # the largest confidence that is scored, of pixels and labels
CAUSES = ("ambiguous", "decoder", "optimum")  # of a bad score, see failures
CHECKED, CHECK_DRAWS = 10, 16_000  # the sampler is checked on every tenth image by importance sampling
KEEP = 4  # optimisations whose q(Z|Psi*) the chains start from


def main() -> None:
    parser = cli.run_parser(__doc__, FAVOURITE.run)
    parser.add_argument("--images", type=cli.count(CHECKED + 1), default=200, help="test images to score (200)")
    options = parser.parse_args()
    mnist, vae, source = cli.load(options)
    cli.require(vae.likelihood.independent, options.run, "pixels that are independent given z")
    net, net_left = (load_classifier(source, vae.zeros.device, name) for name in ("classifier", "classifier-left"))
    test, left = mnist.test.spread(options.images), LEFT.to(vae.zeros.device)
    blocks = [score(vae, x, net) for x in tqdm(test.x.split(BLOCK), desc="blocks of images")]
    scores = {name: torch.cat([block[name] for block in blocks]) for name in blocks[0]}
    log_p_left, x_left = scores["log_p_left"], torch.where(left, test.x, 0.0)
    nats, guesses = log_p_left - scores["log_p"], simple_guesses(mnist, test) | {"draws": scores["mean_image"]}
    p_y = {"draws": scores["p_y"], "left_classifier": label_probabilities(net_left, x_left)}
    entropy = {name: torch.special.entr(p).sum(dim=1) for name, p in p_y.items()}
    log_loss = {name: -p[range(len(p)), test.y].clamp_min(1 - SURE).log() for name, p in p_y.items()}
    results = {
        "images": len(test.x),
        "chains": CHAINS,
        "temperatures": TEMPERATURES,
        "conditional_nats": mean_and_se(nats),
        "pyro_form": mean_and_se(log_p_left - scores["by_encoder"]),
        "mean_image_nats": mean_and_se(right_nats(guesses["mean_image"], test.x)),
        "squared_error": {
            name: mean_and_se(torch.where(left, 0.0, test.x - guess).square().sum(dim=(1, 2, 3)))
            for name, guess in guesses.items()
        },
        "label_log_loss": {name: mean_and_se(loss) for name, loss in log_loss.items()},
        "label_log_loss_above_classifier": mean_and_se(log_loss["draws"] - log_loss["left_classifier"]),
        "label_entropy": {name: mean_and_se(each) for name, each in entropy.items()},
        **failures(scores, nats, test, len(mnist.test.x)),
        "check": check(vae, test.x[::CHECKED], log_p_left[::CHECKED]),
    }
    source.save(f"completions-{options.run}", results)
    titles = [*TITLES[:2], *map(str, range(1, SHOWN + 1))]
    for name, by in (("worst", nats), ("several", entropy["draws"])):
        rows = by.argsort(descending=True)[:ROWS]
        with torch.no_grad():
            z = Draws(scores["z"][rows].transpose(0, 1), scores["log_w"][rows].T).resampled(SHOWN)
            new = [torch.where(left, test.x[rows], vae.likelihood.show(vae.p_x(part))) for part in z]
        figure = columns_grid([test.x[rows], x_left[rows], *new], titles, width=3.6, numbered=True)
        save_figure(figure, f"{options.run}-{name}-completions", source)


def right_nats(pi: Tensor, x: Tensor) -> Tensor:
    """Cross-entropy of the right halves of x, as soft targets, under pi: (N,)."""
    soft = Bernoulli(pi.clamp(1 - SURE, SURE)).log_prob(x)
    return -torch.where(LEFT.to(x.device), 0.0, soft).sum(dim=(1, 2, 3))


def whole_score(likelihood: Likelihood) -> Score:
    """log p(x_L|z) on the model's own scale, plus that of x_R as soft targets under E[X|z]."""
    left = own_score(likelihood, LEFT)
    return lambda p_x, x: left(p_x, x) - right_nats(likelihood.mean(p_x), x)


def score(vae: VAE, x: Tensor, net: Classifier) -> dict[str, Tensor]:
    """Draws of p(Z|x_L) for x (N, 1, 28, 28), and the measures of each image, (N, ...).

    p(x_R|x_L) is the mean of p(x_R|z) over p(Z|x_L), but of a few draws hardly one is near the z that fit x_R. So the
    finite-draw error is made small by a proposal that has seen x: p(x_R|x_L) = p(x_L, x_R) / p(x_L), both annealed, the
    first from a q(Z|Psi) fitted to the whole image.
    """
    mask, left, whole = LEFT.to(x.device), own_score(vae.likelihood, LEFT), whole_score(vae.likelihood)
    found, seen = infer(vae, x, mask, keep=KEEP), infer(vae, x)[0]
    q_left, q_seen = [one.psi.q_z() for one in found], seen.psi.q_z()
    draws = anneal(log_joint(vae, x, left), q_left)
    both = anneal(log_joint(vae, x, whole), [q_seen], CHAINS // 2, TEMPERATURES // 2)  # one narrow mode: easier
    with torch.no_grad():
        images = torch.stack([torch.where(mask, x, vae.likelihood.mean(vae.p_x(z))) for z in draws.z])
        p_y = torch.stack([label_probabilities(net, image) for image in images])  # (C, N, 10)
        share = draws.log_w.softmax(dim=0)  # (C, N)
        left_best, left_by_psi = (log_weights(vae, x, q_z, SAMPLES, left) for q_z in (q_left[0], q_seen))
        by_encoder, by_psi = (log_weights(vae, x, q_z, SAMPLES, whole).mean(dim=0) for q_z in (vae.q_z(x), q_seen))
    return {
        "z": draws.z.transpose(0, 1),
        "log_w": draws.log_w.T,
        "log_p_left": draws.log_integral,  # log p(x_L)
        "log_p": both.log_integral,  # log p(x_L, x_R), x_R as soft targets
        "by_encoder": by_encoder,  # its ELBO with q(Z|x)
        "by_psi": by_psi,  # ... with q_seen
        "left_by_psi": left_by_psi.mean(dim=0),  # the left half's ELBO with q_seen
        "left_best": left_best.mean(dim=0),  # ... with the q(Z|Psi*) of the left half
        "error": ((left_best.var(dim=0) + left_by_psi.var(dim=0)) / SAMPLES).sqrt(),  # of the difference
        "p_y": torch.einsum("cn,cny->ny", share, p_y),
        "mean_image": torch.einsum("cn,cnihw->nihw", share, images),
    }


def simple_guesses(mnist: Mnist, test: Split) -> dict[str, Tensor]:
    """Whole images, of which the right half counts."""
    left = LEFT.to(test.x.device)
    x_left, train_left = (torch.where(left, x, 0.0).flatten(1) for x in (test.x, mnist.train.x))
    nearest = mnist.train.x[torch.cdist(x_left, train_left).argmin(dim=1)]
    return {
        "black": torch.zeros_like(test.x),
        "mean_image": mnist.train.x.mean(dim=0).expand_as(test.x),
        "nearest_left": torch.where(left, test.x, nearest),
    }


def failures(scores: dict[str, Tensor], nats: Tensor, test: Split, images: int) -> dict[str, object]:
    """Why the ROWS worst images and the worst twentieth of all score badly. In nats, with the q(Z|Psi) that has seen x,

    -log p(x_R|x_L) <= [log p(x_L) - left half's ELBO] + [cross-entropy of x_R - its entropy] + entropy:

    the first is large where the left half fits other images better, the second where the decoder cannot draw x_R; the
    one that is further above its mean is the cause. But if this q gives the left half a higher ELBO than its own Psi*
    (by two errors), the optimum was not found.
    """
    surprise, entropy = scores["log_p_left"] - scores["left_by_psi"], right_nats(test.x, test.x)
    missed = scores["left_by_psi"] - scores["by_psi"] - entropy
    ambiguous = surprise - surprise.mean() > missed - missed.mean()
    lost = scores["left_by_psi"] > scores["left_best"] + 2 * scores["error"]
    cause = [CAUSES[kind] for kind in torch.where(lost, 2, torch.where(ambiguous, 0, 1)).tolist()]
    order = nats.argsort(descending=True).tolist()
    worst = [{"image": i * images // len(nats), "label": int(test.y[i]), "cause": cause[i]} for i in order[:ROWS]]
    twentieth = order[: max(ROWS, len(order) // 20)]
    counts = {name: sum(cause[i] == name for i in twentieth) for name in CAUSES}
    return {"worst": worst, "causes_of_worst_twentieth": counts}


def check(vae: VAE, x: Tensor, log_p_left: Tensor) -> dict[str, object]:
    """log p(x_L) by annealing beside importance sampling, and with twice the chains and temperatures."""
    left, sampled, doubled = own_score(vae.likelihood, LEFT), [], []
    for part in tqdm(x.split(BLOCK), desc="check"):
        q_z = [one.psi.q_z() for one in infer(vae, part, LEFT.to(x.device), keep=KEEP)]
        target = log_joint(vae, part, left)
        doubled.append(anneal(target, q_z, 2 * CHAINS, 2 * TEMPERATURES).log_integral)
        proposal, weights = curved(target, q_z), []
        for _ in range(CHECK_DRAWS // BLOCK):
            z = proposal.sample((BLOCK,))
            with torch.no_grad():
                weights.append(target(z) - proposal.log_prob(z))
        sampled.append(importance_bound(torch.cat(weights), CHECK_DRAWS))
    return {
        "images": len(x),
        "draws": CHECK_DRAWS,
        "importance_minus_annealed": mean_and_se(torch.cat(sampled) - log_p_left),
        "doubled_minus_annealed": mean_and_se(torch.cat(doubled) - log_p_left),
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
