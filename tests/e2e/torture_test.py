# SPDX-License-Identifier: Apache-2.0
"""A few rounds of torture.py: daemons and clients killed at random, the same bits in the end."""

import unittest

from torture import torture


class Kills(unittest.TestCase):
    def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bits(self):
        faults = torture(rounds=2, seed=2)
        self.assertEqual(len(faults), 2)
        self.assertTrue(any(faults), "no fault struck: the rounds show nothing")

    def test_replicas_with_split_state_end_with_the_bits_of_whole_state(self):
        faults = torture(rounds=1, seed=3, replicas=2)
        self.assertTrue(any(faults), "no fault struck: the round shows nothing")


if __name__ == "__main__":
    unittest.main(verbosity=2)
