"""The numbers that are not in an equation: published ones, and those chosen here.

What was chosen was chosen on networks trained on drawn figures (docs/study.md). The
kernels compile these in, and are compiled anew when their own file changes.
"""

#: ``R / sigma`` of a disc and of the Gaussian that it replaces: UDPv1's 3.5 at 2.
RADIUS_PER_SIGMA = 1.75

#: Blurs of the authors' code for the classification map and for the offsets, px.
AUTHORS_KERNELS = (15, 7)

#: Voting: the share of R that is the sigma of its window, how often the window moves
#: to where its pixels point, and the spread of their votes, as a share of R, at which
#: they agree by half.
VOTING_WINDOW = 1 / 3
VOTING_ROUNDS = 5
VOTING_SPREAD = 1 / 6

#: A map varying by less than this share of its maximum is flat: more than the
#: rounding of a blur in float32, less than any peak.
FLAT = 1e-5

#: Loss: the offsets' part beside half the mean squared error of H, and the share of R
#: that is the sigma of their weights.
OFFSET_WEIGHT = 0.006
OFFSET_WINDOW = 1 / 3
