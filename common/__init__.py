"""What the tasks share. One direction of flow:

    mnist -> likelihoods, vae -> training | inference -> runs -> evaluation, figures -> report

Symbols, as in the assignment          shapes
    B, N    images in a batch, in all      x        (B, 1, 28, 28)  pixels in [0, 1]
    D       784 pixels                     z        (B, K)          latents
    K       latent dimensions              raw      (B, C, 28, 28)  what the decoder returns
    C       decoder channels per pixel     q_z      Normal with batch shape (B, K): q(Z|x) or q(Z|Psi)
    y       digit labels                   p_x      distribution with batch shape (B, 1, 28, 28): p(X|z)

Everything called elbo, log_likelihood or kl is in nats per image, summed over D pixels or K latents.
"""
