"""Right-hand sides and published solutions that the tests of the solvers share."""

import jax.numpy as jnp
import numpy as np

# fmt: off
POLLU_RATES = np.array(
    [
        0.35,
        26.6,
        1.23e4,
        8.6e-4,
        8.2e-4,
        1.5e4,
        1.3e-4,
        2.4e4,
        1.65e4,
        9e3,
        2.2e-2,
        1.2e4,
        1.88,
        1.63e4,
        4.8e6,
        3.5e-4,
        1.75e-2,
        1e8,
        4.44e11,
        1.24e3,
        2.1,
        5.78,
        4.74e-2,
        1.78e3,
        3.12,
    ]
)
POLLU_START = np.zeros(20)
POLLU_START[[1, 3, 6, 7, 8, 16]] = [0.2, 0.04, 0.1, 0.3, 0.01, 0.007]
# Test Set for IVP Solvers (Bari/CWI), problem `pollu`, t = 60.
POLLU_AT_60 = np.array(
    [
        0.5646255480022769e-01,
        0.1342484130422339e00,
        0.4139734331099427e-08,
        0.5523140207484359e-02,
        0.2018977262302196e-06,
        0.1464541863493966e-06,
        0.7784249118997964e-01,
        0.3245075353396018e00,
        0.7494013383880406e-02,
        0.1622293157301561e-07,
        0.1135863833257075e-07,
        0.2230505975721359e-02,
        0.2087162882798630e-03,
        0.1396921016840158e-04,
        0.8964884856898295e-02,
        0.4352846369330103e-17,
        0.6899219696263405e-02,
        0.1007803037365946e-03,
        0.1772146513969984e-05,
        0.5682943292316392e-04,
    ]
)
# fmt: on
# Nitrogen, sulfur and carbon are conserved: rows of weights, and what the products must be.
POLLU_INVARIANTS = np.zeros((3, 20))
POLLU_INVARIANTS[0, [0, 1, 12, 14, 18]] = 1
POLLU_INVARIANTS[0, 19] = 2
POLLU_INVARIANTS[1, [16, 17]] = 1
POLLU_INVARIANTS[2, [6, 7, 9, 11, 13]] = 1
POLLU_INVARIANTS[2, [8, 10, 12]] = 2
POLLU_TOTALS = np.array([0.2, 0.007, 0.42])


def pollu(t, y, k):
    y = [None, *(y[i] for i in range(20))]
    factors = [y[1], y[2] * y[4], y[5] * y[2], y[7], y[7], y[7] * y[6], y[9], y[9] * y[6]]
    factors += [y[11] * y[2], y[11] * y[1], y[13], y[10] * y[2], y[14], y[1] * y[6], y[3], y[4]]
    factors += [y[4], y[16], y[16], y[17] * y[6], y[19], y[19], y[1] * y[4], y[19] * y[1], y[20]]
    r = [None, *(k[j] * factor for j, factor in enumerate(factors))]
    return jnp.stack(
        [
            r[2] + r[3] + r[9] + r[11] + r[12] + r[22] + r[25] - r[1] - r[10] - r[14] - r[23]
            - r[24],
            r[1] + r[21] - r[2] - r[3] - r[9] - r[12],
            r[1] + r[17] + r[19] + r[22] - r[15],
            r[15] - r[2] - r[16] - r[17] - r[23],
            2 * r[4] + r[6] + r[7] + r[13] + r[20] - r[3],
            r[3] + 2 * r[18] - r[6] - r[8] - r[14] - r[20],
            r[13] - r[4] - r[5] - r[6],
            r[4] + r[5] + r[6] + r[7],
            -r[7] - r[8],
            r[7] + r[9] - r[12],
            r[8] + r[11] - r[9] - r[10],
            r[9],
            r[10] - r[11],
            r[12] - r[13],
            r[14],
            r[16] - r[18] - r[19],
            -r[20],
            r[20],
            r[23] + r[25] - r[21] - r[22] - r[24],
            r[24] - r[25],
        ]
    )  # fmt: skip


ROBERTSON_RATES = np.array([0.04, 1e4, 3e7])
ROBERTSON_START = np.array([1.0, 0.0, 0.0])
# Test Set for IVP Solvers (Bari/CWI), problem `rober`, t = 1e11.
ROBERTSON_AT_END = np.array([0.2083340149701255e-7, 0.8333360770334713e-13, 0.9999999791665050])


def robertson(t, y, k):
    slow, medium, fast = k[0] * y[0], k[1] * y[1] * y[2], k[2] * y[1] * y[1]
    return jnp.stack([-slow + medium, slow - medium - fast, fast])


def van_der_pol(t, y, theta):
    return jnp.stack([y[1], theta[0] * ((1 - y[0] ** 2) * y[1] - y[0])])


def prothero_robinson(t, y, theta):
    """y = sin(t) whatever the stiffness theta; non-autonomous."""
    return theta[0] * (y - jnp.sin(t)) + jnp.cos(t)
