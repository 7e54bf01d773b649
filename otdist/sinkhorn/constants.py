"""The numbers of Sinkhorn's method that its two forms, `method` and the compiled `loop`, share."""

LOG2E = 1.4426950408889634

# Differences that Anderson acceleration remembers. 5 are as good at an error of 1e-3, 10 are better at 1e-6.
MEMORY = 10
# Added to the normal equations of Anderson's unit columns: the square of the digits that these leave, with a margin.
RIDGE = 1e-12
# Where a cloud is compared with itself, the one potential moves by this share of its residual: the exact linear map
# between f and Tf has eigenvalues in (-1, 0] there, and 2/3 makes both ends converge at 1/3.
SYMMETRIC_STEP = 2.0 / 3.0
# Below this share of its weight a column's mass may consist of what underflowed.
LOST = 1e-25
# Such a column has arrived when its next step is within this: its potential moves the value by its tiny mass.
ARRIVED = 1.0
# A matrix serves while the potential stays this close (in base 2) to the one that it absorbed, in float32 and in
# float64: what has underflowed in it, entries below 2^-126 and 2^-1022 of their row's largest, then is below LOST.
TRUST_SINGLE, TRUST_DOUBLE = 20.0, 200.0
# Below this ratio of ε to the mean cost, potentials are first found for larger ε, each stage to this marginal error.
ANNEAL_BELOW, ANNEAL_FACTOR, ANNEAL_TOL = 1 / 300, 4.0, 0.03
# Passes that a stage takes at most: it only looks for a start, and Newton's method, which may finish, comes after it.
ANNEAL_MOST = 100
# A start at which unbalanced marginals are farther, in base 2, from the weights than this is not taken.
MOST_LEFT = 300.0
MAX_STAGES = 500  # more than the range of doubles has
ANNEAL_ABOVE = LOG2E / ANNEAL_BELOW  # the mean cost in base 2 and units of ε
# Newton's method forms the Hessian of the second cloud's potential: at most this many points.
NEWTON_POINTS = 2048
# It takes over after so many passes, or earlier, at a marginal error of 1e-3, where the tolerance is below 1e-5.
NEWTON_AFTER = 500
# Its quadratic model is not trusted at first to move a potential by more than this, in base 2: entries change by 2^16.
TRUST_RADIUS = 16.0
