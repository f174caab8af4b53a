"""The variational autoencoder: encoder, decoder, and the ELBO."""

from collections.abc import Callable
from typing import NamedTuple

from common.likelihoods import Likelihood

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, MultivariateNormal, Normal
from torch.distributions.kl import kl_divergence

SHAPE = (1, 28, 28)
LEFT = (torch.arange(28) < 14).expand(1, 1, 28, 28)  # Task 4b: the mask of x_L, the 14 left columns
PATCH = 4  # the networks work on 7x7 patches of 4x4 pixels, where nearly all arithmetic is matrix products
Score = Callable[[Distribution, Tensor], Tensor]  # (p_x, x) -> log p(x_d|z) of each pixel, (B, 1, 28, 28)


class Residual(nn.Module):
    """h + layer(act(layer(act(h)))): two layers that keep the shape, beside an identity."""

    def __init__(self, first: nn.Module, second: nn.Module):
        super().__init__()
        self.net = nn.Sequential(nn.SiLU(), first, nn.SiLU(), second)

    def forward(self, h: Tensor) -> Tensor:
        return h + self.net(h)


def dense_residual(units: int) -> Residual:
    return Residual(nn.Linear(units, units), nn.Linear(units, units))


def conv(channels_in: int, channels_out: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1)


class Encoder(nn.Module):
    """x (B, 1, 28, 28) to the parameters of q(Z|x).

    The first two layers together are a convolution with a 12x12 kernel and stride 4, only faster: the 3x3 convolution
    sees the 16 pixels of a patch as channels.
    """

    def __init__(self, latent_dim: int, width: int, hidden: int):
        super().__init__()
        self.net = nn.Sequential(
            nn.PixelUnshuffle(PATCH),  # (B, 16, 7, 7)
            conv(PATCH**2, width),
            nn.SiLU(),
            conv(width, width // 2),
            nn.SiLU(),
            nn.Flatten(),  # (B, 49 width / 2)
            nn.Linear(49 * (width // 2), hidden),
            dense_residual(hidden),
            dense_residual(hidden),
            nn.SiLU(),
            nn.Linear(hidden, 2 * latent_dim),  # mu and log sigma
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """mu and sigma, (B, K) each."""
        mu, log_sigma = self.net(x).chunk(2, dim=1)
        return mu, log_sigma.exp()


class Decoder(nn.Module):
    """z (B, K) to the raw channels of p(X|z), (B, C, 28, 28).

    The last two layers together are a transposed convolution with a 4x4 kernel and stride 4, only faster. bias is one
    number per channel and pixel, so that a pixel's average need not come through the network.
    """

    def __init__(self, latent_dim: int, channels: int, width: int, hidden: int):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(latent_dim, hidden),
            dense_residual(hidden),
            dense_residual(hidden),
            nn.SiLU(),
            nn.Linear(hidden, 49 * (width // 2)),
            nn.Unflatten(1, (width // 2, 7, 7)),
            conv(width // 2, width),  # (B, width, 7, 7)
            Residual(conv(width, width), conv(width, width)),
            nn.SiLU(),
            nn.Conv2d(width, channels * PATCH**2, kernel_size=1),
            nn.PixelShuffle(PATCH),  # (B, C, 28, 28)
        )
        self.bias = nn.Parameter(torch.zeros(channels, 28, 28))
        last = self.net[-2]
        with torch.no_grad():  # begin near the bias alone: the model that ignores z
            last.weight.mul_(0.1)
            last.bias.zero_()

    def forward(self, z: Tensor) -> Tensor:
        return self.net(z) + self.bias


class Gaussians(Independent):
    """J Gaussians with diagonal covariances, batch shape (J,), whose log_prob costs two matrix products."""

    def log_prob(self, z: Tensor) -> Tensor:
        """log N(z | mu_j, sigma_j^2) for z (..., 1, K), (..., J): (z - mu_j)^2 multiplied out, so no (..., J, K)."""
        mu, precision = self.mean.double(), self.variance.double().reciprocal()  # since large terms cancel
        z = z.squeeze(-2).double()
        squares = z**2 @ precision.T - 2 * z @ (mu * precision).T + (mu**2 * precision).sum(1)
        return -0.5 * (squares - (precision / (2 * torch.pi)).log().sum(1)).to(self.mean.dtype)


class Mixture(nn.Module):
    """p(Z) as a mixture of so many Gaussians, which learn with the model (Task 2e); full: with full covariances."""

    def __init__(self, components: int, latent_dim: int, full: bool = False):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(components))
        # near 0, where training begins to place q(Z|x): components that start farther out may never be used
        self.mu = nn.Parameter(0.1 * torch.randn(components, latent_dim))
        self.log_sigma = nn.Parameter(torch.zeros(components, latent_dim))
        self.lower = nn.Parameter(torch.zeros(components, latent_dim, latent_dim)) if full else None

    def forward(self) -> MixtureSameFamily:
        sigma = self.log_sigma.exp()
        if self.lower is None:
            parts = Gaussians(Normal(self.mu, sigma), 1)
        else:  # sigma is the diagonal of the covariance's Cholesky factor
            parts = MultivariateNormal(self.mu, scale_tril=self.lower.tril(-1) + sigma.diag_embed())
        return MixtureSameFamily(Categorical(logits=self.logits), parts)


class VAE(nn.Module):
    """p(Z) = N(0, I) with K = latent_dim, or a mixture that learns; p(X|z) by the decoder, q(Z|x) by the encoder."""

    def __init__(
        self, likelihood: Likelihood, latent_dim: int, width: int, hidden: int, components: int = 0, full: bool = False
    ):
        super().__init__()
        self.latent_dim, self.likelihood = latent_dim, likelihood
        self.encoder = Encoder(latent_dim, width, hidden)
        self.decoder = Decoder(latent_dim, likelihood.channels, width, hidden)
        self.mixture = Mixture(components, latent_dim, full) if components else None
        self.register_buffer("zeros", torch.zeros(latent_dim), persistent=False)
        self.to(memory_format=torch.channels_last)  # faster convolutions on the CPU

    @property
    def p_z(self) -> Distribution:
        """The prior, event shape (K,)."""
        return self.mixture() if self.mixture else Independent(Normal(self.zeros, self.zeros + 1), 1)

    def kl(self, q_z: Normal, z: Tensor) -> Tensor:
        """KL(q(Z) || p(Z)), (B,); of a mixture, to which there is no formula, its estimate by z (B, K) ~ q(Z)."""
        q_z = Independent(q_z, 1)
        return q_z.log_prob(z) - self.p_z.log_prob(z) if self.mixture else kl_divergence(q_z, self.p_z)

    def q_z(self, x: Tensor) -> Normal:
        """q(Z|x), batch shape (B, K). The encoder sees of x what p(X|z) scores: for a Categorical, its bins."""
        check_pixels(x)
        return Normal(*self.encoder(self.likelihood.render(self.likelihood.observe(x))))

    def p_x(self, z: Tensor) -> Distribution:
        """p(X|z) for z (B, K), batch shape (B, 1, 28, 28)."""
        return self.likelihood.p_x(self.decoder(z))


class ELBO(NamedTuple):
    """elbo = log_likelihood - kl, each (B,), in nats per image."""

    elbo: Tensor
    log_likelihood: Tensor
    kl: Tensor


def elbo(
    vae: VAE, x: Tensor, q_z: Normal, mask: Tensor | None = None, z: Tensor | None = None, score: Score | None = None
) -> ELBO:
    """One-sample estimate of E_q[log p(x|z)] - KL(q(Z) || p(Z)) for each image; the KL term is exact for N(0, I).

    x: (B, 1, 28, 28). q_z: q(Z|x) for Tasks 1 to 3, q(Z|Psi) for Task 4. mask: bool, broadcast to x; pixels where it
    is False are left out of log p(x|z) (Task 4b). z: (B, K) from q_z, drawn here, reparameterised, if not given.
    score: of grey levels (Task 2a), instead of the likelihood's own log_prob. Raises ValueError if x is no batch of
    images.
    """
    check_shape(x)
    z = q_z.rsample() if z is None else z
    score = masked(score or vae.likelihood.log_prob, mask)
    log_likelihood = score(vae.p_x(z), x).sum(dim=(1, 2, 3))
    kl = vae.kl(q_z, z)
    return ELBO(log_likelihood - kl, log_likelihood, kl)


def masked(score: Score, mask: Tensor | None) -> Score:
    """The score of the mask's pixels alone. The others it gets as black, which is cheap, and nothing of them enters."""
    return score if mask is None else lambda p_x, x: torch.where(mask, score(p_x, torch.where(mask, x, 0.0)), 0.0)


def check_shape(x: Tensor) -> None:
    if x.shape[1:] != SHAPE or not len(x):
        raise ValueError(f"x has shape {tuple(x.shape)}, expected (B, 1, 28, 28)")


def check_pixels(x: Tensor) -> None:
    """Raises ValueError if x is no batch of images in [0, 1]."""
    check_shape(x)
    low, high = x.aminmax()
    if not (low >= 0 and high <= 1):  # NaN fails both
        raise ValueError(f"pixels of x reach from {low:.3g} to {high:.3g}, expected [0, 1]; divide by 255")


def start_from_marginals(vae: VAE, x: Tensor, steps: int = 100) -> None:
    """Set the decoder's bias to about the best independent-pixel model of x (N, 1, 28, 28): where training starts.

    Works for every likelihood: gradient ascent on the log-likelihood of up to 64 images, in which each pixel takes the
    quantiles that it has in a thousand of x.
    """
    ordered = x[:: -(-len(x) // 1000)].sort(dim=0).values
    quantiles = ordered[:: -(-len(ordered) // 64)]
    optimiser = torch.optim.Adam([vae.decoder.bias], lr=0.1)
    for _ in range(steps):
        p_x = vae.likelihood.p_x(vae.decoder.bias.expand(len(quantiles), -1, -1, -1))
        optimiser.zero_grad()
        (-vae.likelihood.log_prob(p_x, quantiles).sum()).backward()
        optimiser.step()
    vae.zero_grad()
