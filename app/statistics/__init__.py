"""How sure a measured figure is: intervals, tests of paired differences, votes, families of tests. Pure; numpy.

May import: nothing.
"""
