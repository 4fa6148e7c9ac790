"""Problems that the algorithms of `controllers.optimisation.algorithms` solve."""
